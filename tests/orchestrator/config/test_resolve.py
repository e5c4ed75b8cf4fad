"""What a recipe leaves open: shares of GPU memory come from the memory plan, what it gives stands."""

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest

from orchestrator.cluster.layout import EVALUATION, TRAINING, Mode, colocated_layout, separate_layout
from orchestrator.config.recipe import RECIPES, ConfigError, load
from orchestrator.config.resolve import ResolvedRun, resolve
from orchestrator.config.schema import RunConfig
from orchestrator.plan.gpu_models import gpu_model
from orchestrator.plan.memory_plan import memory_plan, planned_fraction
from orchestrator.plan.model_shapes import shape_of
from rollout.types.sampling import UNSHARED_FRACTION

MIB = 2**20
GIVEN = ("rollout.gpu_memory_fraction=0.5", "learner.gpu_memory_fraction=0.3")


def resolved(config: RunConfig, mode: Mode, gpu_gib: Callable[[], float]) -> ResolvedRun:
    layout = colocated_layout(config) if mode == "colocated" else separate_layout(config, (), TRAINING, mode)
    return resolve(config, layout, "a model", gpu_gib)


def shares(run: ResolvedRun) -> tuple[float | None, float | None]:
    return run.engine.gpu_memory_fraction, run.learner.gpu_memory_fraction


def not_asked() -> float:
    raise AssertionError("no GPU should have been measured")


def test_two_that_take_turns_have_both_shares_planned() -> None:
    config = load("countdown-4090", ["placement.mode=auto"])
    planned = resolved(config, "colocated", lambda: 24.0)
    # Of 24 GiB less 5%: the sleeping generator's context and graphs, and the rank's own context.
    left = 0.95 * 24 * 1024 * MIB - (800 + 512) * MIB - 800 * MIB
    learner = math.floor(100 * left / (24 * 1024 * MIB)) / 100
    colocated = load("countdown-4090", ["placement.mode=colocated"])
    assert shares(planned) == (planned_fraction(colocated, shape_of(config.model), 24.0).value, learner)
    assert learner == 0.86


def test_a_share_that_the_recipe_gives_stands() -> None:
    planned = resolved(load("countdown-4090", GIVEN[:1]), "colocated", lambda: 24.0)
    assert shares(planned) == (0.5, 0.86)
    assert shares(resolved(load("countdown-4090", GIVEN), "colocated", not_asked)) == (0.5, 0.3)


def test_on_gpus_of_their_own_only_the_generator_is_limited() -> None:
    config = load("countdown-8gpu")
    rollout, learner = shares(resolved(config, "pods", lambda: 80.0))
    assert rollout == planned_fraction(config, shape_of(config.model), 80.0).value and learner is None


def test_on_cores_nothing_is_planned() -> None:
    assert shares(resolved(load("countdown-tiny"), "cpu", not_asked)) == (UNSHARED_FRACTION, None)


def test_a_model_that_cannot_be_planned_needs_its_shares_given(tmp_path) -> None:
    unknown = f"model.path={tmp_path / 'nowhere'}"
    with pytest.raises(ConfigError, match=r"or set rollout\.gpu_memory_fraction and learner\.gpu_memory_fraction"):
        resolved(load("countdown-4090", [unknown]), "colocated", not_asked)
    assert shares(resolved(load("countdown-4090", [unknown, *GIVEN]), "colocated", not_asked)) == (0.5, 0.3)
    alone = resolved(load("countdown-8gpu", [unknown]), "pods", not_asked)
    assert alone.engine.gpu_memory_fraction == 0.9


def test_a_generator_that_nothing_is_trained_beside_takes_most_of_what_is_free() -> None:
    def evaluated(*overrides: str, free_share: float = 1.0) -> ResolvedRun:
        config = load("countdown-4090", overrides)
        layout = separate_layout(config, (), EVALUATION, "pods")
        return resolve(config, layout, "a model", not_asked, lambda: free_share)

    assert evaluated().engine.gpu_memory_fraction == 0.9
    assert evaluated(free_share=0.5).engine.gpu_memory_fraction == 0.45
    assert evaluated("rollout.gpu_memory_fraction=0.4", free_share=0.5).engine.gpu_memory_fraction == 0.4
    assert not evaluated().engine.sleeps
    assert evaluated().engine.load_weights and evaluated("rollout.publish_backend=ipc").engine.transport == "ray"


