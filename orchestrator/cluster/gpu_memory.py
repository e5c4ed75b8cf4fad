"""Find how much memory of a run's GPUs is free and who holds the rest, and wait until enough is free.

The memory of a process that was killed is free seconds later: a run that is started again at once has to wait for it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.doctor.host_facts import read_driver
from orchestrator.doctor.machine import visible
from rollout.types.allocator import expandable_segments, refusal

logger = logging.getLogger(__name__)

POLL_S, NOTICE_S = 2.0, 15.0
"""Seconds between two looks, and between two lines that say what is waited for."""
MOST_FREE = 0.9
"""Share of a GPU that is free when nobody else uses it."""
PATIENCE_S = 60.0
"""Seconds to wait for a GPU of which the run does not know how much it takes."""


class GpuMemoryError(RuntimeError):
    """Other processes hold the memory that the run needs, or memory cannot be shared between its processes."""


@dataclass(frozen=True, slots=True)
class GpuState:
    """A GPU of the run, before its actors start."""

    name: str
    """The GPU's name for people, with its node."""
    total_gib: float
    free_gib: float
    users: tuple[str, ...] = ()
    """Processes on it, as far as they are visible."""
    allocator: str = ""
    """What is wrong with the node's settings of PyTorch's allocator; empty if nothing is."""

    @property
    def free_share(self) -> float:
        return self.free_gib / self.total_gib


def read_states(environment: Mapping[str, str] | None = None) -> list[GpuState]:
    """Return the state of each GPU that this process sees; empty if nvidia-smi does not report it."""
    environment = os.environ if environment is None else environment
    driver = read_driver()
    key, node = expandable_segments(environment), os.uname().nodename
    wrong = refusal(key, environment[key], f" on node {node}") if key else ""
    gpus = visible(driver.gpus if driver else (), environment.get("CUDA_VISIBLE_DEVICES"))
    return [
        GpuState(f"GPU {gpu.index} of {node} ({gpu.name})", gpu.total_mib / 1024, gpu.free_mib / 1024, gpu.users, wrong)
        for gpu in gpus
        if gpu.total_mib and gpu.free_mib is not None
    ]


def total_memory_gib() -> float:
    """Return the memory of the smallest GPU that this process sees, as CUDA reports it, GiB."""
    import torch

    if not torch.cuda.is_available():
        raise GpuMemoryError("Ray counts a GPU on a node where torch sees none: `rayzero doctor` there says why")
    totals = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
    return float(min(totals) / 2**30)


def await_memory(
    look: Callable[[], Mapping[int, Sequence[GpuState]]], shares: Mapping[int, float], timeout_s: float
) -> None:
    """Return when enough memory is free on the GPUs of each bundle.

    Args:
        look: returns the GPUs of each bundle as they are now.
        shares: the share of each GPU that a generator takes, by bundle. Of others, which learners have alone, most
            should be free, and are waited for as long as the memory of dead processes may take.
        timeout_s: how long to wait for a generator's share, seconds.

    Raises GpuMemoryError past that, with who holds the memory.
    """
    start, next_notice = time.monotonic(), 0.0
    while True:
        states, waited_s = look(), time.monotonic() - start
        short = [
            (state, shares.get(bundle))
            for bundle, gpus in states.items()
            for state in gpus
            if state.free_share < shares.get(bundle, MOST_FREE)
        ]
        needed = [(state, share) for state, share in short if share is not None]
        if not short:
            return
        said = "; ".join(shortage_of(state, share) for state, share in short)
        if needed and waited_s >= timeout_s:
            raise GpuMemoryError(
                f"{said}; waited placement.start_timeout_s = {timeout_s:g} s: end those processes, choose another card "
                "(CUDA_VISIBLE_DEVICES), or lower rollout.gpu_memory_fraction"
            )
        if not needed and waited_s >= min(PATIENCE_S, timeout_s):
            logger.warning("%s; the run goes on, and may run out of memory", said)
            return
        if waited_s >= next_notice:
            logger.warning("waiting for memory: %s", said)
            next_notice = waited_s + NOTICE_S
        time.sleep(POLL_S)


def shortage_of(state: GpuState, share: float | None) -> str:
    """Return a message: what is free on a GPU, what the run needs of it, and who holds the rest."""
    users = ", ".join(state.users) or "processes that cannot be seen from here"
    wants = "most of it" if share is None else f"{share * state.total_gib:.1f}"
    free = f"{state.free_gib:.1f} of {state.total_gib:.1f} GiB free"
    return f"{state.name} has {free} and this run needs {wants}; held by {users}"
