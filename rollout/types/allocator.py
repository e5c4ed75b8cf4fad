"""Settings of PyTorch's allocator under which processes cannot share GPU memory. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping

ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


def expandable_segments(environment: Mapping[str, str]) -> str | None:
    """Return the variable that makes PyTorch allocate memory which other processes cannot open; None without one."""
    for key in ALLOCATOR_VARIABLES:
        if "expandable_segments:true" in environment.get(key, "").replace(" ", "").lower():
            return key
    return None


def refusal(key: str, value: str, where: str = "") -> str:
    """Return what is wrong with a variable that `expandable_segments` has found, and the fix."""
    return (
        f'{key} = {value!r}{where} with rollout.publish_backend = "ipc": expandable segments cannot be opened by '
        'another process; unset it where the learner runs, or set rollout.publish_backend = "ray"'
    )
