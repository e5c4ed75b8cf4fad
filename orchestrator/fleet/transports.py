"""How the weights of one publish travel: the calls to both ends, in two phases, stage and commit.

=========  ============================================  =====================================================
transport  stage                                         commit
=========  ============================================  =====================================================
ray        every generator fetches the buckets from the  the staged buckets are loaded
           object store and checks them
ipc        every generator checks the manifest           bucket by bucket through a buffer on the shared GPU
nccl       every generator checks the manifest           all join a group, if it changed; one broadcast to all
=========  ============================================  =====================================================
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from orchestrator.cluster.calls import Outcomes, gather_calls
from orchestrator.fleet.generators import index_of
from orchestrator.fleet.heartbeats import Listener
from orchestrator.fleet.learner_group import LearnerLostError, answers
from orchestrator.fleet.protocols import WeightSender
from rollout.types.publishing import IpcBucket, NcclGroup, TransportName

ADVICE = "raise rollout.publish_timeout_s if the model is large or the network slow; else look at its log, it may hang"
ABORT_S = 30.0
"""Seconds that NCCL may need to leave a broadcast after its deadline."""
DROP_S = 5.0
"""Seconds to wait for generators to drop what was staged."""

Handles = Mapping[str, Any]
"""Actor handles by name."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One of the two attempts at a publish."""

    sender: WeightSender
    version: int
    id: int
    """By which generators know this attempt; larger than that of any attempt before."""
    timeout_s: float
    """Of each phase."""
    bucket_bytes: int
    hang_timeout_s: float = 60.0
    """After which a generator or a rank that does not even answer a heartbeat counts as dead."""

    def gather(self, calls: Mapping[str, Any], call: str, generators: Handles) -> Outcomes:
        """Return the outcomes of calls of these generators, within this attempt's deadlines."""
        return gather_calls(calls, call, self.timeout_s, ADVICE, Listener(generators, self.hang_timeout_s))


class Transport(Protocol):
    """A way for weights to travel. Each method raises LearnerLostError when the learner is dead or late."""

    def stage(self, attempt: Attempt, generators: Handles) -> Outcomes:
        """Do everything that can fail while every generator continues with its old version.

        If the weights themselves travel at the commit, both ends only agree here on what will be sent.
        """
        manifest = next(iter(from_sender(attempt, "weight_manifest").values()))
        deadline = time.monotonic() + attempt.timeout_s
        return call_all(generators, "stage_manifest", deadline, attempt.id, attempt.version, manifest)

    def commit(self, attempt: Attempt, generators: Handles) -> Outcomes:
        """Replace the weights of generators that have staged. Their answers are the versions that they then run."""
        ...

    def drop(self, attempt: Attempt, generators: Handles) -> Outcomes:
        """Have generators drop what was staged, and abort a started update. Return those that have.

        Waits a little, so that the object store is free again; a late generator drops it when it wakes up.
        """
        return call_all(generators, "drop_weights", time.monotonic() + DROP_S, attempt.id)


class RayTransport(Transport):
    """Through Ray's object store: anywhere. Staged buckets are views into it, so staging copies nothing."""

    def stage(self, attempt: Attempt, generators: Handles) -> Outcomes:
        buckets = attempt.sender.weight_buckets(attempt.bucket_bytes, attempt.timeout_s)
        staged = (attempt.id, attempt.version, *buckets)
        calls = {name: generator.stage_weights.remote(*staged) for name, generator in generators.items()}
        return attempt.gather(calls, f"stage_weights(version {attempt.version})", generators)

    def commit(self, attempt: Attempt, generators: Handles) -> Outcomes:
        calls = {name: generator.commit_weights.remote(attempt.id) for name, generator in generators.items()}
        return attempt.gather(calls, f"commit_weights(version {attempt.version})", generators)


class IpcTransport(Transport):
    """Within a GPU that generator i and learner rank i share, by CUDA IPC, in a buffer of one bucket.

    A generator that was sent the buffer lets go of it; a rank does where its generator was not sent it, or is dead.
    """

    def __init__(self) -> None:
        # Generators that may still hold the buffer of the attempt before; one that refuses has dropped it.
        self._holding: dict[str, Any] = {}

    def commit(self, attempt: Attempt, generators: Handles) -> Outcomes:
        deadline, is_lost = time.monotonic() + attempt.timeout_s, False
        lost = sorted(index_of(name) for name, actor in self._holding.items() if generators.get(name) is not actor)
        outcomes, opened, closed = Outcomes(), set[str](), set[str]()
        try:
            from_sender(attempt, "ipc_begin", attempt.bucket_bytes, lost)
            outcomes = call_all(generators, "begin_commit", deadline, attempt.id)
            while outcomes.answered and (bucket := next_bucket(attempt)) is not None:  # none is packed for nobody
                opened.update(outcomes.answered)
                loading = {name: generators[name] for name in outcomes.answered}
                # Answered by all before the next bucket is asked for: it will be in the same buffer.
                outcomes = outcomes.then(call_all(loading, "load_bucket", deadline, bucket))
            loaded = {name: generators[name] for name in outcomes.answered}
            outcomes = outcomes.then(call_all(loaded, "finish_commit", deadline, attempt.id))
            closed.update(outcomes.answered)
            return outcomes
        except LearnerLostError:
            is_lost = True  # and replaced, with its buffer: one that hangs would be waited for once more
            raise
        finally:
            self._holding = {name: generators[name] for name in opened - {*outcomes.died, *outcomes.refused, *closed}}
            if not is_lost:
                from_sender(attempt, "ipc_end", sorted(map(index_of, opened - outcomes.died.keys())))

    def drop(self, attempt: Attempt, generators: Handles) -> Outcomes:
        dropped = super().drop(attempt, generators)
        self._holding = {name: actor for name, actor in self._holding.items() if name not in dropped.answered}
        return dropped


