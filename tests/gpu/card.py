"""The card that the GPU tests measure, and its stand-in on machines without one: the memory of processes."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

GIB = 2**30
SIMULATED_GIB = 23.6
"""What CUDA reports of a 24 GB card. Shares are of it, on whatever GPU there is."""
STAND_INS = "RAYZERO_GPU_STAND_INS"
"""Environment variable: run the GPU tests' steps on the CPU, where memory is that of processes and asserts nothing."""


class Card(Protocol):
    """Where generator and learner run."""

    name: str
    count: int
    """Cards of its kind."""
    total_gib: float
    is_real: bool

    def used_gib(self) -> float:
        """Return what all processes together hold."""
        ...

    def by_process(self) -> dict[int, float]:
        """Return what each process holds, GiB, by its id; empty where the driver does not tell."""
        ...

    def settings(self, mode: str, transport: str) -> list[str]:
        """Return overrides that place a run here."""
        ...


class NvidiaCard:
    """The first GPU that this process sees."""

    is_real = True

    def __init__(self) -> None:
        import torch

        self.name, self.count = torch.cuda.get_device_name(0), torch.cuda.device_count()
        self.total_gib = torch.cuda.mem_get_info()[1] / GIB
        self._handle: Any = None
        from vllm.third_party import pynvml

        self._nvml = pynvml
        with suppress(pynvml.NVMLError):  # of a part of a card (MIG) only CUDA tells
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")

    def used_gib(self) -> float:
        import torch

        free, total = torch.cuda.mem_get_info()
        return (total - free) / GIB

    def by_process(self) -> dict[int, float]:
        if self._handle is None:
            return {}
        try:
            found = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return {}
        return {each.pid: each.usedGpuMemory / GIB for each in found if each.usedGpuMemory}

    def settings(self, mode: str, transport: str) -> list[str]:
        return [f"placement.mode={mode}", f"rollout.publish_backend={transport}", "rollout.compile=true"]


class StandInCard:
    """The memory of all processes that this one started, in place of a card's."""

    name, count, is_real = "the CPU as a stand-in", 1, False
    total_gib = psutil.virtual_memory().total / GIB

    def used_gib(self) -> float:
        return sum(self.by_process().values())

    def by_process(self) -> dict[int, float]:
        found = {}
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found[process.pid] = process.memory_info().rss / GIB
        return found

    def settings(self, mode: str, transport: str) -> list[str]:
        return ["placement.mode=cpu", "rollout.publish_backend=ray", "rollout.compile=false"]


@pytest.fixture(scope="session")
def card() -> Card:
    """The card at hand; a stand-in where the environment asks for one."""
    return StandInCard() if os.environ.get(STAND_INS) else NvidiaCard()


@pytest.fixture(scope="session")
def simulated(card: Card) -> Callable[[float], float]:
    """Returns the fraction of this card that is a share of the simulated one. Skips where the card is smaller."""

    def fraction(share: float) -> float:
        if not card.is_real:
            return share
        if card.total_gib < SIMULATED_GIB * 0.95:
            pytest.skip(f"this card has {card.total_gib:.1f} GiB, less than {SIMULATED_GIB:g}")
        return round(share * SIMULATED_GIB / card.total_gib, 4)

    return fraction


@dataclass
class Peaks:
    """What was held at most, GiB, beyond what the card held before."""

    device: float = 0.0
    by_actor: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """``generator`` and ``learner``, the largest process of each; none where the driver does not tell."""


@contextmanager
def peaks(card: Card) -> Iterator[Peaks]:
    """Fill in what was used at most while the context lasts."""
    before, found, done = card.used_gib(), Peaks(), threading.Event()
    actors: dict[int, str] = {}

    def look() -> None:
        found.device = max(found.device, card.used_gib() - before)
        for pid, gib in card.by_process().items():
            actor = actors.get(pid) or actor_of(pid)
            if actor:
                actors[pid] = actor
                found.by_actor[actor] = max(found.by_actor[actor], gib)

    def watch() -> None:
        while not done.wait(0.05):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
        look()


def actor_of(pid: int) -> str | None:
    """Return which actor a process is, by the title that Ray gives it."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_text().lower()
    except OSError:  # ended, or of a container that is not ours
        return None
    return next((actor for actor in ("generator", "learner") if title.startswith("ray::") and actor in title), None)
