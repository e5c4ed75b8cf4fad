"""The terms of a memory plan: what an actor holds, when, and by which formula (docs/memory.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GIB = 2**30
CUDA_CONTEXT = 800 * 2**20
"""Bytes of the CUDA context, with kernels and workspaces of libraries, in each process."""
WEIGHT_BYTES = {"bfloat16": 2, "float32": 4}
"""Bytes of one weight, by the model's dtype."""

Phase = Literal["generating", "backward", "optimizer step"]
LEARNING: tuple[Phase, ...] = ("backward", "optimizer step")
ALWAYS: tuple[Phase, ...] = ("generating", *LEARNING)


@dataclass(frozen=True, slots=True)
class MemoryTerm:
    """Something that an actor holds on a GPU, or that all actors of one sort hold in host memory."""

    actor: str
    name: str
    num_bytes: float
    formula: str
    phases: tuple[Phase, ...] = ALWAYS
    """The phases in which it is allocated. Host memory is planned as if everything were always allocated."""