class NcclTransport(Transport):
    """Between GPUs: one broadcast from learner rank 0 to the workers of all generators."""

    def __init__(self, tensor_parallel_size: int) -> None:
        """`tensor_parallel_size`: workers of each generator."""
        self._tensor_parallel_size = tensor_parallel_size
        self._members: Handles = {}  # of the group as it stands; none after a failure

    def commit(self, attempt: Attempt, generators: Handles) -> Outcomes:
        if self._members != generators:
            joined = self._join(attempt, generators)
            if len(joined.answered) < len(generators):
                return without_group(joined)
        members, self._members = self._members, {}
        receiving = {
            name: generator.commit_weights.remote(attempt.id, attempt.timeout_s)
            for name, generator in generators.items()
        }
        sending = attempt.sender.call_ranks("nccl_broadcast", attempt.timeout_s)
        # Both ends give up at the deadline by themselves; this waits for them to say so.
        wait_s = attempt.timeout_s + ABORT_S
        call = f"commit_weights(version {attempt.version})"
        outcomes = gather_calls(receiving, call, wait_s, ADVICE, beside=SenderWatch(attempt))
        sent = gather_calls(sending, "nccl_broadcast", ABORT_S)
        check_sender(sent, is_excused=bool(outcomes.failed or outcomes.died))
        if len(outcomes.answered) == len(generators):
            self._members = members
        return outcomes

    def _join(self, attempt: Attempt, generators: Handles) -> Outcomes:
        """Form the group again: its members or their processes have changed, or a broadcast has failed."""
        self._members = {}
        address, port = next(iter(from_sender(attempt, "reserve_address").values()))
        ranks = nccl_ranks(list(generators), self._tensor_parallel_size)
        world_size = 1 + self._tensor_parallel_size * len(generators)
        group = NcclGroup(address, port, world_size, attempt.bucket_bytes)
        joining = {name: generator.join_group.remote(group, ranks[name]) for name, generator in generators.items()}
        sending = attempt.sender.call_ranks("nccl_join", group)
        outcomes = gather_calls(joining, "join_group", attempt.timeout_s, ADVICE, beside=SenderWatch(attempt))
        check_sender(gather_calls(sending, "nccl_join", ABORT_S), is_excused=False)
        if len(outcomes.answered) == len(generators):
            self._members = dict(generators)
        return outcomes


class SenderWatch:
    """Looks after the learner's ranks during calls of generators, which wait for these ranks."""

    def __init__(self, attempt: Attempt) -> None:
        self._ranks = attempt.sender.ranks
        self._listener = Listener(self._ranks, attempt.hang_timeout_s)

    def refs(self) -> list[Any]:
        return []

    def advance(self, ready: Sequence[Any]) -> None:
        """Raise LearnerLostError when a rank hangs."""
        if hanging := self._listener.hanging(self._ranks):
            raise LearnerLostError("; ".join(f"{name} hangs: {reason}" for name, reason in hanging.items()))


def make_transport(name: TransportName, tensor_parallel_size: int) -> Transport:
    """Return the transport of that name. `tensor_parallel_size`: workers of each generator."""
    if name == "nccl":
        return NcclTransport(tensor_parallel_size)
    return IpcTransport() if name == "ipc" else RayTransport()


def nccl_ranks(names: Sequence[str], tensor_parallel_size: int) -> dict[str, int]:
    """Return the first NCCL rank of each generator's workers; rank 0 is the learner's."""
    return {name: 1 + index * tensor_parallel_size for index, name in enumerate(names)}


def call_all(generators: Handles, method: str, deadline: float, *args: Any) -> Outcomes:
    """Call one method of all `generators`, to be answered by `deadline` on the monotonic clock."""
    calls = {name: getattr(generator, method).remote(*args) for name, generator in generators.items()}
    return gather_calls(calls, method, max(0.0, deadline - time.monotonic()))


def from_sender(attempt: Attempt, method: str, *args: Any) -> dict[str, Any]:
    """Return the answers of all learner ranks, by name."""
    listener = Listener(attempt.sender.ranks, attempt.hang_timeout_s)
    calls = attempt.sender.call_ranks(method, *args)
    return answers(calls, method, attempt.timeout_s, ADVICE, liveness=listener)


def next_bucket(attempt: Attempt) -> IpcBucket | None:
    """Return the next bucket with the handles of all ranks' GPUs; None after the last."""
    by_rank = [bucket for bucket in from_sender(attempt, "ipc_next").values() if bucket is not None]
    handles = {uuid: handle for bucket in by_rank for uuid, handle in bucket.handles.items()}
    return replace(by_rank[0], handles=handles) if by_rank else None


def check_sender(sent: Outcomes, *, is_excused: bool) -> None:
    """Raise LearnerLostError for a rank that is dead or late, and for one that gave up unless that `is_excused`."""
    if gone := sent.died | sent.late | ({} if is_excused else sent.refused):
        raise LearnerLostError("; ".join(gone.values()))


def without_group(joined: Outcomes) -> Outcomes:
    """Return the outcomes with generators refused that were ready to join a group which was not formed."""
    reason = "did not get weights: the group to broadcast them was not formed, because " + "; ".join(
        (joined.died | joined.failed).values()
    )
    waited = {name: f"{name} {reason}" for name in joined.answered}
    return Outcomes({}, joined.refused | waited, joined.late, joined.died)
