"""A card on paper, and the two actors that hold memory on it: what they allocate and free, from the plan's terms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from orchestrator.cluster.results import RemoteCallError
from orchestrator.plan.memory_plan import MemoryPlan
from rollout.types.memory_terms import ALWAYS, GIB, LEARNING, MemoryTerm, Phase
from rollout.types.publishing import IpcBucket, WeightManifest

NUM_BUCKETS = 3
CACHE = "PyTorch's cache"


class CardFullError(RuntimeError):
    """An allocation exceeds the card."""


@dataclass
class Ledger:
    """The allocations on one card, by process and name, bytes."""

    total: float
    held: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    peak: float = 0.0
    """The most that was used at once, and by each process, since ``begin``."""
    peaks: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def used(self) -> float:
        return sum(sum(of_process.values()) for of_process in self.held.values())

    def allocate(self, process: str, name: str, num_bytes: float) -> None:
        """Note an allocation. Raises CardFullError when it does not fit, and for one that is there already."""
        if name in self.held[process]:
            raise CardFullError(f"{process} holds {name} twice")
        self.held[process][name] = num_bytes
        self.peak = max(self.peak, self.used)
        self.peaks[process] = max(self.peaks[process], sum(self.held[process].values()))
        if self.used > self.total:
            raise CardFullError(f"{process}: {name} takes the card to {self.used / GIB:.2f} GiB")

    def begin(self) -> None:
        """Forget the peaks so far."""
        self.peak, self.peaks = self.used, defaultdict(float)

    def free(self, process: str, name: str) -> None:
        del self.held[process][name]

    def end(self, process: str) -> None:
        """A process that ends holds nothing."""
        self.held.pop(process, None)

    def snapshot(self) -> dict[str, dict[str, float]]:
        """Return what each process holds."""
        return {process: dict(names) for process, names in self.held.items() if names}


class Process:
    """What both actors of paper share: terms of the plan on a card, and methods that are called as Ray's are."""

    def __init__(self, name: str, plan: MemoryPlan, ledger: Ledger) -> None:
        self.name, self.ledger = name, ledger
        self.terms = [term for term in plan.terms if term.actor == name.partition("-")[0]]
        self.troubles: dict[str, Exception] = {}
        """What a method raises the next time, by its name."""

    def only_in(self, *phases: Phase) -> list[MemoryTerm]:
        """Return the terms that are there in these phases and in no other; not those of a publish."""
        return [term for term in self.terms if set(term.phases) == set(phases) and "publish" not in term.name]

    @property
    def publishing(self) -> list[MemoryTerm]:
        return [term for term in self.terms if "publish" in term.name]

    def allocate(self, terms: Sequence[MemoryTerm]) -> None:
        for term in terms:
            self.ledger.allocate(self.name, term.name, term.num_bytes)

    def free(self, terms: Sequence[MemoryTerm]) -> None:
        """Free those of the terms that are there: whoever gives up half way has not got all of them."""
        for term in terms:
            if term.name in self.ledger.held[self.name]:
                self.ledger.free(self.name, term.name)

    def call(self, method: str, *arguments: Any) -> Any:
        """Do what the method of that name does to memory. Returns its exception, as a reference would."""
        if trouble := self.troubles.pop(method, None):
            if isinstance(trouble, RemoteCallError):
                self.ledger.end(self.name)
            return trouble
        act = getattr(type(self), f"do_{method}", None)
        return act(self, *arguments) if act else None

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=partial(self.call, method))


class PaperGenerator(Process):
    """vLLM: its share when awake; contexts and graphs when asleep."""

    def __init__(self, plan: MemoryPlan, ledger: Ledger) -> None:
        super().__init__("generator-0", plan, ledger)
        self.share = plan.fraction.value * plan.gpu.gib * GIB
        self.version = 0

    def start(self) -> None:
        """As vLLM does: it wants its share free before it takes any of it. Raises CardFullError."""
        context = [term for term in self.terms if term.name == "CUDA context"]
        self.allocate(context)
        if self.ledger.total - self.ledger.used < self.share:
            raise CardFullError(f"vLLM's share of {self.share / GIB:.2f} GiB is not free")
        self.allocate([term for term in self.only_in(*ALWAYS) if term not in context])
        self.do_wake()

    def do_sleep(self) -> None:
        self.free(self.only_in("generating"))

    def do_wake(self) -> None:
        self.allocate(self.only_in("generating"))

    def do_stage_manifest(self, attempt: int, version: int, manifest: WeightManifest) -> None:
        self.version = version

    do_stage_weights = do_stage_manifest

    def do_begin_commit(self, attempt: int) -> None:
        self.allocate(self.publishing)

    def do_finish_commit(self, attempt: int) -> int:
        self.free(self.publishing)
        return self.version

    def do_commit_weights(self, *_: Any) -> int:
        self.allocate(self.publishing)
        return self.do_finish_commit(0)

    def do_drop_weights(self, attempt: int) -> None:
        self.free(self.publishing)


class PaperLearner(Process):
    """A rank: PyTorch keeps what it frees until its cache is emptied."""

    def __init__(self, plan: MemoryPlan, ledger: Ledger) -> None:
        super().__init__("learner", plan, ledger)
        self.buckets = 0

    @property
    def ranks(self) -> Mapping[str, Any]:
        return {}

    def start(self) -> None:
        self.allocate(self.only_in(*ALWAYS))

    def update(self) -> None:
        """Raises LearnerLostError where it was made to die; what it held is gone with it."""
        self.release_memory()
        at_work = self.only_in(*LEARNING)
        self.allocate(at_work)
        for phase in LEARNING:
            terms = self.only_in(phase)
            self.allocate(terms)
            if trouble := self.troubles.pop(phase, None):
                self.ledger.end(self.name)
                raise trouble
            self.free(terms)
        self.free(at_work)
        cached = max(sum(term.num_bytes for term in self.only_in(phase)) for phase in LEARNING)
        self.ledger.allocate(self.name, CACHE, cached)

    def release_memory(self) -> None:
        self.ledger.held[self.name].pop(CACHE, None)

    def weight_buckets(self, max_bytes: int, timeout_s: float | None = None) -> list[Any]:
        return ["bucket"] * NUM_BUCKETS

    def call_ranks(self, method: str, *arguments: Any) -> dict[str, Any]:
        return {"learner": self.call(method, *arguments)}

    def do_weight_manifest(self) -> WeightManifest:
        return WeightManifest(("a",), ("bfloat16",), ((1,),))

    def do_reserve_address(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    def do_ipc_begin(self, num_bytes: int, *_: Any) -> None:
        self.buckets = NUM_BUCKETS
        self.allocate(self.publishing)

    def do_ipc_next(self) -> IpcBucket | None:
        self.buckets -= 1
        return IpcBucket(("a",), ("bfloat16",), ((1,),), (2,), {"GPU": ()}) if self.buckets >= 0 else None

    def do_ipc_end(self, *_: Any) -> None:
        self.free(self.publishing)

    def do_nccl_broadcast(self, timeout_s: float) -> None:
        """Take the buffers out of what PyTorch keeps: nobody else waits for that on a card of its own."""
        self.release_memory()
        self.allocate(self.publishing)
        self.free(self.publishing)
