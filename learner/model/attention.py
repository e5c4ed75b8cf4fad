"""Choose the learner's attention implementation. Imports nothing slow, so that a plan can show it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from learner.config import ModelConfig

OLDEST_FLASH = (2, 3, 3)
"""The oldest version of flash-attn that transformers supports."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The implementation by its name in transformers, and the reason for it."""

    name: Literal["sdpa", "flash_attention_2", "flex_attention"]
    reason: str


def decide_attention(config: ModelConfig, *, on_gpu: bool) -> Attention:
    """Return ``model.attention`` as it is used here; ``auto`` depends on the packages that are installed."""
    if config.attention == "flex_attention" and not on_gpu:
        return Attention("sdpa", "no GPU, and flex_attention has no backward pass on the CPU")
    if config.attention != "auto":
        return Attention(config.attention, "as the recipe says")
    if not on_gpu:
        return Attention("sdpa", "no GPU")
    if config.dtype != "bfloat16":
        return Attention("sdpa", f"flash-attn does not support {config.dtype}")
    try:
        installed = version("flash-attn")
    except PackageNotFoundError:
        return Attention("sdpa", "flash-attn is not installed")
    numbers = tuple(int(part) if part.isdigit() else 0 for part in installed.split(".")[:3])
    if numbers < OLDEST_FLASH:
        return Attention("sdpa", f"flash-attn {installed} is older than {'.'.join(map(str, OLDEST_FLASH))}")
    return Attention("flash_attention_2", f"flash-attn {installed}")
