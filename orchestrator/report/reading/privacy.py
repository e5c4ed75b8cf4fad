"""What a report may say of a run's settings: nothing that names a machine, a person or a key."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from getpass import getuser
from pathlib import PurePath
from typing import Any

SECRET_NAMES = re.compile(r"(^|_)(key|token|secret|password|passwd|auth|authorization|credentials?|headers?)$")
ADDRESS = re.compile(
    r"://|^[\w.-]+:\d{2,5}(/|$)|\b[A-Za-z][\w-]*(\.[\w-]+)+:\d{2,5}\b"
    r"|(?<![\d.])\d{1,3}(\.\d{1,3}){3}(?![\d.])|@[\w-]+\."
)
LOOKS_SECRET = re.compile(r"(hf_|sk-|ghp_|AKIA|eyJ)[\w.-]{12,}|(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9_]{32,}")
FOLDER = re.compile(r"(?<![\w./<])(?:~|/(?!answer|think)[^\s/:\"'<>]+|[A-Za-z]:\\[^\s\\]+)(?:[/\\][^\s/\\:\"'<>]+)+")
LEFT_OUT = ("runs_dir", "placement", "tracking")
"""Settings of where a run is kept and what it runs on."""
HIDDEN = "(not shown)"
SHORTEST_SECRET = 6
"""Characters of a variable's value from which its occurrence in a text is no chance."""


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
    if SECRET_NAMES.search(name.lower()) or ADDRESS.search(value) or LOOKS_SECRET.search(value) or is_known(value):
        return HIDDEN
    if "\n" not in value and (value.startswith(("/", "~", "..")) or is_of_this_user(value)):
        return PurePath(value).name
    return FOLDER.sub(lambda found: re.split(r"[/\\]", found[0])[-1], value)


def is_known(value: str) -> bool:
    """Return whether a text holds this machine's name, or the value of a variable that is named like a key."""
    named = (text for name, text in os.environ.items() if SECRET_NAMES.search(name.lower()))
    if any(len(text) >= SHORTEST_SECRET and text in value for text in named):
        return True
    host = socket.gethostname()
    return len(host) >= SHORTEST_SECRET and re.search(rf"(?<![\w-]){re.escape(host)}(?![\w-])", value) is not None


def is_of_this_user(value: str) -> bool:
    """Return whether a path leads through a folder that is named like who runs this; `owner/name` is on the hub."""
    folders = value.split("/")[:-1]
    if len(folders) < 2:
        return False
    try:
        return getuser() in folders
    except (OSError, KeyError):  # a container's user without a name
        return False
