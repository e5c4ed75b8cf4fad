"""The memory of GPUs, by the names of their models."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.config.recipe import ConfigError

GPUS = {
    "t4": 14.56,
    "a10g": 21.99,
    "l4": 22.03,
    "3090": 23.58,
    "4090": 23.6,
    "5090": 31.36,
    "a100-40": 39.39,
    "l40s": 44.4,
    "a6000": 47.4,
    "a100-80": 79.15,
    "h100": 79.1,
    "h200": 139.7,
}
"""About what CUDA reports as a card's total, GiB: drivers and error correction keep a little of what is on the box.
Some are from public reports, others from memory; give a size in GiB to be sure."""
SMALLEST_GIB, LARGEST_GIB = 1.0, 512.0
"""Of cards that there are, with room to spare: a larger number names a model that is not listed, such as 4080."""


@dataclass(frozen=True, slots=True)
class GpuModel:
    """A model of GPU."""

    name: str
    gib: float
    """The total that CUDA reports, GiB."""


def gpu_model(text: str) -> GpuModel:
    """Return the GPU of `--gpu`: a name of ``GPUS``, or a size in GiB. Raises ConfigError for anything else."""
    name = re.sub(r"^rtx[ _-]?", "", text.lower())
    if name in GPUS:
        return GpuModel(name, GPUS[name])
    try:
        gib = float(name.removesuffix("gib"))
    except ValueError:
        gib = 0.0
    # Written so that "nan" is refused too.
    if not SMALLEST_GIB <= gib <= LARGEST_GIB:
        raise ConfigError(
            f"--gpu {text}: neither a card's size in GiB, such as 23.6, nor one of {', '.join(GPUS)}; for another card "
            "give its size"
        )
    return GpuModel(f"{gib:g} GiB", gib)
