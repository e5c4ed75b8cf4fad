"""Shares of GPU memory: those that a recipe gives stand, the others come from the memory plan."""

import math

import pytest

from orchestrator.config.recipe import RECIPES, ConfigError, load
from orchestrator.config.schema import RunConfig
from orchestrator.plan.fractions import with_fractions
from orchestrator.plan.gpu_models import gpu_model
from orchestrator.plan.memory_plan import memory_plan, planned_fraction
from orchestrator.plan.model_shapes import shape_of
from rollout.config import RolloutConfig

MIB = 2**20
GIVEN = ("rollout.gpu_memory_fraction=0.5", "learner.gpu_memory_fraction=0.3")


def shares(config: RunConfig) -> tuple[float | None, float | None]:
    return config.rollout.gpu_memory_fraction, config.learner.gpu_memory_fraction


def not_asked() -> float:
    raise AssertionError("no GPU should have been measured")


def test_two_that_take_turns_have_both_shares_planned() -> None:
    config = load("countdown-4090", ["placement.mode=auto"])
    planned = with_fractions(config, "colocated", lambda: 24.0)
    assert planned.placement.mode == "colocated"
    # Of 24 GiB less 5%: the sleeping generator's context and graphs, and the rank's own context.
    left = 0.95 * 24 * 1024 * MIB - (800 + 512) * MIB - 800 * MIB
    learner = math.floor(100 * left / (24 * 1024 * MIB)) / 100
    assert shares(planned) == (planned_fraction(config, shape_of(config.model), 24.0).value, learner)
    assert learner == 0.86


def test_a_share_that_the_recipe_gives_stands() -> None:
    planned = with_fractions(load("countdown-4090", GIVEN[:1]), "colocated", lambda: 24.0)
    assert shares(planned) == (0.5, 0.86)
    assert shares(with_fractions(load("countdown-4090", GIVEN), "colocated", not_asked)) == (0.5, 0.3)


def test_on_gpus_of_their_own_only_the_generator_is_limited() -> None:
    config = load("countdown-8gpu")
    rollout, learner = shares(with_fractions(config, "pods", lambda: 80.0))
    assert rollout == planned_fraction(config, shape_of(config.model), 80.0).value and learner is None


def test_on_cores_nothing_is_planned() -> None:
    assert shares(with_fractions(load("countdown-tiny"), "cpu", not_asked)) == (None, None)


def test_a_model_that_cannot_be_planned_needs_its_shares_given(tmp_path) -> None:
    unknown = f"model.path={tmp_path / 'nowhere'}"
    with pytest.raises(ConfigError, match=r"or give rollout\.gpu_memory_fraction and learner\.gpu_memory_fraction"):
        with_fractions(load("countdown-4090", [unknown]), "colocated", not_asked)
    assert shares(with_fractions(load("countdown-4090", [unknown, *GIVEN]), "colocated", not_asked)) == (0.5, 0.3)
    alone = with_fractions(load("countdown-8gpu", [unknown]), "pods", not_asked)
    assert alone.rollout.share_of_gpu == 0.9


def test_a_generator_that_nothing_is_trained_beside_takes_most_of_the_gpu() -> None:
    assert RolloutConfig().share_of_gpu == 0.9
    assert RolloutConfig(gpu_memory_fraction=0.4).share_of_gpu == 0.4


def test_a_run_that_does_not_fit_is_told_of(caplog) -> None:
    config = load("countdown-4090", ["model.path=Qwen/Qwen2.5-3B-Instruct"])
    with_fractions(config, "colocated", lambda: 24.0)
    assert "optimizer step" in caplog.text and "`rayzero plan` says what to change" in caplog.text


CARDS = {"4090": "4090", "80gb": "h100", "8gpu": "h100", "2x8gpu": "h100"}
ON_GPUS = sorted(
    path.stem for path in RECIPES.glob("*.toml") if load(path.stem).placement.mode in ("colocated", "pods")
)


@pytest.mark.parametrize("recipe", ON_GPUS)
def test_every_recipe_fits_its_card_by_plan(recipe: str) -> None:
    (card,) = {CARDS[part] for part in recipe.split("-") if part in CARDS}
    config = load(recipe)
    assert shares(config) == (None, None)
    plan = memory_plan(config, shape_of(config.model), gpu_model(card))
    assert plan.fits and plan.kv_cache.num_completions >= plan.kv_cache.wanted_completions
