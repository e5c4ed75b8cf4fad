"""`rayzero sft` on real Ray and DeepSpeed, as a user starts, kills and resumes it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.sums import RECIPE, write_pairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "sums.toml").write_text(RECIPE)
    write_pairs(folder)
    return folder


def start(workplace: Path, name: str, *overrides: str) -> subprocess.Popen:
    where = [f"runs_dir={workplace / 'runs'}", f"name={name}", f"warm_start.data={workplace / 'pairs.jsonl'}"]
    command = [sys.executable, "-m", "orchestrator.cli", "sft", str(workplace / "sums.toml"), *where, *overrides]
    environment = os.environ | {"RAYZERO_CACHE": str(workplace / "cache")}
    with (workplace / f"{name}.out").open("w") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)


def finish(workplace: Path, name: str, *overrides: str) -> str:
    process = start(workplace, name, *overrides)
    assert process.wait(timeout=300) == 0, (workplace / f"{name}.out").read_text()
    return (workplace / f"{name}.out").read_text()


def metrics(workplace: Path, name: str) -> list[dict]:
    file = workplace / "runs" / name / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.exists() else []
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


def stop_after(workplace: Path, name: str, step: int, number: signal.Signals, *overrides: str) -> int:
    process = start(workplace, name, *overrides)
    deadline = time.monotonic() + 240
    while not any(line["step"] >= step for line in metrics(workplace, name)):
        assert process.poll() is None and time.monotonic() < deadline, (workplace / f"{name}.out").read_text()
        time.sleep(0.01)
    process.send_signal(number)
    return process.wait(timeout=120)


def weights_digest(workplace: Path, name: str) -> str:
    return hashlib.sha256((workplace / "runs" / name / "final" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(workplace: Path) -> str:
    """A run that nobody disturbs."""
    return finish(workplace, "whole")


def test_a_run_learns_its_pairs_and_leaves_what_the_readme_says(workplace, whole) -> None:
    run = workplace / "runs" / "whole"
    lines = metrics(workplace, "whole")
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert lines[-1]["optim/loss"] < 0.8 * lines[0]["optim/loss"]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step_000036", "step_000040"]
    assert (run / "config.json").exists() and (run / "log.txt").exists()
    assert "100 pairs" in whole and "sft 40/40  loss" in whole
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(run / "final").config.vocab_size == 25


def test_a_run_resumes_bit_for_bit_after_a_sigterm_and_a_sigkill(workplace, whole) -> None:
    assert stop_after(workplace, "disturbed", 6, signal.SIGTERM, "checkpoint.every_steps=1000") == 130
    assert "left cleanly" in (workplace / "disturbed.out").read_text()
    assert len(metrics(workplace, "disturbed")) < 40
    assert stop_after(workplace, "disturbed", 20, signal.SIGKILL) == -signal.SIGKILL
    assert "resuming run 'disturbed' after step" in finish(workplace, "disturbed")
    assert metrics(workplace, "disturbed") == metrics(workplace, "whole")
    assert weights_digest(workplace, "disturbed") == weights_digest(workplace, "whole")


def test_a_finished_run_is_left_alone_and_says_how_to_train_on(workplace, whole) -> None:
    before = weights_digest(workplace, "whole")
    again = finish(workplace, "whole")
    assert "is complete at step 40" in again and "name=whole-2" in again
    assert weights_digest(workplace, "whole") == before
