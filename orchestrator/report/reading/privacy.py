"""Remove from a run's settings everything that a report must not show: names of machines and people, and keys."""

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
"""For names in lower case, with `_` between words. Plurals such as tokens or keys need a certain word before them:
`stop_tokens` are not secret. `PWD` is a shell's working folder."""
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
"""Settings that describe where a run is stored and what it runs on."""
HOMES = ("home", "users")
"""Folders that contain people's home folders."""
HIDDEN = "(not shown)"
SHORTEST_SECRET = 6
"""A shorter value of an environment variable may occur in a text by chance."""


def shareable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without folders, addresses and keys. Only the last part of a path stays."""
    shown: dict[str, Any] = without_places({name: value for name, value in settings.items() if name not in LEFT_OUT})
    return shown


def without_places(value: Any, name: str = "") -> Any:
    """Return a setting without parts that name a folder, an address or a key."""
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
    return FOLDER.sub(lambda match: last_part(match[0]), value)


@cache
def is_secret(name: str) -> bool:
    """Return whether a setting or a variable has the name of a secret, such as `api_key`, `API-KEY` or `apiKey`."""
    return SECRET_NAMES.search(WORD_ENDS.sub("_", name).lower()) is not None


def unused(key: Any, taken: Mapping[Any, Any]) -> Any:
    """Return `key`, with a number if it is taken already: two folders may have the same last part."""
    return next(each for each in (key, *(f"{key} ({n})" for n in range(2, len(taken) + 3))) if each not in taken)


def last_part(path: str) -> str:
    """Return the last part of a path; HIDDEN if that is a home folder, or the name of this user."""
    *folders, name = re.split(r"[/\\]", path.rstrip("/\\"))
    if not name:  # the root
        return path
    is_home = name.startswith("~") or (bool(folders) and folders[-1].lower() in HOMES)
    return HIDDEN if is_home or name.rstrip(".,;)!?") in names_of_user() else name


def is_known(value: str) -> bool:
    """Return whether a text contains this machine's name, or the value of an environment variable that is secret."""
    named = (text for name, text in os.environ.items() if is_secret(name))
    if any(len(text) >= SHORTEST_SECRET and text in value for text in named):
        return True
    host = socket.gethostname()
    return len(host) >= SHORTEST_SECRET and re.search(rf"(?<![\w-]){re.escape(host)}(?![\w-])", value) is not None


def is_of_this_user(value: str) -> bool:
    """Return whether a part of a path is this user's name. `owner/name` is a model on the hub, not a path."""
    parts = value.split("/")
    return len(parts) > 2 and not names_of_user().isdisjoint(parts)


def names_of_user() -> set[str]:
    """Return the user's name, and the name of the home folder."""
    names = set()
    with suppress(OSError, KeyError):  # in a container the user may have no name
        names.add(getuser())
    with suppress(RuntimeError):
        names.add(Path.home().name)
    return names
