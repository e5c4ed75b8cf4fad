"""Publishing on real actors: what arrives, what is confirmed, and what the parity gate catches."""

import os
import signal
import sys
import time

import pytest
import ray

from learner.parity import ParityError
from orchestrator.fleet import RayFleet, ray_cluster
from orchestrator.policy import base_model
from orchestrator.publish import PublishError, publish
from orchestrator.recipes import load
from orchestrator.remote import RemoteCallError
from orchestrator.run import load_tokenizer
from orchestrator.stream import RolloutStream
from rollout.actor import Generator, environment
from rollout.prompts.stream import PromptStream
from rollout.types import EngineSpec, Reward, RewardPart

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
            None,
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
    with ray_cluster(config):
        fleet = RayFleet(config, EngineSpec(base, "float32", config.max_model_len, load_weights=False))
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
    groups = fleet.rollouts.collect(prompts.take(count), config.sampling, 4)
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
    """One generator confirms version 1 but never gets the weights; the gate sees it at the next update."""
    _, fleet, _, _ = fresh
    fleet.learner.update(1, collect(fresh))
    behind, *others = fleet.generators.values()
    buckets = fleet.learner.weight_buckets(2**28)
    ray.get([generator.update_weights.remote(1, *buckets) for generator in others])
    assert ray.get(behind.update_weights.remote(1)) == 1
    with pytest.raises(ParityError, match=r"(?s)^step 2: .* nats a token on average.*stale weights") as caught:
        fleet.learner.update(2, collect(fresh))
    assert caught.value.mean_gap > caught.value.limit == 1e-3
    assert caught.value.versions == (1,)


def test_after_the_gate_the_learner_is_as_it_was_and_a_new_publish_mends_the_run(fresh) -> None:
    _, fleet, _, _ = fresh
    fleet.learner.update(1, collect(fresh))  # not published: the generators still run version 0
    with pytest.raises(ParityError):
        fleet.learner.update(2, collect(fresh))
    fleet.publish(version=1)
    assert fleet.learner.update(2, collect(fresh)).metrics["rollout/logprob_gap"] < 1e-5


class StaleHead(Generator):
    """Takes every weight, but never repacks its tied LM head."""

    def __init__(self, spec, config) -> None:
        from rollout import weights

        weights.rebuild_tied_lm_head = lambda model: None
        super().__init__(spec, config)


def test_a_generator_with_a_stale_lm_head_stops_the_run(fresh) -> None:
    config, fleet, prompts, base = fresh
    spec = EngineSpec(base, "float32", config.max_model_len, load_weights=False)
    stale = ray.remote(num_cpus=0)(StaleHead)
    stale = stale.options(max_concurrency=2, runtime_env={"env_vars": environment(config.rollout)}).remote(
        spec, config.rollout
    )
    publish(fleet.learner, {"generator-9": stale}, 0, timeout_s=120, bucket_bytes=2**28)
    stream = RolloutStream({"generator-9": stale}, fleet.rewards, stall_timeout_s=60, seed=0)
    groups = stream.collect(prompts.take(8), config.sampling, 4)
    ray.kill(stale)
    with pytest.raises(ParityError, match="LM head"):
        fleet.learner.update(1, [group.scored(tuple(spread(index) for index in range(4))) for group in groups])


class Mistaken:
    """Confirms the version before."""

    @ray.method
    def update_weights(self, version, *buckets):
        return version - 1


class Hanging:
    def update_weights(self, version, *buckets):
        time.sleep(60)


class Failing:
    def update_weights(self, version, *buckets):
        raise ValueError("no parameter 'model.layers.9'")


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (Mistaken, PublishError, "published version 7, but odd runs 6"),
        (Hanging, RemoteCallError, r"odd did not answer update_weights\(version 7\) within 2 s: raise"),
        (Failing, ValueError, "no parameter 'model.layers.9'"),
    ],
)
def test_a_publish_that_goes_wrong_names_the_generator(fresh, kind, error, message) -> None:
    _, fleet, _, _ = fresh
    odd = ray.remote(num_cpus=0)(kind).remote()
    ray.get(odd.__ray_ready__.remote())
    with pytest.raises(error, match=message):
        publish(fleet.learner, {**fleet.generators, "odd": odd}, 7, timeout_s=2, bucket_bytes=2**28)
    ray.kill(odd)


def test_a_generator_that_dies_while_sampling_is_named(fresh) -> None:
    config, fleet, prompts, _ = fresh
    doomed = ray.remote(num_cpus=0)(Dying).remote()
    stream = RolloutStream({"generator-9": doomed}, fleet.rewards, stall_timeout_s=30, seed=0)
    with pytest.raises(RemoteCallError, match="generator-9 died during generate"):
        stream.collect(prompts.take(2), config.sampling, 4)


class Dying:
    @ray.method(num_returns="streaming")
    def generate(self, prompts, sampling, group_size, seed):
        os.kill(os.getpid(), signal.SIGKILL)
        yield


class Silent:
    @ray.method(num_returns="streaming")
    def generate(self, prompts, sampling, group_size, seed):
        time.sleep(60)
        yield


def test_a_generator_that_hangs_is_found_and_named(fresh) -> None:
    config, fleet, prompts, _ = fresh
    silent = ray.remote(num_cpus=0)(Silent).remote()
    stream = RolloutStream({"generator-9": silent}, fleet.rewards, stall_timeout_s=2, seed=0)
    with pytest.raises(RemoteCallError, match="no group finished for 2 s; 2 are missing, waiting for generator-9"):
        stream.collect(prompts.take(2), config.sampling, 4)
    ray.kill(silent)


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
