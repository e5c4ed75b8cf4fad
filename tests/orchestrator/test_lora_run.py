"""A whole run with a LoRA: interrupted and resumed, sampled from in vLLM, exported both ways."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.orchestrator.test_run import metrics, start, train, untimed, wait_for_step, weights_digest

pytestmark = pytest.mark.slow

LORA = [
    "model.lora={rank=4, alpha=8}",
    "learner.learning_rate=2e-3",
    "checkpoint.every_steps=1",
    "num_steps=3",
    "rollout.num_generators=1",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lora")


@pytest.fixture(scope="module")
def whole(workplace: Path) -> Path:
    """The directory of a run that nobody disturbs."""
    done = train(workplace, "whole", *LORA)
    assert done.returncode == 0, done.stdout + done.stderr
    return workplace / "runs" / "whole"


def test_generators_run_the_merged_weights(workplace: Path, whole: Path) -> None:
    assert max(line["rollout/logprob_gap"] for line in metrics(workplace, "whole")[1:]) < 1e-5


def test_a_resumed_run_counts_its_adapter_once(workplace: Path, whole: Path) -> None:
    process = start(workplace, "asked", *LORA)
    wait_for_step(workplace, "asked", 1, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 130
    resumed = train(workplace, "asked", *LORA)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "resuming run 'asked'" in resumed.stdout
    assert untimed(metrics(workplace, "asked")) == untimed(metrics(workplace, "whole"))
    assert weights_digest(workplace, "asked") == weights_digest(workplace, "whole")


def test_checkpoints_hold_the_adapter_alone(whole: Path) -> None:
    saved = sum(file.stat().st_size for file in (whole / "checkpoints" / "step_000003").rglob("*pt") if file.is_file())
    model = (whole / "final" / "model.safetensors").stat().st_size
    adapter = (whole / "final" / "adapter" / "adapter_model.safetensors").stat().st_size
    assert saved < model  # with the optimizer's moments; whole weights would take four times the model
    assert adapter < model / 3


def test_the_adapter_loads_in_peft_and_makes_the_merged_model(whole: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = whole / "final" / "adapter"
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    tokens = torch.arange(2, 40)[None]
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(whole / "final")(tokens).logits
        before = AutoModelForCausalLM.from_pretrained(base)(tokens).logits
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)(tokens).logits
    torch.testing.assert_close(adapted, merged, rtol=0, atol=1e-4)
    assert (merged - before).abs().max() > 1e-3
