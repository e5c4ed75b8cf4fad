"""Every layout of the learner, ZeRO 0 to 3 on one and two ranks and a LoRA, makes one curve and publishes its weights.

The first layout samples five steps from its own generators. The others train on those same groups, under the parity
gate: it would stop a layout whose weights had drifted from those that sampled them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from learner.config import LoraConfig
from orchestrator.base_model import base_model
from orchestrator.cluster.layout import SUPERVISED
from orchestrator.cluster.placement import Placement
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.config.recipe import load
from orchestrator.config.resolve import resolve
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.fleet import RayFleet
from orchestrator.fleet.learner_group import LearnerGroup
from orchestrator.fleet.publish import publish
from orchestrator.run import load_tokenizer
from rollout.prompts.stream import PromptStream
from rollout.types.completions import RemoteGroup, Reward, RewardPart
from rollout.types.sampling import SamplingRequest
from tests.support.remote_groups import gathered

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

STEPS = 5
CURVE = ("optim/loss", "optim/grad_norm", "optim/kl_k3", "optim/entropy")
LAYOUTS = [(ranks, stage) for ranks in (1, 2) for stage in (0, 1, 2, 3)]


def run_config(ranks: int, *overrides: str) -> RunConfig:
    return load(
        "countdown-tiny",
        [
            "name=layouts",
            f"learner.num_ranks={ranks}",
            "rollout.num_generators=1",
            "warm_start.num_steps=0",
            "sampling.max_completion_tokens=24",
            "prompts.num_held_out=4",
            "learner.warmup_steps=0",
            "learner.updates_per_step=2",
            "learner.algorithm.kl_beta=0.1",
            *overrides,
        ],
    )


class Site(NamedTuple):
    """A fleet with one generator, learner groups of one and of two ranks, and prompts."""

    fleet: RayFleet
    learners: dict[int, LearnerGroup]
    prompts: PromptStream
    base: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYZERO_CACHE", str(tmp_path_factory.mktemp("cache")))
        config = run_config(1)
        base = base_model(config)
    with ray_cluster():
        fleet = RayFleet.start(config, base)
        fleet.wait_until_ready()
        two_ranks = run_config(2, "name=layouts-2")
        with Placement.of(two_ranks, SUPERVISED) as placement:
            pair = LearnerGroup(resolve(two_ranks, placement.layout, base, placement.gpu_gib), placement)
            yield Site(fleet, {1: fleet.learner, 2: pair}, PromptStream(config.prompts, load_tokenizer(base)), base)
        fleet.close()


def start(site: Site, config: RunConfig) -> LearnerGroup:
    learner = site.learners[config.learner.num_ranks]
    learner.start(site.base, config.learner, STEPS, config.sampling.temperature, config.model)
    return learner


def publish_from(site: Site, learner: LearnerGroup, version: int) -> None:
    standing = site.fleet.generators.standing
    publish(learner, standing, version, timeout_s=120, bucket_bytes=2**16)
    site.fleet.generators.serve(standing)


def collect(site: Site, config: RunConfig) -> list[RemoteGroup]:
    request = SamplingRequest(tuple(site.prompts.take(16)), config.sampling, 4, config.seed)
    groups = gathered(site.fleet.rollouts, request)
    # An untrained policy earns nothing; any spread will do to make an update.
    rewards = tuple(Reward(float(index), (RewardPart("correctness", 0.0),)) for index in range(4))
    return [group.scored(rewards) for group in groups]


def on_policy_steps(site: Site, config: RunConfig) -> tuple[list[dict[str, float]], list[list[RemoteGroup]]]:
    """The metrics and the groups of a few steps, each sampled by the weights of the one before."""
    learner = start(site, config)
    publish_from(site, learner, 0)
    metrics, steps = [], []
    for step in range(1, STEPS + 1):
        steps.append(collect(site, config))
        metrics.append(learner.update(step, steps[-1]).metrics)
        publish_from(site, learner, step)
    return metrics, steps


@pytest.fixture(scope="module")
def first(site: Site) -> tuple[list[dict[str, float]], list[list[RemoteGroup]]]:
    return on_policy_steps(site, run_config(1, "learner.zero_stage=0"))


def curve(metrics: list[dict[str, float]]) -> list[list[float]]:
    return [[step[key] for key in CURVE] for step in metrics]


@pytest.mark.parametrize(("ranks", "stage"), LAYOUTS)
def test_the_curve_is_the_same_and_what_is_published_arrives(site: Site, first: Any, ranks: int, stage: int) -> None:
    expected, steps = first
    config = run_config(ranks, f"learner.zero_stage={stage}")
    learner = start(site, config)
    metrics = [learner.update(step, groups).metrics for step, groups in enumerate(steps, start=1)]
    np.testing.assert_allclose(curve(metrics), curve(expected), rtol=1e-4, atol=1e-6)
    assert max(step["rollout/logprob_gap"] for step in metrics) < 1e-5

    publish_from(site, learner, STEPS)
    fresh = learner.update(STEPS + 1, collect(site, config)).metrics
    assert fresh["rollout/logprob_gap"] < 1e-5


@pytest.mark.parametrize(("ranks", "stage"), [(1, 1), (2, 2), (2, 3)])
def test_a_lora_is_published_merged(site: Site, ranks: int, stage: int) -> None:
    lora = LoraConfig(rank=4, alpha=16.0)
    settings = ("learner.learning_rate=5e-3", "learner.updates_per_step=1")
    config = run_config(ranks, f"learner.zero_stage={stage}", *settings)
    config = config.model_copy(update={"model": config.model.model_copy(update={"lora": lora})})
    metrics, _ = on_policy_steps(site, config)
    assert max(step["rollout/logprob_gap"] for step in metrics) < 1e-5
    # The adapters have moved the policy away from the base that they are on: the reference shows it.
    assert metrics[0]["optim/kl_k3"] < 1e-4 < metrics[-1]["optim/kl_k3"]
