"""Publishing on real actors: what arrives, what is confirmed, and what the parity gate catches."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import ray

from learner.parity import ParityError
from orchestrator.base_model import base_model
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.cluster.results import RemoteCallError
from orchestrator.config.recipe import load
from orchestrator.fleet.fleet import RayFleet
from orchestrator.fleet.generators import Generators
from orchestrator.fleet.learner_group import LearnerGroup
from orchestrator.fleet.publish import PublishError, publish
from orchestrator.fleet.rollouts import RolloutStream
from orchestrator.fleet.transports import RayTransport
from orchestrator.run import load_tokenizer
from rewards.workers.pool import stored
from rollout.actor import CONCURRENCY, Generator, environment
from rollout.prompts.stream import PromptStream
from rollout.types.completions import Reward, RewardPart
from rollout.types.sampling import EngineSpec, Heartbeat, SamplingRequest
from tests.support.remote_groups import gathered

pytestmark = pytest.mark.slow
# Ray's workers cannot import this file: its actors travel by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fleet of two generators and two learner ranks, and its prompts."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYZERO_CACHE", str(cache))
        config = load(
            "countdown-tiny",
            [
                "name=publishing",
                "warm_start.num_steps=0",
                "sampling.max_completion_tokens=24",
                "rewards.deadline_s=5",
                "learner.warmup_steps=0",
                "prompts.num_held_out=4",
            ],
        )
        base = base_model(config)
    with ray_cluster():
        fleet = RayFleet.start(config, base)
        fleet.wait_until_ready()
        prompts = PromptStream(config.prompts, load_tokenizer(base))
        yield config, fleet, prompts, base
        fleet.close()


@pytest.fixture
def fresh(run):
    """The learner at its beginning, published as version 0."""
    config, fleet, _, base = run
    fleet.learner.start(base, config.learner, config.num_steps, config.sampling.temperature)
    fleet.publish(version=0)
    return run


def collect(run, count: int = 16):
    config, fleet, prompts, _ = run
    request = SamplingRequest(tuple(prompts.take(count)), config.sampling, 4, config.seed)
    groups = gathered(fleet.rollouts, request)
    # An untrained policy earns nothing; any spread will do to make an update.
    return [group.scored(tuple(spread(index) for index in range(4))) for group in groups]


def spread(index: int):
    return Reward(float(index), (RewardPart("correctness", 0.0),))


def test_every_version_arrives_and_sampler_and_learner_agree(fresh) -> None:
    _, fleet, _, _ = fresh
    for step in (1, 2, 3):
        groups = collect(fresh)
        assert {c.policy_versions for group in groups for c in group.completions} == {(step - 1,)}
        metrics = fleet.learner.update(step, groups).metrics
        assert metrics["rollout/logprob_gap"] < 1e-5
        fleet.publish(version=step)


def test_a_generator_left_one_version_behind_stops_the_run(fresh) -> None:
    """One generator confirms version 1 but got the weights of version 0; the gate sees it at the next update."""
    _, fleet, _, _ = fresh
    old = fleet.learner.weight_buckets(2**28)
    fleet.learner.update(1, collect(fresh))
    behind, *others = fleet.generators.standing.values()
    for generator, buckets in ((behind, old), *((other, fleet.learner.weight_buckets(2**28)) for other in others)):
        attempt_id = time.monotonic_ns()
        ray.get(generator.stage_weights.remote(attempt_id, 1, *buckets))
        assert ray.get(generator.commit_weights.remote(attempt_id)) == 1
    with pytest.raises(ParityError, match=r"(?s)^step 2: .* nats a token on average.*stale weights") as caught:
        fleet.learner.update(2, collect(fresh))
    assert caught.value.mean_gap > caught.value.limit == 1e-3
    assert caught.value.versions == (1,)


def test_after_the_gate_the_learner_is_as_it_was_and_a_new_publish_mends_the_run(fresh) -> None:
    _, fleet, _, _ = fresh
    old = fleet.learner.weight_buckets(2**28)
    fleet.learner.update(1, collect(fresh))
    stale = ThroughHands(fleet.learner, lambda buckets: old)  # the generators say version 1, and still run version 0
    assert publish(stale, fleet.generators.standing, 1, timeout_s=60, bucket_bytes=2**28) == {}
    with pytest.raises(ParityError):
        fleet.learner.update(2, collect(fresh))
    fleet.publish(version=1)
    assert fleet.learner.update(2, collect(fresh)).metrics["rollout/logprob_gap"] < 1e-5


class StaleHead(Generator):
    """Takes every weight, but never repacks its tied LM head."""

    def __init__(self, spec, config) -> None:
        from rollout.weights import object_store as weights

        weights.rebuild_tied_lm_head = lambda model: None
        super().__init__(spec, config)


@pytest.mark.long
def test_a_generator_with_a_stale_lm_head_stops_the_run(fresh) -> None:
    config, fleet, prompts, base = fresh
    spec = EngineSpec(base, "float32", config.max_model_len, load_weights=False)
    options = {"num_cpus": 0, "runtime_env": {"env_vars": environment(config.rollout)}, **CONCURRENCY}
    stale = ray.remote(**options)(StaleHead).remote(spec, config.rollout)
    publish(fleet.learner, {"generator-9": stale}, 0, timeout_s=120, bucket_bytes=2**28)
    request = SamplingRequest(tuple(prompts.take(8)), config.sampling, 4, config.seed)
    groups = gathered(stream_of(stale, fresh), request)
    ray.kill(stale)
    with pytest.raises(ParityError, match="LM head"):
        fleet.learner.update(1, [group.scored(tuple(spread(index) for index in range(4))) for group in groups])


def stream_of(actor, run, **settings) -> RolloutStream:
    """A stream that has this generator only, and does not replace it."""
    config, fleet, _, _ = run
    rollout = config.rollout.model_copy(update={"num_generators": 1, "max_restarts": 0, **settings})
    generators = Generators(lambda index, restarts: actor, rollout, have_weights=True)
    generators.wait_until_ready()
    return RolloutStream(generators, fleet.rewards, rollout, serve_restarted=lambda: None)


class Odd:
    """Does what a generator does in a publish."""

    version = None

    def stage_weights(self, attempt_id, version, *buckets):
        self.version = version

    def commit_weights(self, attempt_id):
        return self.version

    def drop_weights(self, attempt_id):
        """Nothing was kept."""

    def heartbeat(self):
        return Heartbeat(self.version, num_unfinished=0, decoding_steps=0)


class Mistaken(Odd):
    """Confirms the version before."""

    def commit_weights(self, attempt_id):
        return self.version - 1


class Hanging(Odd):
    def stage_weights(self, attempt_id, version, *buckets):
        time.sleep(60)


class Failing(Odd):
    def stage_weights(self, attempt_id, version, *buckets):
        raise ValueError("no parameter 'model.layers.9'")


class HalfLoading(Odd):
    def commit_weights(self, attempt_id):
        raise MemoryError("no room")


@contextmanager
def with_odd(fleet, kind):
    """The fleet's generators and one of another kind."""
    odd = ray.remote(num_cpus=0, max_concurrency=4)(kind).remote()
    ray.get(odd.__ray_ready__.remote())
    yield {**fleet.generators.standing, "odd": odd}
    ray.kill(odd)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Mistaken, "published version 7, but odd runs 6"),
        (
            Failing,
            "continues with its earlier weights: odd refused stage_weights.*ValueError: no parameter 'model.layers.9'",
        ),
    ],
)
def test_a_publish_that_goes_wrong_names_the_generator(fresh, kind, message) -> None:
    _, fleet, _, _ = fresh
    with with_odd(fleet, kind) as generators, pytest.raises(PublishError, match=message):
        publish(fleet.learner, generators, 7, timeout_s=30, bucket_bytes=2**28)


