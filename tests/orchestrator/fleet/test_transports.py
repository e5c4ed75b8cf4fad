"""The transports between GPUs, as far as they need none: who is called in which order, and what failures mean.

Both ends are fakes whose calls are done at once; that the real ends understand each other is for tests/gpu/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.cluster.calls import Outcomes
from orchestrator.cluster.results import RemoteCallError
from orchestrator.fleet import learner_group, transports
from orchestrator.fleet.learner_group import LearnerLostError
from orchestrator.fleet.transports import Attempt, IpcTransport, NcclTransport, RayTransport, make_transport, nccl_ranks
from rollout.types.publishing import IpcBucket, NcclGroup, WeightManifest

MANIFEST = WeightManifest(("a", "b"), ("float32", "float32"), ((2,), (2,)))
Log = list[tuple[Any, ...]]


class FakeMethod:
    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class FakeGenerator:
    """Notes its calls; `troubles` maps a method to the exception that it raises."""

    def __init__(self, name: str, log: Log) -> None:
        self.name = name
        self.log = log
        self.troubles: dict[str, Exception] = {}

    def __getattr__(self, method: str) -> FakeMethod:
        def call(*args: Any) -> Any:
            self.log.append((self.name, method, *args))
            return self.troubles.get(method, 7)

        return FakeMethod(call)


class FakeSender:
    """Two ranks on two GPUs, with two buckets."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.troubles: dict[str, Exception] = {}
        self._buckets = 2

    ranks: Mapping[str, Any] = {}

    def weight_buckets(self, max_bytes: int, timeout_s: float | None = None) -> list[Any]:
        return ["bucket-0", "bucket-1"]

    def call_ranks(self, method: str, *args: Any) -> dict[str, Any]:
        self.log.append(("learner", method, *args))
        if method in self.troubles:
            return {"learner-0": self.troubles[method]}
        answers: dict[str, Any] = {"weight_manifest": MANIFEST, "reserve_address": ("10.0.0.1", 4000)}
        if method != "ipc_next":
            return {"learner-0": answers.get(method)}
        self._buckets -= 1
        if self._buckets < 0:
            return {"learner-0": None, "learner-1": None}
        return {f"learner-{rank}": packed(f"GPU-{rank}", (rank, self._buckets)) for rank in (0, 1)}


def packed(uuid: str, handle: tuple[int, int]) -> IpcBucket:
    return IpcBucket(("a",), ("float32",), ((2,),), (8,), {uuid: handle})


@pytest.fixture(autouse=True)
def _calls_are_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather_calls(calls: dict[str, Any], call: str, timeout_s: float, *_: Any, **__: Any) -> Outcomes:
        outcomes = Outcomes()
        for name, result in calls.items():
            match result:
                case RemoteCallError():
                    outcomes.died[name] = str(result)
                case TimeoutError():
                    outcomes.late[name] = f"{name} is late"
                case Exception():
                    outcomes.refused[name] = f"{name} refused {call}"
                case _:
                    outcomes.answered[name] = result
        return outcomes

    def wait_for(calls: dict[str, Any], call: str, timeout_s: float, *_: Any) -> dict[str, Any]:
        for result in calls.values():
            if isinstance(result, Exception):
                raise result
        return calls

    monkeypatch.setattr(transports, "gather_calls", gather_calls)
    monkeypatch.setattr(learner_group, "gather_calls", gather_calls)
    monkeypatch.setattr(learner_group, "wait_for", wait_for)


@pytest.fixture
def log() -> Log:
    return []


@pytest.fixture
def sender(log: Log) -> FakeSender:
    return FakeSender(log)


@pytest.fixture
def pair(log: Log) -> dict[str, FakeGenerator]:
    return {name: FakeGenerator(name, log) for name in ("generator-0", "generator-1")}


@pytest.fixture
def attempt(sender: FakeSender) -> Attempt:
    return Attempt(sender, version=7, id=11, timeout_s=5, bucket_bytes=2**20)


def methods(log: Log) -> list[str]:
    return [f"{name}.{method}" for name, method, *_ in log]


def test_each_backend_has_its_transport() -> None:
    made = [type(make_transport(backend, 1)) for backend in ("ray", "ipc", "nccl")]
    assert made == [RayTransport, IpcTransport, NcclTransport]


def test_ray_sends_the_same_references_to_all(attempt, pair, log) -> None:
    assert RayTransport().stage(attempt, pair).answered.keys() == pair.keys()
    assert log == [(name, "stage_weights", 11, 7, "bucket-0", "bucket-1") for name in pair]


@pytest.mark.parametrize("transport", [IpcTransport(), NcclTransport(1)])
def test_between_gpus_only_the_manifest_is_staged(transport, attempt, pair, log) -> None:
    transport.stage(attempt, pair)
    assert log == [("learner", "weight_manifest"), *((name, "stage_manifest", 11, 7, MANIFEST) for name in pair)]


