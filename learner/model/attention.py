"""Which attention the learner computes with. Loads nothing heavy, so that a plan can tell it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from learner.config import ModelConfig

OLDEST_FLASH = (2, 3, 3)
"""The first version of flash-attn that transformers takes."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The implementation, by transformers' name, and why it is this one."""

    name: Literal["sdpa", "flash_attention_2"]
    reason: str


def decide_attention(config: ModelConfig, *, on_gpu: bool) -> Attention:
    """Return ``model.attention``, with ``auto`` decided by what is installed here."""
    if config.attention != "auto":
        return Attention(config.attention, "as the recipe says")
    if not on_gpu:
        return Attention("sdpa", "no GPU")
    if config.dtype != "bfloat16":
        return Attention("sdpa", f"flash-attn does not compute {config.dtype}")
    try:
        found = version("flash-attn")
    except PackageNotFoundError:
        return Attention("sdpa", "flash-attn is not installed")
    numbers = tuple(int(part) if part.isdigit() else 0 for part in found.split(".")[:3])
    if numbers < OLDEST_FLASH:
        return Attention("sdpa", f"flash-attn {found} is older than {'.'.join(map(str, OLDEST_FLASH))}")
    return Attention("flash_attention_2", f"flash-attn {found}")