@pytest.mark.parametrize(
    ("kind", "timeout_s", "message"),
    [
        (Hanging, 5, r"odd did not answer stage_weights\(version 7\) within 5 s: raise"),
        (HalfLoading, 30, r"odd refused commit_weights\(version 7\): MemoryError: no room"),
    ],
)
def test_a_generator_that_cannot_follow_is_reported_lost_and_the_others_have_the_weights(
    fresh, kind, timeout_s, message
) -> None:
    _, fleet, _, _ = fresh
    with with_odd(fleet, kind) as generators:
        lost = publish(fleet.learner, generators, 7, timeout_s=timeout_s, bucket_bytes=2**28)
    assert list(lost) == ["odd"] and re.search(message, lost["odd"])
    assert versions(fleet) == [7, 7]


def versions(fleet) -> list[int | None]:
    calls = [generator.heartbeat.remote() for generator in fleet.generators.standing.values()]
    return [heartbeat.policy_version for heartbeat in ray.get(calls, timeout=60)]


def pids(fleet) -> list[int]:
    return ray.get([generator.ready.remote() for generator in fleet.generators.standing.values()], timeout=60)


@dataclass
class ThroughHands:
    """The learner, with somebody in between who spoils the buckets, or does something while they are on their way."""

    learner: LearnerGroup
    spoil: Callable[[list], list]

    def weight_buckets(self, max_bytes, timeout_s=None):
        return self.spoil(self.learner.weight_buckets(max_bytes, timeout_s))


