"""Write a Hugging Face folder, and raise OSError for errors of the disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate.utils import other
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

OS_ERROR = re.compile(r"\(os error ([0-9]+)\)")
"""The end of an operating system's error in messages of libraries that are written in Rust."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raise OSError if safetensors or tokenizers cannot write to ``folder``; they raise their own exceptions."""
    try:
        yield
    except Exception as error:
        match = OS_ERROR.search(str(error))
        if isinstance(error, OSError) or match is None:
            raise
        raise OSError(int(match[1]), os.strerror(int(match[1])), str(folder)) from error


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model that DeepSpeed does not wrap, and its tokenizer. Raises OSError if writing fails."""
    with disk_errors(folder), any_generation_config(model, folder), _without_deepspeed():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def any_generation_config(model: PreTrainedModel, folder: Path) -> Iterator[None]:
    """Write the model's generation config to ``folder`` after the context, as it is.

    ``save_pretrained``, called within the context, refuses one that transformers finds contradictory. Published models
    have such, for example a temperature without ``do_sample``, which transformers ignores but vLLM uses.
    """
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
    own.to_json_file(folder / "generation_config.json", keys_to_pop=["compile_config"])


@contextmanager
def _without_deepspeed() -> Iterator[None]:
    """Keep accelerate from importing DeepSpeed to check for its wrapper: the driver does not need DeepSpeed."""
    original = other.is_deepspeed_available
    other.is_deepspeed_available = lambda: False
    try:
        yield
    finally:
        other.is_deepspeed_available = original
