from __future__ import annotations

import math
import subprocess
import sys

import pytest
from pydantic import ValidationError

from learner.backend.optimizer import Optimizer
from learner.backend.schedule import learning_rate
from learner.checks import check_together
from learner.config import BuildConfig, LearnerConfig, ModelConfig, OptimizerConfig, WarmStartConfig


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (ModelConfig, {}, "path and build: neither given"),
        (ModelConfig, {"path": "a", "build": {"max_integer": 1, "words": []}}, r"both \(path = 'a'\)"),
        (BuildConfig, {"max_integer": 1, "words": [], "num_kv_heads": 2}, "num_kv_heads is 2, which does not divide"),
        (BuildConfig, {"max_integer": 1, "words": [], "head_size": 24}, "head_size"),
        (BuildConfig, {"max_integer": 1, "words": ["a", "b", "a"]}, r"repeat \['a'\]"),
        (BuildConfig, {"max_integer": 1, "words": ["x1"]}, r"\['x1'\] with digits"),
        (LearnerConfig, {"offload_optimizer": True, "zero_stage": 0}, "offload_optimizer is true with zero_stage 0"),
        (LearnerConfig, {"adam_betas": (0.9, 1.0)}, "adam_betas is"),
        (LearnerConfig, {"lr": 1.0}, "lr"),
    ],
)
def test_errors_name_the_key(model, settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model(**settings)


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="zero_stage=1"):
        check_together(LearnerConfig(zero_stage=0), ModelConfig(path="a", dtype="bfloat16"))
    with pytest.raises(ValueError, match="attention=sdpa"):
        check_together(LearnerConfig(), ModelConfig(path="a", dtype="float32", attention="flash_attention_2"))


def test_parity_limit_goes_by_dtype_unless_set() -> None:
    assert LearnerConfig().parity_limit("float32") == 1e-3
    assert LearnerConfig().parity_limit("bfloat16") == 0.05
    assert LearnerConfig(max_logprob_gap=0.2).parity_limit("bfloat16") == 0.2


def test_every_field_has_a_docstring() -> None:
    for model in (BuildConfig, ModelConfig, LearnerConfig, WarmStartConfig):
        assert not [name for name, field in model.model_fields.items() if not field.description]


def test_a_warm_start_brings_its_own_optimizer_only() -> None:
    learner = LearnerConfig(learning_rate=1e-6, zero_stage=2, updates_per_step=4)
    merged = WarmStartConfig(num_steps=10, learning_rate=3e-3, adam_betas=(0.9, 0.95)).applied_to(learner)
    assert (merged.learning_rate, merged.adam_betas, merged.lr_schedule) == (3e-3, (0.9, 0.95), "linear")
    assert (merged.zero_stage, merged.updates_per_step) == (2, 1)


def test_validation_loads_nothing_slow() -> None:
    code = (
        "import sys, learner.config, learner.backend.schedule; "
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_learning_rate_warms_up_holds_and_decays() -> None:
    config = OptimizerConfig(
        learning_rate=2.0, warmup_steps=4, lr_schedule="linear", lr_hold_fraction=0.5, lr_min_ratio=0.1
    )
    course = [learning_rate(config, step, 20) for step in range(1, 23)]
    assert course[:4] == [0.5, 1.0, 1.5, 2.0]
    assert course[4:10] == [2.0] * 6
    assert course[14] == pytest.approx(2.0 * 0.55)
    assert course[19:] == pytest.approx([0.2] * 3)


def test_cosine_and_constant() -> None:
    cosine = OptimizerConfig(learning_rate=1.0, lr_schedule="cosine")
    assert learning_rate(cosine, 5, 19) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert learning_rate(cosine, 20, 19) == pytest.approx(0.0)
    assert {learning_rate(OptimizerConfig(learning_rate=1.0), step, 20) for step in range(1, 30)} == {1.0}


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("num_steps", [1, 2, 20])
def test_no_optimizer_step_is_for_nothing(schedule, num_steps: int) -> None:
    """A decay to 0 would be there in the step after the last; a run of one step is trained, too."""
    config = OptimizerConfig(learning_rate=1.0, lr_schedule=schedule)
    course = [learning_rate(config, step, num_steps) for step in range(1, num_steps + 2)]
    assert course[-1] == pytest.approx(0.0)
    assert course == sorted(course, reverse=True) and course[-2] > 1e-3


def test_a_run_of_version_0_1_0_keeps_its_decay() -> None:
    """And a decay to more than 0 has not changed."""
    to_zero = OptimizerConfig(learning_rate=1.0, lr_schedule="linear")
    course = [learning_rate(to_zero, step, 4, may_end_at_zero=True) for step in range(1, 6)]
    assert course == [0.75, 0.5, 0.25, 0.0, 0.0]
    above = to_zero.model_copy(update={"lr_min_ratio": 0.1})
    for step in range(1, 6):
        assert learning_rate(above, step, 4) == learning_rate(above, step, 4, may_end_at_zero=True)


def test_the_rule_of_the_decay_goes_with_the_run() -> None:
    config = LearnerConfig(learning_rate=1.0, lr_schedule="linear")
    begun = {"optimizer_step": 4, "skipped_in_a_row": 0}
    old = Optimizer(config, None, 4)
    old.restore(begun)
    assert old.learning_rate == 0.0
    resumed = Optimizer(config, None, 4)
    resumed.restore(old.state())
    assert resumed.learning_rate == 0.0
    fresh = Optimizer(config, None, 4)
    fresh.restore(Optimizer(config, None, 4).state() | begun)
    assert fresh.learning_rate == pytest.approx(0.2)
