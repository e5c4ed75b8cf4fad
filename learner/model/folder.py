"""Write a Hugging Face folder, and tell of a disk that refuses as Python does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate.utils import other
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model that was not in training, and its tokenizer. Raises OSError when the disk refuses."""
    with disk_errors(folder), _without_deepspeed():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _without_deepspeed() -> Iterator[None]:
    """Keep accelerate from importing DeepSpeed to see whether it wraps a model: on the driver, where it is no use."""
    asked = other.is_deepspeed_available
    other.is_deepspeed_available = lambda: False
    try:
        yield
    finally:
        other.is_deepspeed_available = asked
