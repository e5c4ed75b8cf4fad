"""Steps of the 1.7B recipe's shape with random weights, on a card of which 24 GB are used: planned against measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import pytest

from learner.config import BuildConfig, ModelConfig
from orchestrator.base_model import base_model, load_tokenizer
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.config.recipe import load
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.fleet import RayFleet
from orchestrator.plan.gpu_models import GpuModel
from orchestrator.plan.memory_plan import MemoryPlan, memory_plan, planned_learner_fraction
from orchestrator.plan.model_shapes import shape_of
from rollout.prompts.stream import PromptStream
from rollout.types.completions import Reward, RewardPart
from rollout.types.memory_terms import ALWAYS
from rollout.types.model_shape import ModelShape
from rollout.types.sampling import SamplingRequest
from tests.gpu.card import GIB, SIMULATED_GIB, Card, peaks

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(420)]
STEPS, PROMPTS = 2, 4
SMALL = ModelShape("qwen3", 64, 2, 2, 1, 32, 96, 512, tie_embeddings=True)
"""The stand-in's shape."""


@dataclass(frozen=True)
class Large:
    """A fleet that is starting, the folder of its model, and what was planned for the recipe."""

    fleet: RayFleet
    base: str
    plan: MemoryPlan


def config_of(card: Card, simulated: Callable[[float], float], recipe: RunConfig) -> tuple[RunConfig, MemoryPlan]:
    """Return a short run of the recipe's shape and settings on Countdown's own words, and its plan on 24 GB.

    Fewer completions than the recipe's: those that there are grow to the limit, as random weights never end one, and
    fill the microbatches and vLLM's share just as many would.
    """
    tiny = load("countdown-tiny", card.settings("colocated", "auto"))
    assert tiny.model.build is not None
    build = built(tiny.model.build, shape_of(recipe.model) if card.is_real else SMALL, recipe.max_model_len)
    gpu = GpuModel("24 GB", SIMULATED_GIB)
    plan = memory_plan(recipe, shape_of(recipe.model), gpu)
    planned = planned_learner_fraction(recipe, shape_of(recipe.model), SIMULATED_GIB).value
    shares = {"rollout": simulated(plan.fraction.value), "learner": simulated(planned)}
    sizes = {} if card.is_real else {"max_completion_tokens": 48}
    config = tiny.model_copy(
        update={
            "name": "large",
            "num_steps": STEPS,
            "group_size": recipe.group_size,
            "prompts_per_step": PROMPTS,
            "model": ModelConfig(build=build, dtype=recipe.model.dtype, attention=recipe.model.attention),
            "prompts": tiny.prompts.model_copy(update={"max_prompt_tokens": recipe.prompts.max_prompt_tokens}),
            "sampling": recipe.sampling.model_copy(update=sizes),
            "rollout": recipe.rollout.model_copy(
                update={
                    "gpu_memory_fraction": shares["rollout"],
                    "compile": tiny.rollout.compile,
                    "cpus_per_generator": tiny.rollout.cpus_per_generator,
                }
            ),
            "learner": recipe.learner.model_copy(
                update={
                    "gpu_memory_fraction": shares["learner"],
                    "offload_optimizer": card.is_real,
                    "cpus_per_rank": tiny.learner.cpus_per_rank,
                }
            ),
        }
    )
    return config, plan


def built(words: BuildConfig, shape: ModelShape, positions: int) -> BuildConfig:
    """Return a policy of exactly this shape that knows Countdown's words: integers fill up its vocabulary."""
    found = {
        "hidden_size": shape.hidden_size,
        "num_layers": shape.num_layers,
        "num_heads": shape.num_heads,
        "num_kv_heads": shape.num_kv_heads,
        "head_size": shape.head_size,
        "intermediate_size": shape.intermediate_size,
        "init_std": 0.02,
        "rope_theta": 1e6,
        "max_position_embeddings": positions,
        "max_integer": shape.vocab_size - len(words.words) - 3,
    }
    policy = words.model_copy(update=found)
    assert shape_of(ModelConfig(build=policy)) == shape
    return policy


@pytest.fixture
def large(card: Card, simulated: Callable[[float], float]) -> Iterator[Large]:
    # Not pytest's folder, which stays: this one has 7 GB.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as cache:
        patch.setenv("RAYZERO_CACHE", cache)
        config, plan = config_of(card, simulated, load("countdown-4090-qwen3-1.7b"))
        base = base_model(config)
        with ray_cluster():
            fleet = RayFleet.start(config, base)
            try:
                yield Large(fleet, base, plan)
            finally:
                fleet.close()


def steps_of(fleet: RayFleet, base: str) -> dict[str, float]:
    """Take the steps as the loop does, and return the seconds of the phases of the last one."""
    config, seconds = fleet.run.config, {}
    prompts = PromptStream(config.prompts, load_tokenizer(base))
    with fleet.learning():
        fleet.learner.start(base, fleet.run.learner, config.num_steps, config.sampling.temperature)
    fleet.wait_until_ready()
    with fleet.generating():
        fleet.publish(version=0)
    rewards = tuple(Reward(float(index), (RewardPart("correctness", 0.0),)) for index in range(config.group_size))
    for step in range(1, STEPS + 1):
        marks = [time.monotonic()]
        request = SamplingRequest(tuple(prompts.take(PROMPTS)), config.sampling, config.group_size, step)
        with fleet.generating():
            fleet.rollouts.submit(request)
            groups = [group.scored(rewards) for group in fleet.rollouts.gather(request.prompts)]
        marks.append(time.monotonic())
        with fleet.learning():
            update = fleet.learner.update(step, groups).metrics
        marks.append(time.monotonic())
        with fleet.generating():
            fleet.publish(version=step)
        marks.append(time.monotonic())
        phases = ("rollout", "update", "publish")
        seconds = {phase: end - begin for phase, (begin, end) in zip(phases, pairwise(marks), strict=True)}
        assert update["rollout/logprob_gap"] < 0.05
    return seconds


def planned_gib(plan: MemoryPlan) -> Mapping[str, float]:
    """Return what the device, and each actor's process, should hold at most."""
    actors = {
        actor: max(
            sum(term.num_bytes for term in plan.terms if term.actor == actor and phase in term.phases)
            for phase in ALWAYS
        )
        for actor in ("generator", "learner")
    }
    return {"device": max(map(plan.num_bytes, ALWAYS)) / GIB} | {name: held / GIB for name, held in actors.items()}


def test_steps_of_the_1_7b_shape_stay_within_24_gb(large: Large, card: Card, measured: Callable[..., None]) -> None:
    with peaks(card) as peak:
        seconds = steps_of(large.fleet, large.base)
    planned = planned_gib(large.plan)
    found = {"device": peak.device, **peak.by_actor}
    for name, held in found.items():
        measured(f"peak of the {name}", f"{held:.2f} GiB", f"{planned[name]:.2f} GiB")
    if not peak.by_actor:
        measured("peaks of the processes", "not told by the driver")
    for phase, took in seconds.items():
        measured(f"{phase}, last of {STEPS} steps of {PROMPTS} × {large.fleet.run.config.group_size}", f"{took:.1f} s")
    assert all(held < SIMULATED_GIB for held in found.values())
