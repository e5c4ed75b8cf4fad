"""The setting `deterministic`: what it asks of both ends on a GPU, and that cores are left alone."""

from dataclasses import replace

import pytest

from orchestrator.cluster.layout import Layout
from orchestrator.config.recipe import load
from orchestrator.config.resolve import ResolvedRun, engine_spec
from orchestrator.plan.run_plan import plan
from rollout.actor import environment
from rollout.config import RolloutConfig


@pytest.mark.parametrize(
    ("mode", "asked", "fixed"), [("colocated", True, True), ("colocated", False, False), ("cpu", True, False)]
)
def test_kernels_are_fixed_on_gpus_that_a_run_asks_for(mode: str, asked: bool, fixed: bool) -> None:
    config = load("countdown-4090", [f"deterministic={str(asked).lower()}"])
    layout = replace(EMPTY, mode=mode)
    run = ResolvedRun(config, layout, engine_spec(config, "model", load_weights=False), config.learner, config.model)
    assert run.fixes_kernels is fixed


EMPTY = Layout(mode="cpu", bundles=(), generators=(), ranks=(), rewards=())


def test_generators_sample_by_kernels_that_do_not_depend_on_the_batch() -> None:
    from vllm import envs

    plain, fixed = (environment(RolloutConfig(), fixes) for fixes in (False, True))
    assert fixed == plain | {"VLLM_BATCH_INVARIANT": "1"}
    assert "VLLM_BATCH_INVARIANT" in envs.environment_variables  # as vLLM calls it


def test_the_plan_says_so() -> None:
    assert "determinism" in dict(plan(load("countdown-4090", ["deterministic=true"])))
    assert "determinism" not in dict(plan(load("countdown-4090")))
