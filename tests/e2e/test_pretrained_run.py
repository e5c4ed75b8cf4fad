"""A real pretrained model as a user trains it on cores: with adapters, in bfloat16, from command to exported model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import Workplace, rayzero
from tests.support.pretrained import gguf_file

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

SMALL = [
    "model.lora={rank=8, alpha=16}",
    "model.dtype=bfloat16",
    "learner.zero_stage=1",
    "num_steps=2",
    "prompts_per_step=4",
    "group_size=4",
    "learner.learning_rate=2e-4",
    "prompts.num_held_out=4",
    "evaluation.completions_per_prompt=1",
    "checkpoint.every_steps=1",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, shared_cluster) -> Workplace:
    gguf_file()
    return Workplace(tmp_path_factory.mktemp("pretrained"), "train", "smollm2-135m", environment=shared_cluster)


@pytest.fixture(scope="module")
def printed(workplace: Workplace) -> str:
    return workplace.succeed("adapted", *SMALL)


@pytest.fixture(scope="module")
def final(workplace: Workplace, printed: str) -> Path:
    return workplace.run("adapted") / "final"


def test_sampler_and_learner_agree_within_bfloat16(workplace: Workplace, printed: str) -> None:
    """The gate watched both steps; a stale or half-merged publish would have stopped the second."""
    lines = workplace.metrics("adapted")
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all(0 < line["rollout/logprob_gap"] < 0.05 for line in lines[1:])


def test_the_export_is_the_base_with_the_adapter_and_nothing_else_changed(final: Path) -> None:
    from safetensors.torch import load_file

    base = json.loads((final / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (base, final))
    assert before.keys() == after.keys() and "lm_head.weight" not in after
    changed = {name for name in before if not before[name].to(after[name].dtype).equal(after[name])}
    written = load_file(final / "adapter" / "adapter_model.safetensors")
    adapted = {name.removeprefix("base_model.model.").split(".lora_")[0] + ".weight" for name in written}
    assert changed and changed <= adapted


def test_the_end_shows_questions_before_and_after(printed: str) -> None:
    assert printed.count("Calculate") >= 2


def test_the_exported_model_answers_a_question(workplace: Workplace, final: Path) -> None:
    asked = ("Calculate 4 + 3.", "--answer", "7", "--recipe", "smollm2-135m")
    done = rayzero("solve", str(final), *asked, environment=workplace.environment)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stdout + done.stderr
