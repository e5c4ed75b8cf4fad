"""What the driver makes of a rank that dies, whatever is heard of it first. Real actors, with nothing in them."""

import hashlib
import os
import signal
import sys
import time

import pytest
import ray
from ray.exceptions import OutOfMemoryError

from learner.actor import CONCURRENCY
from orchestrator.cluster.results import RemoteCallError, result_of
from orchestrator.config.recipe import load
from orchestrator.fleet import learner_group
from orchestrator.fleet.generators import Generators, RestartBudgetExceededError
from orchestrator.fleet.heartbeats import Heartbeats, Listener
from orchestrator.fleet.learner_group import LearnerLostError, answers
from orchestrator.fleet.rollouts import RolloutStream

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_here")]
# Ray's workers cannot import this file: its actors travel by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Rank:
    @ray.method(concurrency_group="heartbeat")
    def heartbeat(self) -> int:
        return 3

    def update(self, does: str) -> str:
        if does == "dies":
            time.sleep(1.0)  # after its peer has complained
            os.kill(os.getpid(), signal.SIGKILL)
        if does == "complains":
            raise RuntimeError("Connection closed by peer")
        if does == "waits":
            time.sleep(60)
        if does == "works":  # one call of native code, for longer than the tests' hang_timeout_s
            rounds = 500_000
            rounds = int(rounds * 2 * HANG_TIMEOUT_S / seconds_of_native_work(rounds))
            assert seconds_of_native_work(rounds) > HANG_TIMEOUT_S
        while does == "stops":  # again, if somebody else continues it
            os.kill(os.getpid(), signal.SIGSTOP)
        return does


HANG_TIMEOUT_S = 3.0


def seconds_of_native_work(rounds: int) -> float:
    begin = time.monotonic()
    hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)
    return time.monotonic() - begin


LearnerActor = ray.remote(**CONCURRENCY)(Rank)


def ask(*does: str) -> dict[str, ray.ObjectRef]:
    return calls(ranks(len(does)), *does)


def ranks(count: int) -> dict[str, ray.actor.ActorHandle]:
    started = [LearnerActor.options(num_cpus=0).remote() for _ in range(count)]
    ray.get([rank.update.remote("starts") for rank in started])
    return {f"learner-{index}": rank for index, rank in enumerate(started)}


def calls(ranks: dict[str, ray.actor.ActorHandle], *does: str) -> dict[str, ray.ObjectRef]:
    return {name: rank.update.remote(what) for (name, rank), what in zip(ranks.items(), does, strict=True)}


def test_a_rank_whose_peer_died_complains_first_and_the_learner_is_lost() -> None:
    with pytest.raises(LearnerLostError, match="learner-1 died during update"):
        answers(ask("complains", "dies"), "update", 30)


def test_what_a_living_rank_raises_is_raised_as_it_is(monkeypatch) -> None:
    monkeypatch.setattr(learner_group, "DEATH_IS_KNOWN_S", 0.5)
    with pytest.raises(RuntimeError, match="Connection closed by peer"):
        answers(ask("complains", "waits"), "update", 30)


@pytest.mark.long
def test_a_rank_whose_process_is_stopped_is_found_and_named_and_one_that_works_slowly_is_left_alone() -> None:
    both = ranks(2)
    done = answers(calls(both, "works", "works"), "update", 60, liveness=Listener(both, HANG_TIMEOUT_S))
    assert done == {"learner-0": "works", "learner-1": "works"}
    with pytest.raises(LearnerLostError, match=r"learner-1 hangs in update: its process has not answered for 3 s"):
        answers(calls(both, "waits", "stops"), "update", 60, liveness=Listener(both, HANG_TIMEOUT_S))


def test_a_rank_that_says_nothing_is_lost_at_the_deadline() -> None:
    with pytest.raises(LearnerLostError, match="learner-1 did not answer update within 1 s"):
        answers(ask("done", "waits"), "update", 1)


def test_a_restart_budget_exceeded_beside_is_no_loss_of_the_learner() -> None:
    class Restarting:
        def refs(self):
            return []

        def advance(self, ready):
            raise RestartBudgetExceededError("generator-0 is lost")

    with pytest.raises(RestartBudgetExceededError):
        answers(ask("waits"), "update", 30, beside=Restarting())


def test_an_actor_that_ray_killed_for_memory_is_dead(monkeypatch) -> None:
    def get(ref, timeout):
        raise OutOfMemoryError("the node ran low on memory")

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(RemoteCallError, match=r"learner-0 died during update: .*the node ran low on memory"):
        result_of(None, "learner-0", "update")


def test_without_a_generator_and_without_one_that_starts_nobody_is_waited_for() -> None:
    config = load("countdown-tiny", ["rollout.num_generators=1", "rollout.max_restarts=0"]).rollout
    generators = Generators(lambda index, restarts: ray.remote(num_cpus=0)(Idle).remote(), config, have_weights=True)
    generators.wait_until_ready()
    with pytest.raises(RestartBudgetExceededError, match=r"as many as rollout\.max_restarts allows"):
        generators.lose("generator-0", "a test")
    stream = RolloutStream(generators, NoRewards(), config, serve_restarted=lambda: None)
    with pytest.raises(RestartBudgetExceededError, match="no generator is left"):
        stream._wait_for_a_generator()


class Idle:
    def ready(self) -> int:
        return os.getpid()


class NoRewards:
    is_full = False
    num_pending = 0

    def refs(self):
        return []


def test_time_in_which_nobody_looked_is_not_added_to_a_deadline_that_begins_now(monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr("orchestrator.fleet.heartbeats.time.monotonic", lambda: now)
    heartbeats = Heartbeats(hang_timeout_s=10)
    frozen = ray.remote(num_cpus=0)(Frozen).remote()
    now = 1500.0  # nobody looked while the engines loaded
    assert heartbeats.hanging({"generator-0": frozen}) == {}
    for _ in range(8):
        now += 2.0
        found = heartbeats.hanging({"generator-0": frozen})
    assert "has not answered for 10 s" in found["generator-0"]


class Frozen:
    def heartbeat(self):
        time.sleep(60)
