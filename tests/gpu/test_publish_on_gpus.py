"""Every transport on real devices: after a publish vLLM's logprobs are the learner's, and without one they are not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import ray

from learner.config import PARITY_LIMITS
from learner.parity import ParityError
from orchestrator.base_model import base_model, load_tokenizer
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.config.recipe import load
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.fleet import RayFleet
from rollout.prompts.stream import PromptStream
from rollout.types.completions import RemoteGroup, Reward, RewardPart
from rollout.types.sampling import SamplingRequest
from tests.gpu.card import Card

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(540)]
SETTINGS = [
    "name=gpu",
    "num_steps=100",  # the learning rate stays
    "model.dtype=bfloat16",
    "warm_start.num_steps=0",
    "sampling.max_completion_tokens=192",
    "prompts.num_held_out=4",
    "learner.warmup_steps=0",
    "learner.learning_rate=1e-2",  # so that an update shows beyond what bfloat16 rounds away
    "learner.num_ranks=1",
    "rollout.num_generators=1",
    "rollout.gpu_memory_fraction=0.1",
    "rollout.max_concurrent_completions=128",
    "learner.gpu_memory_fraction=0.2",
    "rollout.publish_bucket_mib=1",  # the policy comes in several
]
LIMIT = PARITY_LIMITS["bfloat16"]


@dataclass
class Site:
    """A fleet of one generator and one learner rank, which all tests of a transport share."""

    config: RunConfig
    fleet: RayFleet
    prompts: PromptStream
    version: int = -1
    """The last that was published."""

    def publish(self) -> float:
        """Publish the next version as the loop does it, and return seconds."""
        start = time.monotonic()
        with self.fleet.generating():
            self.fleet.publish(version=self.version + 1)
        self.version += 1
        return time.monotonic() - start

    def request(self, count: int) -> SamplingRequest:
        return SamplingRequest(tuple(self.prompts.take(count)), self.config.sampling, 4, self.config.seed)

    def collect(self, request: SamplingRequest, meanwhile: Callable[[], object] = lambda: None) -> list[RemoteGroup]:
        """Sample while something else goes on. An untrained policy earns nothing: any spread makes an update."""
        rewards = tuple(Reward(float(index), (RewardPart("correctness", 0.0),)) for index in range(4))
        with self.fleet.generating():
            self.fleet.rollouts.submit(request)
            meanwhile()
            return [group.scored(rewards) for group in self.fleet.rollouts.gather(request.prompts)]

    def gap(self, groups: list[RemoteGroup]) -> float:
        """Update on these groups, and return the mean gap of their logprobs, nats."""
        with self.fleet.learning():
            return self.fleet.learner.update(self.version + 1, groups).metrics["rollout/logprob_gap"]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("colocated", "ipc"), id="ipc"),
        pytest.param(("pods", "nccl"), id="nccl"),
        pytest.param(("colocated", "ray"), id="ray-colocated"),
        pytest.param(("pods", "ray"), id="ray-pods"),
    ],
)
def site(request: pytest.FixtureRequest, card: Card, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The fleet, with version 0 published."""
    mode, transport = request.param
    if mode == "pods" and card.count < 2:
        pytest.skip("learner and generator need a card each, and there is one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYZERO_CACHE", str(tmp_path_factory.mktemp("cache")))
        config = load("countdown-tiny", [*SETTINGS, *card.settings(mode, transport)])
        base = base_model(config)
    with ray_cluster():
        fleet = RayFleet.start(config, base)
        try:
            fleet.wait_until_ready()
            fleet.learner.start(base, fleet.run.learner, config.num_steps, config.sampling.temperature)
            site = Site(config, fleet, PromptStream(config.prompts, load_tokenizer(base)))
            site.publish()
            yield site
        finally:
            fleet.close()


def test_what_is_published_is_what_samples(site: Site, measured: Callable[..., None]) -> None:
    gaps, seconds = [], []
    for _ in range(3):
        gaps.append(site.gap(site.collect(site.request(16))))
        seconds.append(site.publish())
    measured("largest mean logprob gap in 3 steps", f"{max(gaps):.2g} nats", f"below {LIMIT:g}")
    measured("fastest publish", f"{min(seconds):.2f} s")
    assert max(gaps) < LIMIT


def test_weights_that_come_under_load_are_whole(site: Site, measured: Callable[..., None]) -> None:
    """Equal weights are published while batches are in flight: what samples a mixture of them would show as a gap."""
    seconds: list[float] = []
    groups = site.collect(site.request(32), lambda: seconds.extend(site.publish() for _ in range(5)))
    versions = {len(completion.policy_versions) for group in groups for completion in group.completions}
    gap = site.gap(groups)
    measured("slowest of 5 publishes under load", f"{max(seconds):.2f} s")
    measured("most versions of one completion", f"{max(versions)}", "above 1")
    measured("mean logprob gap across them", f"{gap:.2g} nats", f"below {LIMIT:g}")
    assert max(versions) > 1 and gap < LIMIT
    site.publish()


def test_a_killed_generator_comes_back_on_its_card(site: Site, card: Card, measured: Callable[..., None]) -> None:
    name, actor = next(iter(site.fleet.generators.standing.items()))
    with site.fleet.generating():
        pid, held = ray.get(actor.ready.remote(), timeout=60), card.used_gib()
    start = time.monotonic()
    groups = site.collect(site.request(32), lambda: os.kill(pid, signal.SIGKILL))
    seconds, woken = time.monotonic() - start, card.used_gib()
    gap = site.gap(groups)
    measured("until its prompts were sampled again", f"{seconds:.1f} s")
    measured("held on the card, before and after", f"{held:.2f}, {woken:.2f} GiB", "equal within 0.5")
    measured("mean logprob gap of its successor", f"{gap:.2g} nats", f"below {LIMIT:g}")
    assert site.fleet.generators.restarts == 1 and site.fleet.generators.standing[name] is not actor
    assert gap < LIMIT and (abs(woken - held) < 0.5 or not card.is_real)
    site.publish()


def test_what_is_not_published_is_noticed(site: Site, measured: Callable[..., None]) -> None:
    """So that the tests above mean something: the gap of one update is far beyond the limit. The last of a site."""
    site.gap(site.collect(site.request(16)))
    groups = site.collect(site.request(16))
    with pytest.raises(ParityError) as caught:
        site.gap(groups)
    measured("mean logprob gap without a publish", f"{caught.value.mean_gap:.2g} nats", f"above {2 * LIMIT:g}")
    assert caught.value.mean_gap > 2 * LIMIT
