"""A whole run with a LoRA: interrupted and resumed, sampled from in vLLM, exported both ways."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.test_run import FOUR_STEPS
from tests.support.commands import Workplace
from tests.support.paths import WARM_START

pytestmark = [pytest.mark.slow, pytest.mark.long]

LORA = [
    f'model={{path="{WARM_START}", dtype="float32", lora={{rank=4, alpha=8}}}}',
    "warm_start.num_steps=0",
    "learner.learning_rate=2e-3",
    "checkpoint.every_steps=1",
    "num_steps=3",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, shared_cluster) -> Workplace:
    return Workplace(
        tmp_path_factory.mktemp("lora"), "train", "countdown-tiny", *FOUR_STEPS, *LORA, environment=shared_cluster
    )


@pytest.fixture(scope="module")
def resumed(workplace: Workplace) -> Path:
    """The directory of a run that was asked to leave after its first step, and then went on to its end."""
    assert workplace.stop_after("resumed", 1, signal.SIGTERM) == 130
    assert "resuming run 'resumed'" in workplace.succeed("resumed")
    return workplace.run("resumed")


def test_generators_run_the_merged_weights(workplace: Workplace, resumed: Path) -> None:
    lines = workplace.metrics("resumed")
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert max(line["rollout/logprob_gap"] for line in lines[1:]) < 1e-5


def test_checkpoints_hold_the_adapter_alone(resumed: Path) -> None:
    saved = sum(
        file.stat().st_size for file in (resumed / "checkpoints" / "step_000003").rglob("*pt") if file.is_file()
    )
    model = (resumed / "final" / "model.safetensors").stat().st_size
    adapter = (resumed / "final" / "adapter" / "adapter_model.safetensors").stat().st_size
    assert saved < model  # with the optimizer's moments; whole weights would take four times the model
    assert adapter < model / 3


def test_the_adapter_loads_in_peft_and_makes_the_merged_model(resumed: Path) -> None:
    """Which it would not, had the resume counted it twice: once as weights of the base, once as itself."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = resumed / "final" / "adapter"
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    tokens = torch.arange(2, 40)[None]
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(resumed / "final")(tokens).logits
        before = AutoModelForCausalLM.from_pretrained(base)(tokens).logits
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)(tokens).logits
    torch.testing.assert_close(adapted, merged, rtol=0, atol=1e-4)
    assert (merged - before).abs().max() > 1e-3
