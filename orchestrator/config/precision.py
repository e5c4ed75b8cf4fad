"""Choose bfloat16 or float32 for `model.dtype = "auto"` on this machine, and warn if bfloat16 is slow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.doctor.host_facts import cpu_flags
from orchestrator.doctor.libraries import VLLM, installed_vllms

UNITS = ("avx512_bf16", "amx_bf16", "bf16")
"""Hardware units for bfloat16 by their names in /proc/cpuinfo: two of x86, one of Arm."""


def has_units() -> bool:
    """Return whether this machine's CPU has units for bfloat16."""
    return not cpu_flags().isdisjoint(UNITS)


def is_on_cores(mode: str) -> bool:
    """Return whether a run with this `placement.mode` computes on a CPU. "auto" does with the CPU build of vLLM."""
    return mode == "cpu" or (mode == "auto" and installed_vllms() == [VLLM["cpu"]])


def with_dtype(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of a recipe with `model.dtype = "auto"` replaced by a type.

    It is bfloat16, but float32 if the run computes on a CPU without units for bfloat16.

    Raises ValueError for settings that would be valid only on some machines.
    """
    model, placement, learner = (section(settings, name) for name in ("model", "placement", "learner"))
    if model.get("dtype") != "auto":
        return settings
    if learner.get("zero_stage") == 0:
        raise ValueError(
            'learner.zero_stage = 0 with model.dtype = "auto", which is bfloat16 on some machines, where DeepSpeed '
            "needs another stage: set learner.zero_stage=1, which costs nothing on one rank, or model.dtype=float32"
        )
    is_slow = is_on_cores(placement.get("mode", "auto")) and not has_units()
    return {**settings, "model": {**model, "dtype": "float32" if is_slow else "bfloat16"}}


def section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of a recipe; empty if it is missing, or not a table."""
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}


def slow_bfloat16(dtype: str, mode: str) -> str | None:
    """Return a warning if the run uses bfloat16 on a CPU that computes it slowly; else None.

    Args:
        dtype: the policy's type.
        mode: `placement.mode`.
    """
    if dtype != "bfloat16" or not is_on_cores(mode) or has_units():
        return None
    return (
        f"model.dtype bfloat16 on a CPU without hardware support for it ({' or '.join(UNITS[:2])}): it works, but is "
        'slower than float32; set model.dtype to float32, or to "auto", which uses bfloat16 only if it is fast'
    )
