"""Find the files that a Python in a box needs. The worker does it once: looking costs more than starting."""

from __future__ import annotations

import functools
import os
from pathlib import Path

_SYSTEM_LIBRARIES = ("libc.", "libpython", "ld-", "libm.")


@functools.cache
def readable() -> tuple[str, ...]:
    """Return the standard library, the folders of the shared libraries that Python itself uses, and /dev/null."""
    mapped = {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    libraries = {str(file.parent) for file in mapped if file.name.startswith(_SYSTEM_LIBRARIES)}
    folders = sorted({str(Path(os.__file__).resolve().parent), *libraries})
    outermost = [path for path in folders if not any(path.startswith(f"{other}/") for other in folders)]
    return (*outermost, os.devnull)


@functools.cache
def hidden() -> tuple[str, ...]:
    """Return the folders in those that stay hidden: installed packages, of which one may hold a data set's answers."""
    patterns = [f"{deeper}{name}-packages" for deeper in ("", "*/") for name in ("site", "dist")]
    return tuple(str(found) for path in readable() for pattern in patterns for found in Path(path).glob(pattern))
