"""What a user waits for before anything useful happens."""

import subprocess
import sys

import pytest

from tests.support.paths import WARM_START

HEAVY = ("torch", "vllm", "ray", "deepspeed", "transformers", "datasets", "wandb", "matplotlib")


def modules_after(code: str) -> set[str]:
    script = f"import sys; {code}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_help_and_recipe_validation_load_nothing_heavy() -> None:
    imports = "from orchestrator.arguments import parser; from orchestrator.config.recipe import load"
    code = f"{imports}; parser().format_help(); load(None)"
    assert not modules_after(code) & set(HEAVY)


@pytest.mark.slow
def test_a_learner_without_adapters_loads_no_peft() -> None:
    """It takes a second of each rank's start."""
    make = "from learner.model.policy import load_policy; from learner.weights.gather import merged_weights"
    config = "from learner.config import ModelConfig; config = ModelConfig(path='.')"
    load = f"{config}; model = load_policy({str(WARM_START)!r}, config, 1.0)"
    loaded = modules_after(f"{make}; {load}; assert list(merged_weights(model.model))")
    assert "torch" in loaded and "peft" not in loaded


def test_the_nouns_load_nothing_but_numpy() -> None:
    third_party = modules_after("import rollout.types") & {*HEAVY, "pydantic", "rich"}
    assert not third_party