def without_the_last(buckets: list) -> list:
    return buckets[:-1]


def with_a_flipped_bit(buckets: list) -> list:
    bucket = ray.get(buckets[0])
    arrays = tuple(array.copy() for array in bucket.arrays)
    arrays[-1].view(np.uint8).flat[3] ^= 1
    return [ray.put(replace(bucket, arrays=arrays)), *buckets[1:]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(without_the_last, r"they lack model\.\S+"), (with_a_flipped_bit, "arrived damaged: its checksum is another")],
)
def test_spoiled_weights_leave_every_generator_on_the_old_version_and_sampling_as_before(run, spoil, message) -> None:
    config, fleet, prompts, base = run
    fleet.learner.start(base, config.learner, config.num_steps, config.sampling.temperature)
    fleet.publish(version=0)
    asked = prompts.take(8)
    before = fleet.rollouts.collect(SamplingRequest(tuple(asked), config.sampling, 4, config.seed))
    graded = [group.scored(tuple(spread(index) for index in range(4))) for group in before]
    fleet.learner.update(1, [stored(group) for group in graded])
    with pytest.raises(PublishError, match=message) as caught:
        publish(
            ThroughHands(fleet.learner, spoil),
            fleet.generators.standing,
            1,
            timeout_s=60,
            bucket_bytes=2**18,
        )
    assert "generator-0" in str(caught.value) and "generator-1" in str(caught.value)
    assert versions(fleet) == [0, 0]
    again = fleet.rollouts.collect(SamplingRequest(tuple(asked), config.sampling, 4, config.seed))
    assert [tokens(group) for group in again] == [tokens(group) for group in before]
    assert {completion.policy_versions for group in again for completion in group.completions} == {(0,)}


def tokens(group) -> list[list[int]]:
    return [completion.token_ids.tolist() for completion in group.completions]


