"""Restrict the files that a process may open by Landlock, which needs no privilege. Linux 5.13 and later.

Landlock does not hide that a file exists, its size or its times. seccomp.py refuses other changes of a file (its mode,
its owner).
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_RULE_PATH_BENEATH = 1
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
_FILE_RIGHTS = (1 << 0) | WRITE_FILE | READ_FILE | (1 << 14) | (1 << 15)
"""Rights that the kernel allows in a rule for a file, in contrast to a folder."""
_FILES_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Version -> number of rights over files that it knows. Later versions add rights of other kinds."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Return the kernel's version of Landlock; 0 if it has none, or a container forbids it."""
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def restrict(rules: Iterable[tuple[str, int]]) -> None:
    """Permanently limit this thread, and everything that it starts, to the given rights below the given paths.

    Paths that do not exist are left out. If the kernel supports it, TCP, abstract sockets and signals to others are
    forbidden too. Raises OSError if the limit fails.
    """
    known = version()
    handled = (1 << _FILES_BY_VERSION.get(known, 16)) - 1
    ruleset = _Ruleset(handled, 0b11 if known >= 4 else 0, 0b11 if known >= 6 else 0)
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    descriptor = _call(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint(0))
    for path, rights in rules:
        _allow(descriptor, path, rights & handled)
    PR_SET_NO_NEW_PRIVS = 38
    _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call(_RESTRICT_SELF, descriptor, ctypes.c_uint(0))
    os.close(descriptor)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(parent).st_mode):
        rights &= _FILE_RIGHTS
    rule = _PathBeneath(rights, parent)
    _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint(0))
    os.close(parent)


def _call(number: int, *arguments: object) -> int:
    value = int(_libc().syscall(number, *arguments))
    if value < 0:
        raise OSError(ctypes.get_errno(), "Landlock")
    return value


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
