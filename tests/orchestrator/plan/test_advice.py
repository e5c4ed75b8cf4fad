"""The advice about memory: it makes a run fit, without idle changes, cheap ones first."""

import pytest

from orchestrator.plan.advice import advice, overrides_of
from orchestrator.plan.gpu_models import gpu_model
from orchestrator.plan.memory_plan import memory_plan, planned_fraction
from orchestrator.plan.model_shapes import shape_of
from tests.orchestrator.plan.test_memory import CARD, GIB, QWEN_05, QWEN_3, QWEN_15, QWEN_17, plan_of, run

LORA_AFTER_A_WARM_START = ("model.lora={rank=16}", "warm_start.num_steps=10", "warm_start.data=pairs.jsonl")


@pytest.mark.parametrize(
    "overrides",
    [
        (QWEN_15,),
        (QWEN_3,),
        (QWEN_17, "learner.gradient_checkpointing=false"),
        (QWEN_05, "rollout.gpu_memory_fraction=0.9"),
        (QWEN_05, "rollout.gpu_memory_fraction=0.05"),
        (QWEN_05, "learner.gradient_checkpointing=false", "learner.max_tokens_per_microbatch=16384"),
        (QWEN_3, *LORA_AFTER_A_WARM_START),
    ],
)
def test_advice_that_is_followed_makes_a_run_fit(overrides) -> None:
    assert not plan_of(*overrides).fits
    steps = advice(run(*overrides), CARD)
    assert plan_of(*overrides, *overrides_of(steps)).fits
    # Nothing in it is idle: without any one of its changes the run does not fit.
    for step in steps if len(steps) > 1 else ():
        rest = [other for other in steps if other is not step]
        kept = [override for other in rest for override in other.change.overrides]
        config = run(*overrides, *kept)
        share = planned_fraction(config, shape_of(config.model), 24)
        assert not memory_plan(config, shape_of(config.model), CARD, share).fits


def test_cheap_changes_come_before_dear_ones() -> None:
    large = ("learner.gradient_checkpointing=false", "learner.max_tokens_per_microbatch=16384")
    (step,) = advice(run(QWEN_05, *large), CARD)
    assert step.change.overrides == ("learner.max_tokens_per_microbatch=8192",)
    assert step.saved_gib["backward"] == pytest.approx(8192 * (25 * 62_208 + 16 * 896) / GIB)


def test_a_warm_start_that_is_too_large_is_done_by_sft_before() -> None:
    (step,) = advice(run(QWEN_3, *LORA_AFTER_A_WARM_START), CARD)
    assert step.change.overrides == ("warm_start.num_steps=0",) and "rayzero sft" in step.change.cost
    assert step.saved_gib["warm start"] > 60 and step.saved_gib["optimizer step"] == 0


def test_a_run_that_fits_needs_no_advice_and_one_on_a_tiny_card_cannot_be_helped() -> None:
    assert advice(run(QWEN_05), CARD) == []
    assert not advice(run(QWEN_3), gpu_model("2"))[-1].after.fits
