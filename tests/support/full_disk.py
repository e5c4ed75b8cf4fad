"""A disk that is full, for this process alone and without any right to mount one."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk(largest_file: int = 0) -> Iterator[None]:
    """Let no file grow beyond so many bytes: the system refuses each write that would (EFBIG, "File too large")."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files_below(folder) -> set[str]:
    """Return the paths of all files and folders in `folder`."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
