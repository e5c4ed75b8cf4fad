"""A run directory that an earlier version wrote is resumed to the figures that version reached."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.commands import Workplace
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

OLD_RUN = ROOT / "tests" / "data" / "run-of-0.1.0"
"""Written by commit a5e4948 from its recipe.toml, with the checkpoint of step 2 and what came before it. expected.jsonl
holds the metrics that the same command then made of steps 3 and 4."""
SAME = ("reward/", "rollout/completion_tokens", "eval/reward", "eval/completion_tokens", "optim/grad_norm")
"""Metrics that a resume must reproduce; others are times, or round-off."""


def test_a_run_of_an_earlier_version_goes_on_to_the_same_figures(tmp_path: Path, shared_cluster) -> None:
    workplace = Workplace(tmp_path, "train", str(OLD_RUN / "recipe.toml"), environment=shared_cluster)
    shutil.copytree(OLD_RUN, workplace.run("old"))
    assert "resuming run 'old' after step 2" in workplace.succeed("old")
    lines = {line["step"]: line for line in workplace.metrics("old")}
    assert list(lines) == [0, 1, 2, 3, 4]
    for expected in map(json.loads, (OLD_RUN / "expected.jsonl").read_text().splitlines()):
        same = {key: value for key, value in expected.items() if key.startswith(SAME)}
        assert len(same) > 5
        assert {key: lines[expected["step"]][key] for key in same} == pytest.approx(same, rel=1e-4, abs=1e-6)
    assert (workplace.run("old") / "final" / "model.safetensors").exists()
