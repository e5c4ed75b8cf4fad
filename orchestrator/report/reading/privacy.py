"""What a report may say of a run's settings: nothing that names a machine, a person or a key."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from getpass import getuser
from pathlib import Path
from typing import Any

WORD_ENDS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
SECRET_NAMES = re.compile(
    r"(_pwd|(^|_)(key|token|secrets?|pass|passwords?|passphrase|passwd|auth|authorization|bearer|cookies?|credentials?"
    r"|headers?|(api|access|account|auth|bearer|client|hf|hub|private|secret|session|ssh)_?(keys?|tokens?)))_?\d*$"
)
"""In lower case, with `_` between words. Of many tokens or keys the word before tells: `stop_tokens` are none.
`PWD` is a shell's working folder."""
ADDRESS = re.compile(
    r"://|^[\w.-]+:\d{2,5}(/|$)|\b[A-Za-z][\w-]*(\.[\w-]+)+:\d{2,5}\b"
    r"|\blocalhost:\d|(?<![\d.])\d{1,3}(\.\d{1,3}){3}(?![\d.])|\[[\da-fA-F:]*:[\da-fA-F:]*\]:\d"
    r"|@[\w-]+\.|\w@[\w-]+:"
)
LOOKS_SECRET = re.compile(
    r"(hf_|sk-|gh[a-z]_|glpat-|xox[a-z]-|AKIA|AIza|eyJ)[\w.-]{12,}|(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9_]{32,}"
)
FOLDER = re.compile(
    r"(?<![\w./<])(?:~[\w.-]*|/(?!answer|think)[^\s/:\"'<>]+|[A-Za-z]:\\[^\s\\]+)(?:[/\\][^\s/\\:\"'<>]+)+"
)
LEFT_OUT = ("runs_dir", "placement", "tracking")
"""Settings of where a run is kept and what it runs on."""
HOMES = ("home", "users")
"""Folders of people's home folders."""
HIDDEN = "(not shown)"
SHORTEST_SECRET = 6
"""Characters of a variable's value from which its occurrence in a text is no chance."""


def shareable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without folders, addresses and keys. Of a path its last part stays."""
    shown: dict[str, Any] = without_places({name: value for name, value in settings.items() if name not in LEFT_OUT})
    return shown


def without_places(value: Any, name: str = "") -> Any:
    """Return a setting without what names a place or a key."""
    if is_secret(name) and value and value is not True:
        return HIDDEN
    if isinstance(value, Mapping):
        shown: dict[Any, Any] = {}
        for key, inner in value.items():
            shown[unused(without_places(key), shown)] = without_places(inner, str(key))
        return shown
    if isinstance(value, list | tuple):
        return [without_places(inner, name) for inner in value]
    if not isinstance(value, str):
        return value
    if ADDRESS.search(value) or LOOKS_SECRET.search(value) or is_known(value):
        return HIDDEN
    if "\n" not in value and (value.startswith(("/", "~", "..", "\\\\")) or is_of_this_user(value)):
        return last_part(value)
    return FOLDER.sub(lambda found: last_part(found[0]), value)


@cache
def is_secret(name: str) -> bool:
    """Return whether a setting or a variable is named like a key, such as `api_key`, `API-KEY` or `apiKey`."""
    return SECRET_NAMES.search(WORD_ENDS.sub("_", name).lower()) is not None


def unused(key: Any, taken: Mapping[Any, Any]) -> Any:
    """Return a key that is not taken: two folders may end alike."""
    return next(each for each in (key, *(f"{key} ({n})" for n in range(2, len(taken) + 3))) if each not in taken)


def last_part(path: str) -> str:
    """Return the last part of a path; HIDDEN where that is a home folder, or the name of who runs this."""
    *folders, name = re.split(r"[/\\]", path.rstrip("/\\"))
    if not name:  # the root
        return path
    is_home = name.startswith("~") or (bool(folders) and folders[-1].lower() in HOMES)
    return HIDDEN if is_home or name.rstrip(".,;)!?") in names_of_user() else name


def is_known(value: str) -> bool:
    """Return whether a text holds this machine's name, or the value of a variable that is named like a key."""
    named = (text for name, text in os.environ.items() if is_secret(name))
    if any(len(text) >= SHORTEST_SECRET and text in value for text in named):
        return True
    host = socket.gethostname()
    return len(host) >= SHORTEST_SECRET and re.search(rf"(?<![\w-]){re.escape(host)}(?![\w-])", value) is not None


def is_of_this_user(value: str) -> bool:
    """Return whether a path has a part that is named like who runs this; `owner/name` is on the hub."""
    parts = value.split("/")
    return len(parts) > 2 and not names_of_user().isdisjoint(parts)


def names_of_user() -> set[str]:
    """Return the user's name and home folder."""
    found = set()
    with suppress(OSError, KeyError):  # a container's user without a name
        found.add(getuser())
    with suppress(RuntimeError):
        found.add(Path.home().name)
    return found
