"""The memory of GPUs, by model name."""

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
"""Approximate total that CUDA reports for each card, GiB. It is less than the advertised size, because the driver and
error correction use some. Not measured by us: some come from public reports. To be sure, give a size in GiB."""
SMALLEST_GIB, LARGEST_GIB = 1.0, 512.0
"""Limits for a size in GiB, wider than existing cards. A larger number is an unlisted model name, such as 4080."""


@dataclass(frozen=True, slots=True)
class GpuModel:
    """A model of GPU."""

    name: str
    gib: float
    """The total that CUDA reports, GiB."""


def gpu_model(text: str) -> GpuModel:
    """Return the GPU for the option `--gpu`: a name in ``GPUS``, or a size in GiB. Raises ConfigError otherwise."""
    name = re.sub(r"^rtx[ _-]?", "", text.lower())
    if name in GPUS:
        return GpuModel(name, GPUS[name])
    try:
        gib = float(name.removesuffix("gib"))
    except ValueError:
        gib = 0.0
    # With this form of the comparison "nan" is refused too.
    if not SMALLEST_GIB <= gib <= LARGEST_GIB:
        raise ConfigError(
            f"--gpu {text}: neither a card's size in GiB, such as 23.6, nor one of {', '.join(GPUS)}; for another card "
            "give its size"
        )
    return GpuModel(f"{gib:g} GiB", gib)
