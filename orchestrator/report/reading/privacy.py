"""What a report may say of a run's settings: nothing that names a machine, a person or a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

SECRET_NAMES = re.compile(r"(^|_)(key|token|secret|password|passwd|auth|authorization|credentials?|headers?)$")
ADDRESS = re.compile(r"://|^[\w.-]+:\d{2,5}(/|$)|(?<![\d.])\d{1,3}(\.\d{1,3}){3}(?![\d.])|@[\w-]+\.")
LOOKS_SECRET = re.compile(r"(hf_|sk-|ghp_|AKIA|eyJ)[\w.-]{12,}|(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9_]{32,}")
FOLDER = re.compile(r"(?<![\w./<])(?:~|/(?!answer|think)[^\s/:\"'<>]+|[A-Za-z]:\\[^\s\\]+)(?:[/\\][^\s/\\:\"'<>]+)+")
LEFT_OUT = ("runs_dir", "placement", "tracking")
"""Settings of where a run is kept and what it runs on."""
HIDDEN = "(not shown)"


def shareable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without folders, addresses and keys. Of a path its last part stays."""
    kept = {name: value for name, value in settings.items() if name not in LEFT_OUT}
    return {name: without_places(value, name) for name, value in kept.items()}


def without_places(value: Any, name: str = "") -> Any:
    """Return a setting without what names a place or a key."""
    if isinstance(value, Mapping):
        return {key: without_places(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(inner, name) for inner in value]
    if not isinstance(value, str):
        return value
    if SECRET_NAMES.search(name.lower()) or ADDRESS.search(value) or LOOKS_SECRET.search(value):
        return HIDDEN
    if value.startswith(("/", "~", "..")) and "\n" not in value:
        return PurePath(value).name
    return FOLDER.sub(lambda found: re.split(r"[/\\]", found[0])[-1], value)
