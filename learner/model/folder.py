"""Write a Hugging Face folder, and tell of a disk that refuses as Python does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OS_ERROR = re.compile(r"\(os error ([0-9]+)\)")
"""How an error of the operating system ends in the words of a library that is written in Rust."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raise OSError where safetensors or tokenizers, writing to ``folder``, raise an exception of their own for it."""
    try:
        yield
    except Exception as error:
        found = OS_ERROR.search(str(error))
        if isinstance(error, OSError) or found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(folder)) from error