def test_a_generator_that_stops_during_staging_is_found_and_when_it_goes_on_all_get_the_weights(fresh) -> None:
    _, fleet, _, _ = fresh
    fleet.learner.update(1, collect(fresh))
    stopped = pids(fleet)[1]
    first = next(iter(fleet.generators.standing.values()))
    seen = []

    def look(buckets: list) -> list:
        if seen:  # the second attempt: the first was dropped everywhere
            seen.append(ray.get(first.heartbeat.remote(), timeout=60).policy_version)
            os.kill(stopped, signal.SIGCONT)
        else:
            os.kill(stopped, signal.SIGSTOP)
            seen.append("stopped")
        return buckets

    try:
        lost = publish(ThroughHands(fleet.learner, look), fleet.generators.standing, 1, timeout_s=6, bucket_bytes=2**28)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert (seen, lost) == (["stopped", 0], {})
    assert versions(fleet) == [1, 1]
    assert fleet.learner.update(2, collect(fresh)).metrics["rollout/logprob_gap"] < 1e-5


@pytest.mark.parametrize(
    ("kind", "message"),
    [("Dying", "generator-0 died during generate"), ("Silent", "its process has not answered for 3 s")],
)
def test_a_generator_that_dies_or_hangs_while_sampling_is_named(fresh, kind, message) -> None:
    config, _, prompts, _ = fresh
    odd = ray.remote(num_cpus=0)({"Dying": Dying, "Silent": Silent}[kind]).remote()
    stream = stream_of(odd, fresh, hang_timeout_s=3.0)
    with pytest.raises(RemoteCallError, match=f"generator-0 is lost: .*{message}"):
        stream.collect(SamplingRequest(tuple(prompts.take(2)), config.sampling, 4, config.seed))


class Cramped:
    def __init__(self) -> None:
        try:
            _ = {}["blocks"]
        except KeyError as error:
            raise RuntimeError("no memory is left\n  for the cache: lower the share") from error

    def ready(self):
        return os.getpid()


def test_a_generator_that_cannot_start_says_why(fresh) -> None:
    odd = ray.remote(num_cpus=0)(Cramped).remote()
    said = "^generator-0 died during ready: RuntimeError: no memory is left for the cache: lower the share$"
    with pytest.raises(RemoteCallError, match=said):
        stream_of(odd, fresh)


class Dying:
    def ready(self):
        return os.getpid()

    @ray.method(num_returns="streaming")
    def generate(self, request):
        os.kill(os.getpid(), signal.SIGKILL)
        yield


class Silent:
    def ready(self):
        return os.getpid()

    def heartbeat(self):
        """Waits for generate."""

    @ray.method(num_returns="streaming")
    def generate(self, request):
        time.sleep(60)
        yield


class KillsAfterStaging(RayTransport):
    def __init__(self, pid: int) -> None:
        self._pid = pid

    def stage(self, attempt, generators):
        staged = super().stage(attempt, generators)
        os.kill(self._pid, signal.SIGKILL)
        return staged


def test_a_generator_killed_between_stage_and_commit_is_lost_and_the_other_runs_the_new_version(fresh) -> None:
    """Changes the fleet: only what does not mind comes after it."""
    _, fleet, _, _ = fresh
    fleet.learner.update(1, collect(fresh))
    survivor, victim = fleet.generators.standing
    lost = publish(
        fleet.learner,
        fleet.generators.standing,
        1,
        timeout_s=60,
        bucket_bytes=2**28,
        transport=KillsAfterStaging(pids(fleet)[1]),
    )
    assert list(lost) == [victim] and re.search(r"died during commit_weights\(version 1\)", lost[victim])
    fleet.generators.serve([survivor])
    assert fleet.learner.update(2, collect(fresh)).metrics["rollout/logprob_gap"] < 1e-5


def test_closing_ends_every_actor_of_the_run(run) -> None:
    """Runs last."""
    _, fleet, _, _ = run
    fleet.close()
    for name in ("publishing/generator-0", "publishing/generator-1", "publishing/learner-0", "publishing/reward-0"):
        assert is_gone(name), f"{name} is still there"


def is_gone(name: str) -> bool:
    for _ in range(100):
        try:
            ray.get_actor(name)
        except ValueError:
            return True
        time.sleep(0.1)
    return False