def test_ipc_asks_for_a_bucket_when_everybody_has_copied_the_one_before(attempt, pair, log) -> None:
    outcomes = IpcTransport().commit(attempt, pair)
    assert outcomes.answered == {"generator-0": 7, "generator-1": 7}
    both = ["generator-0.{}", "generator-1.{}"]
    load = ["learner.ipc_next", *(name.format("load_bucket") for name in both)]
    assert methods(log) == [
        "learner.ipc_begin",
        *(name.format("begin_commit") for name in both),
        *load,
        *load,
        "learner.ipc_next",
        *(name.format("finish_commit") for name in both),
        "learner.ipc_end",
    ]
    first = next(call[2] for call in log if call[1] == "load_bucket")
    assert first.handles == {"GPU-0": (0, 1), "GPU-1": (1, 1)}  # each generator opens that of its own GPU


def test_ipc_goes_on_without_a_generator_that_fails_and_frees_the_buffer(attempt, pair, log) -> None:
    pair["generator-0"].troubles["load_bucket"] = MemoryError()
    outcomes = IpcTransport().commit(attempt, pair)
    assert outcomes.answered == {"generator-1": 7}
    assert outcomes.refused == {"generator-0": "generator-0 refused load_bucket"}
    assert methods(log).count("generator-0.load_bucket") == 1 and "generator-0.finish_commit" not in methods(log)
    assert methods(log)[-1] == "learner.ipc_end"


def test_ipc_frees_the_buffer_when_a_rank_refuses(attempt, pair, sender, log) -> None:
    sender.troubles["ipc_next"] = MemoryError("no room for the buffer")
    with pytest.raises(MemoryError, match="no room"):
        IpcTransport().commit(attempt, pair)
    assert methods(log)[-1] == "learner.ipc_end"


def test_ipc_asks_nothing_more_of_ranks_that_are_lost(attempt, pair, sender, log) -> None:
    sender.troubles["ipc_next"] = RemoteCallError("learner-0 hangs in ipc_next")
    with pytest.raises(LearnerLostError, match="learner-0 hangs"):
        IpcTransport().commit(attempt, pair)
    assert methods(log)[-1] == "learner.ipc_next"


@pytest.mark.parametrize(("size", "ranks", "world_size"), [(1, (1, 2), 3), (4, (1, 5), 9)])
def test_nccl_gives_every_worker_of_every_generator_a_rank(size, ranks, world_size, attempt, pair, log) -> None:
    assert tuple(nccl_ranks(list(pair), size).values()) == ranks
    assert NcclTransport(size).commit(attempt, pair).answered.keys() == pair.keys()
    group = NcclGroup("10.0.0.1", 4000, world_size, buffer_bytes=2**20)
    assert [call for call in log if "join" in call[1]] == [
        *((name, "join_group", group, rank) for name, rank in zip(pair, ranks, strict=True)),
        ("learner", "nccl_join", group),
    ]
    assert log[-3:] == [
        *((name, "commit_weights", 11, 5) for name in pair),
        ("learner", "nccl_broadcast", 5),
    ]


def test_nccl_keeps_its_group_while_its_members_stay(attempt, pair, log) -> None:
    transport = NcclTransport(1)
    for _ in range(3):
        transport.commit(attempt, dict(pair))
    assert methods(log).count("learner.nccl_join") == 1
    restarted = pair | {"generator-1": FakeGenerator("generator-1", log)}
    transport.commit(attempt, restarted)
    assert methods(log).count("learner.nccl_join") == 2
    transport.commit(attempt, {"generator-0": pair["generator-0"]})
    assert methods(log).count("learner.nccl_join") == 3


def test_nccl_builds_its_group_anew_after_a_broadcast_that_failed(attempt, pair, sender, log) -> None:
    transport = NcclTransport(1)
    transport.commit(attempt, pair)
    pair["generator-1"].troubles["commit_weights"] = RemoteCallError("generator-1 died during commit_weights")
    sender.troubles["nccl_broadcast"] = ValueError()  # it was waiting for the one that died
    assert transport.commit(attempt, pair).died.keys() == {"generator-1"}
    sender.troubles.clear()
    rest = {"generator-0": pair["generator-0"]}
    assert transport.commit(attempt, rest).answered == {"generator-0": 7}
    assert methods(log).count("learner.nccl_join") == 2


def test_nccl_replaces_no_weights_when_the_group_is_not_formed(attempt, pair, log) -> None:
    pair["generator-1"].troubles["join_group"] = TimeoutError()
    outcomes = NcclTransport(1).commit(attempt, pair)
    assert not outcomes.answered and outcomes.late == {"generator-1": "generator-1 is late"}
    assert outcomes.refused["generator-0"].endswith("was not formed, because generator-1 is late")
    assert "generator-0.commit_weights" not in methods(log)


@pytest.mark.parametrize("trouble", [RemoteCallError("learner-0 died"), TimeoutError(), ValueError()])
def test_nccl_says_so_when_it_was_the_learner_that_failed(trouble, attempt, pair, sender) -> None:
    sender.troubles["nccl_broadcast"] = trouble
    with pytest.raises(LearnerLostError, match="learner-0"):
        NcclTransport(1).commit(attempt, pair)


@pytest.mark.parametrize("transport", [RayTransport(), IpcTransport(), NcclTransport(1)])
def test_dropping_reaches_all(transport, attempt, pair, log) -> None:
    transport.drop(attempt, pair)
    assert log == [(name, "drop_weights", 11) for name in pair]
