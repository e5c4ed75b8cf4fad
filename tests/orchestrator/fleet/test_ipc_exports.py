"""The learner's buffer on a shared GPU is free after every end of a publish: its counter is exactly 0.

The transport and both ends' rules are real; counters, actors and CUDA are stand-ins. PyTorch frees an exported buffer
only when its counter is 0, and 1 is where an export begins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from learner.weights import senders
from learner.weights.senders import IpcSender
from orchestrator.cluster.calls import Outcomes
from orchestrator.cluster.results import RemoteCallError
from orchestrator.fleet import learner_group, transports
from orchestrator.fleet.transports import Attempt, IpcTransport
from rollout.types.publishing import IpcBucket

Trouble = tuple[str, Exception] | None
"""The method of a generator that fails, and how."""


class Counters(dict[int, int]):
    """By export. All of them, also those of publishes that are long over."""

    def export(self) -> int:
        self[len(self)] = 1
        return len(self) - 1

    def let_go(self, file: str, export: int) -> None:
        self[export] -= 1


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Counters:
    counted = Counters()

    def producer(weights: Any, uuid: str, **_: Any) -> Iterator[Any]:
        """As vLLM's: one export a publish, when the first bucket is asked for; the same handle with every bucket."""
        handle = (*[None] * 11, "file", counted.export(), None, None)
        for _ in range(2):
            yield SimpleNamespace(names=[], dtype_names=[], shapes=[], tensor_sizes=[], ipc_handle={uuid: handle})

    packed = SimpleNamespace(packed_ipc_producer=producer)
    monkeypatch.setitem(sys.modules, "vllm.distributed.weight_transfer.packed_tensor", packed)
    monkeypatch.setattr(torch.UntypedStorage, "_release_ipc_counter_cuda", counted.let_go)
    for name in ("synchronize", "ipc_collect", "empty_cache", "current_device"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(senders, "device_weights", lambda backend: ())
    monkeypatch.setattr(senders, "largest_bytes", lambda backend: 0)
    return counted


@pytest.fixture(autouse=True)
def _calls_are_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather_calls(calls: dict[str, Any], call: str, timeout_s: float, *_: Any, **__: Any) -> Outcomes:
        outcomes = Outcomes()
        for name, result in calls.items():
            kinds = {RemoteCallError: outcomes.died, TimeoutError: outcomes.late, ValueError: outcomes.refused}
            kinds.get(type(result), outcomes.answered)[name] = result
        return outcomes

    def wait_for(calls: dict[str, Any], *_: Any) -> dict[str, Any]:
        for result in calls.values():
            if isinstance(result, Exception):
                raise result
        return calls

    for module in (transports, learner_group):
        monkeypatch.setattr(module, "gather_calls", gather_calls)
    monkeypatch.setattr(learner_group, "wait_for", wait_for)


class Ranks:
    """The learner's ranks with their real senders."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ranks: dict[str, Any] = {}
        self.trouble: Exception | None = None
        self._senders = [IpcSender(SimpleNamespace(rank=SimpleNamespace(index=index))) for index in (0, 1)]  # type: ignore[arg-type]
        self._monkeypatch = monkeypatch

    def call_ranks(self, method: str, *args: Any) -> dict[str, Any]:
        if method == "ipc_next" and self.trouble is not None:
            return {"learner-0": self.trouble}
        calls = {"ipc_begin": "begin", "ipc_next": "next_bucket", "ipc_end": "end"}
        answers = {}
        for index, sender in enumerate(self._senders):
            properties = SimpleNamespace(uuid=f"GPU-{index}")
            self._monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
            answers[f"learner-{index}"] = getattr(sender, calls[method])(*args)
        return answers


class Generator:
    """Opens the buffer on its GPU once, and lets go of it when it has the weights, fails or is told to drop them."""

    def __init__(self, index: int, counters: Counters, trouble: Trouble = None) -> None:
        self._index, self._counters, self.trouble = index, counters, trouble
        self._open: int | None = None
        self.is_late = False

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *args: self._call(method, *args))

    def _call(self, method: str, *args: Any) -> Any:
        fails, error = self.trouble or ("", None)
        if method == fails and not (isinstance(error, RemoteCallError) and "half way" in str(error)):
            if method == "load_bucket" and isinstance(error, TimeoutError):
                self._load(args[0])
            if isinstance(error, ValueError):
                if method == "load_bucket":
                    self._load(args[0])  # whoever refuses a bucket lets go of it, opened or not
                self._let_go()
            return error
        if method == "load_bucket":
            self._load(args[0])
        elif method == "drop_weights" and self.is_late:
            return TimeoutError()
        elif method in ("finish_commit", "drop_weights"):
            self._let_go()
        return error if method == fails else 7

    def _load(self, bucket: IpcBucket) -> None:
        self._open = bucket.handles[f"GPU-{self._index}"][12]

    def _let_go(self) -> None:
        if self._open is not None:
            self._counters.let_go("file", self._open)
        self._open = None


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, counters: Counters) -> tuple[Ranks, IpcTransport, Counters]:
    return Ranks(monkeypatch), IpcTransport(), counters


def publish(site: tuple[Ranks, IpcTransport, Counters], generators: dict[str, Generator]) -> Outcomes:
    """One attempt, and what follows it where it fails."""
    ranks, transport, _ = site
    attempt = Attempt(ranks, version=7, id=11, timeout_s=5, bucket_bytes=2**20)  # type: ignore[arg-type]
    try:
        outcomes = transport.commit(attempt, generators)
    except MemoryError:
        transport.drop(attempt, generators)
        raise
    transport.drop(attempt, {name: generators[name] for name in outcomes.failed})
    return outcomes


def pair(counters: Counters, trouble: Trouble = None) -> dict[str, Generator]:
    return {"generator-0": Generator(0, counters), "generator-1": Generator(1, counters, trouble)}


TROUBLES: list[Trouble] = [
    None,
    ("begin_commit", ValueError()),
    ("begin_commit", RemoteCallError("died")),
    ("begin_commit", TimeoutError()),
    ("load_bucket", ValueError()),
    ("load_bucket", RemoteCallError("died before it had opened the buffer")),
    ("load_bucket", RemoteCallError("died half way, with the buffer open")),
    ("load_bucket", TimeoutError()),
    ("finish_commit", ValueError()),
    ("finish_commit", RemoteCallError("died")),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble and f"{trouble[0]}-{trouble[1]!r}")
def test_the_buffers_are_free_whatever_becomes_of_a_generator(site, trouble: Trouble) -> None:
    _, _, counters = site
    for _ in range(3):
        publish(site, pair(counters, trouble))
    assert len(counters) == 6 and {*counters.values()} == {0}


def test_where_nobody_loads_nothing_is_exported(site) -> None:
    _, _, counters = site
    refusing = {
        name: Generator(index, counters, TROUBLES[1]) for index, name in enumerate(("generator-0", "generator-1"))
    }
    assert publish(site, refusing).refused.keys() == refusing.keys() and not counters


def test_a_pair_whose_generator_is_restarting_keeps_no_buffer(site) -> None:
    _, _, counters = site
    for _ in range(3):
        publish(site, {"generator-0": Generator(0, counters)})
    assert len(counters) == 6 and {*counters.values()} == {0}


def test_a_rank_that_fails_half_way_leaves_nothing(site) -> None:
    ranks, _, counters = site
    generators = pair(counters)
    publish(site, generators)
    original = ranks.call_ranks
    asked: list[str] = []

    def failing(method: str, *args: Any) -> dict[str, Any]:
        asked.append(method)
        return (
            {"learner-0": MemoryError()}
            if asked.count("ipc_next") == 2 and method == "ipc_next"
            else original(method, *args)
        )

    ranks.call_ranks = failing  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        publish(site, generators)
    assert len(counters) == 4 and {*counters.values()} == {0}


@pytest.mark.parametrize("is_replaced", [True, False], ids=["and is replaced", "and wakes up"])
def test_one_that_hangs_with_the_buffer_open_keeps_it_until_it_is_gone(site, is_replaced: bool) -> None:
    _, _, counters = site
    generators = pair(counters, ("load_bucket", TimeoutError()))
    generators["generator-1"].is_late = True  # does not hear that it should drop the weights
    publish(site, generators)
    assert sorted(counters.values()) == [0, 1]  # it may still read: the memory is not given away under it
    if is_replaced:
        generators = pair(counters)
    else:
        generators["generator-1"].is_late, generators["generator-1"].trouble = False, None
        generators["generator-1"]._let_go()
    publish(site, generators)
    publish(site, pair(counters))
    assert len(counters) == 6 and {*counters.values()} == {0}


def test_one_that_ended_well_and_is_replaced_later_is_counted_once(site) -> None:
    _, _, counters = site
    for _ in range(3):
        publish(site, pair(counters))
    assert {*counters.values()} == {0}


def test_the_ranks_let_go_by_pytorchs_own_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.multiprocessing import reductions

    names = reductions.rebuild_cuda_tensor.__code__.co_varnames
    assert names[11:13] == ("ref_counter_handle", "ref_counter_offset") and names[6:8] == (
        "storage_device",
        "storage_handle",
    )
    assert hasattr(torch.UntypedStorage, "_release_ipc_counter_cuda")
