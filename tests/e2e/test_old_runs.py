"""A run directory that an earlier version wrote is resumed to the figures that version reached."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

OLD_RUN = ROOT / "tests" / "data" / "run-of-0.1.0"
"""Written by commit a5e4948 from its recipe.toml, with the checkpoint of step 2 and what came before it. expected.jsonl
holds the metrics that the same command then made of steps 3 and 4."""
SAME = ("reward/", "rollout/completion_tokens", "eval/reward", "eval/completion_tokens", "optim/grad_norm")
"""Metrics that a resume must reproduce; others are times, or round-off."""


def test_a_run_of_an_earlier_version_goes_on_to_the_same_figures(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "old"
    shutil.copytree(OLD_RUN, run)
    overrides = ["name=old", f"runs_dir={tmp_path / 'runs'}"]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "train", str(OLD_RUN / "recipe.toml"), *overrides],
        env=os.environ | {"RAYZERO_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming run 'old' after step 2" in done.stdout
    lines = {line["step"]: line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())}
    assert list(lines) == [0, 1, 2, 3, 4]
    for expected in map(json.loads, (OLD_RUN / "expected.jsonl").read_text().splitlines()):
        same = {key: value for key, value in expected.items() if key.startswith(SAME)}
        assert len(same) > 5
        assert {key: lines[expected["step"]][key] for key in same} == pytest.approx(same, rel=1e-4, abs=1e-6)
    assert (run / "final" / "model.safetensors").exists()
