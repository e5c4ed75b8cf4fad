"""That reinforcement learning teaches: a conservative part of what docs/experiments.md reports."""

import json
import tomllib

import pytest

from orchestrator.config.recipe import RECIPES
from tests.support.commands import rayzero
from tests.support.paths import WARM_START


@pytest.mark.slow
@pytest.mark.long
def test_six_steps_from_a_fixed_warm_start_gain_three_points(tmp_path, shared_cluster) -> None:
    recipe = (RECIPES / "countdown-tiny.toml").read_text()
    assert tomllib.loads(recipe)["model"].pop("build")
    # The same recipe with the model loaded instead of built.
    start, end = recipe.index("[model.build]"), recipe.index("[traces]")
    loaded = f'{recipe[:start].rstrip()}\npath = "{WARM_START}"\n\n{recipe[end:]}'
    (tmp_path / "from-warm-start.toml").write_text(loaded)
    overrides = [
        *("num_steps=6", "prompts.num_held_out=96", "evaluation.every_steps=0", f"runs_dir={tmp_path}"),
        *("rollout.num_generators=1", "rollout.threads_per_generator=2"),
    ]
    environment = {"RAYZERO_CACHE": str(tmp_path), **shared_cluster}
    done = rayzero("train", str(tmp_path / "from-warm-start.toml"), *overrides, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "from-warm-start" / "metrics.jsonl").read_text().splitlines()
    before, after = (json.loads(line)["eval/pass_at_1"] for line in (lines[0], lines[-1]))
    assert after - before > 0.03, f"held-out pass@1 went from {before:.3f} to {after:.3f}"
