"""What a user waits for before anything useful happens."""

import subprocess
import sys

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


def test_the_nouns_load_nothing_but_numpy() -> None:
    third_party = modules_after("import rollout.types") & {*HEAVY, "pydantic", "rich"}
    assert not third_party
