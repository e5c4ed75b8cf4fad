"""Every transport on real devices: after a publish vLLM's logprobs are the learner's, and without one they are not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from learner.config import PARITY_LIMITS
from learner.parity import ParityError
from orchestrator.base_model import base_model
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.config.recipe import load
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.fleet import RayFleet
from orchestrator.run import load_tokenizer
from rollout.prompts.stream import PromptStream
from rollout.types.completions import RemoteGroup, Reward, RewardPart
from rollout.types.sampling import SamplingRequest
from tests.support.remote_groups import gathered

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(900)]

two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="learner and generator need a GPU each")
Site = tuple[RunConfig, RayFleet, PromptStream]


@pytest.fixture(
    params=[
        pytest.param(("colocated", "ipc"), id="ipc"),
        pytest.param(("colocated", "ray"), id="ray-colocated"),
        pytest.param(("pods", "nccl"), id="nccl", marks=two_gpus),
        pytest.param(("pods", "ray"), id="ray-pods", marks=two_gpus),
    ]
)
def site(request: pytest.FixtureRequest, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A fleet of one generator and one learner rank, with version 0 published."""
    mode, backend = request.param
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path))
    config = load(
        "countdown-tiny",
        [
            "name=gpu",
            "model.dtype=bfloat16",
            "warm_start.num_steps=0",
            "sampling.max_completion_tokens=64",
            "prompts.num_held_out=4",
            "learner.warmup_steps=0",
            "learner.learning_rate=1e-2",  # so that an update shows beyond what bfloat16 rounds away
            "learner.num_ranks=1",
            "rollout.num_generators=1",
            "rollout.gpu_memory_fraction=0.1",
            "learner.gpu_memory_fraction=0.2",
            "rollout.publish_bucket_mib=1",  # the policy comes in several
            f"rollout.publish_backend={backend}",
            f"placement.mode={mode}",
        ],
    )
    base = base_model(config)
    with ray_cluster():
        fleet = RayFleet.start(config, base)
        try:
            fleet.wait_until_ready()
            fleet.learner.start(base, fleet.run.learner, config.num_steps, config.sampling.temperature)
            publish(fleet, 0)
            yield config, fleet, PromptStream(config.prompts, load_tokenizer(base))
        finally:
            fleet.close()


def publish(fleet: RayFleet, version: int) -> float:
    """As the loop does it; returns seconds."""
    start = time.monotonic()
    with fleet.generating():
        fleet.publish(version=version)
    return time.monotonic() - start


def collect(site: Site) -> list[RemoteGroup]:
    config, fleet, prompts = site
    with fleet.generating():
        request = SamplingRequest(tuple(prompts.take(16)), config.sampling, 4, config.seed)
        sampled = gathered(fleet.rollouts, request)
    # An untrained policy earns nothing; any spread will do to make an update.
    rewards = tuple(Reward(float(index), (RewardPart("correctness", 0.0),)) for index in range(4))
    return [group.scored(rewards) for group in sampled]


def update(site: Site, step: int) -> float:
    """One step on groups that are sampled now; the mean gap of its logprobs, nats."""
    groups = collect(site)
    with site[1].learning():
        return site[1].learner.update(step, groups).metrics["rollout/logprob_gap"]


def test_what_is_published_is_what_samples(site: Site, measured: Callable[[str, str], None]) -> None:
    gaps, seconds = [], []
    for step in (1, 2, 3):
        gaps.append(update(site, step))
        seconds.append(publish(site[1], step))
    assert max(gaps) < PARITY_LIMITS["bfloat16"]
    measured("largest mean logprob gap in 3 steps", f"{max(gaps):.2g} nats")
    measured("fastest publish", f"{min(seconds):.2f} s")


def test_what_is_not_published_is_noticed(site: Site, measured: Callable[[str, str], None]) -> None:
    """So that the test above means something: the gap of one update is far beyond the limit."""
    update(site, 1)
    with pytest.raises(ParityError) as caught:
        update(site, 2)
    assert caught.value.mean_gap > 2 * PARITY_LIMITS["bfloat16"]
    measured("mean logprob gap without a publish", f"{caught.value.mean_gap:.2g} nats")