@pytest.mark.parametrize("mode", ["cpu", "colocated", "pods"])
def test_what_a_recipe_leaves_open_is_decided_once_and_what_the_user_said_is_kept(mode: Mode) -> None:
    config = load("countdown-8gpu", ["placement.mode=auto", *GIVEN])
    run = resolved(config, mode, not_asked)
    assert run.config is config and run.layout.mode == mode and not run.engine.load_weights
    assert run.engine.transport == {"cpu": "ray", "colocated": "ipc", "pods": "nccl"}[mode]
    assert run.engine.sleeps == (mode == "colocated")
    with pytest.raises(FrozenInstanceError):
        run.engine = run.engine  # type: ignore[misc]


def test_a_transport_that_cannot_work_where_the_actors_are_is_refused() -> None:
    config = load("countdown-tiny", ["rollout.publish_backend=nccl", "placement.mode=auto"])
    with pytest.raises(ValueError, match=r'rollout\.publish_backend = "nccl" does not work where placement is "cpu"'):
        resolved(config, "cpu", not_asked)


def test_sampling_that_runs_ahead_is_corrected_for_unless_the_recipe_says_otherwise() -> None:
    def correction(*overrides: str) -> str:
        return resolved(load("countdown-tiny", overrides), "cpu", not_asked).learner.algorithm.mismatch_correction

    assert correction() == "auto" and correction("max_staleness=1") == "truncated"
    assert correction("max_staleness=1", "learner.algorithm.mismatch_correction=off") == "off"


def test_a_run_that_does_not_fit_is_told_of(caplog) -> None:
    config = load("countdown-4090", ["model.path=Qwen/Qwen2.5-3B-Instruct"])
    resolved(config, "colocated", lambda: 24.0)
    assert "optimizer step" in caplog.text and "`rayzero plan` says what to change" in caplog.text


def test_the_optimizer_in_host_memory_gets_the_cores_of_its_machine() -> None:
    def threads(*overrides: str, mode: Mode = "colocated") -> int | None:
        config = load("countdown-4090-1.5b", [*GIVEN, *overrides])
        layout = colocated_layout(config) if mode == "colocated" else separate_layout(config, (), TRAINING, mode)
        return resolve(config, layout, "a model", not_asked, rank_cores=lambda: 12).learner.threads_per_rank

    assert threads() == 12 and threads("learner.threads_per_rank=3") == 3
    assert threads("learner.offload_optimizer=false") == 1
    # On cores generators need theirs.
    assert threads(mode="cpu") == 1


CARDS = {"4090": "4090", "80gb": "h100", "8gpu": "h100", "2x8gpu": "h100"}
ON_GPUS = sorted(
    path.stem for path in RECIPES.glob("*.toml") if load(path.stem).placement.mode in ("colocated", "pods")
)


@pytest.mark.parametrize("recipe", ON_GPUS)
def test_every_recipe_fits_its_card_by_plan(recipe: str) -> None:
    (card,) = {CARDS[part] for part in recipe.split("-") if part in CARDS}
    config = load(recipe)
    assert config.rollout.gpu_memory_fraction is config.learner.gpu_memory_fraction is None
    plan = memory_plan(config, shape_of(config.model), gpu_model(card))
    # At full length; most completions end early, so that more run at once. A token of Qwen3 takes four times the cache.
    share = 0.5 if "qwen3" in recipe else 1.0
    assert plan.fits and plan.kv_cache.num_completions >= share * plan.kv_cache.wanted_completions


def test_the_learner_gets_the_teacher_as_it_was_found() -> None:
    config = load("countdown-tiny", ["model.teacher=runs/better/final", "learner.algorithm.preset=distill"])
    layout = separate_layout(config, (), TRAINING, "cpu")
    assert resolve(config, layout, "a model", not_asked, teacher="/cache/gguf-1").model.teacher == "/cache/gguf-1"
    assert resolve(config, layout, "a model", not_asked).model.teacher is None  # a warm start, an evaluation
