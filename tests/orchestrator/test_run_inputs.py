"""A run goes on from the data and the models that it was started with, or says what has changed."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.command import UNKNOWN
from orchestrator.config.recipe import load
from orchestrator.records.checkpoints import Checkpoint
from orchestrator.records.origin.fingerprints import read_summary
from orchestrator.records.run_directory import RunDirectoryError
from orchestrator.run import TrainCommand

ALLOWED = "checkpoint.allow_changes=true"


@pytest.fixture
def rows(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"nums": [3, 7, n], "target": n}) + "\n" for n in range(1, 50)))
    return file


def command(rows: Path, *overrides: str) -> TrainCommand:
    given = [f"runs_dir={rows.parent / 'runs'}", "name=one", "prompts.num_held_out=9", "warm_start.num_steps=0"]
    data = [f"prompts.countdown.source={rows}"]
    return TrainCommand(load("countdown-tiny", [*given, *data, *overrides]), Console(quiet=True))


@pytest.fixture
def started(rows) -> Checkpoint:
    """The checkpoint of a run that has started."""
    first = command(rows)
    prompts = first.prepare(None).prompts
    first.fingerprints.write(first.directory.open().path)
    return Checkpoint(2, rows.parent, prompts.state(), json.loads(json.dumps(first.checkpoints.fingerprints)))


def test_a_run_goes_on_from_what_it_was_started_with(rows, started) -> None:
    assert started.fingerprints == read_summary(rows.parent / "runs" / "one")
    assert started.fingerprints["problems"]["prompts.countdown"]["rows"]["count"] == 49
    assert "model.safetensors" in started.fingerprints["models"]["the base model"]
    rows.write_text("".join(reversed(rows.read_text().splitlines(keepends=True))))
    resumed = command(rows)
    resumed.prepare(started)
    assert resumed.checkpoints.fingerprints == started.fingerprints


def test_data_that_has_changed_is_said_and_refused_unless_told(rows, started, caplog) -> None:
    changed = rows.read_text().replace('"target": 7}', '"target": 8}').splitlines(keepends=True)
    rows.write_text("".join(changed[:-2]))
    with pytest.raises(
        RunDirectoryError, match=r"(?s)the run 'one' would continue with other data .* had 49 rows and has 47"
    ):
        command(rows).prepare(started)
    allowed = command(rows, ALLOWED)
    allowed.prepare(started)
    assert "had 49 rows and has 47: 1 added" in caplog.text
    assert allowed.checkpoints.fingerprints["problems"]["prompts.countdown"]["rows"]["count"] == 47
    assert "allow_changes" not in (allowed.directory.open().path / "config.json").read_text()  # told for this once


def test_a_base_model_that_has_changed_is_said(rows, started) -> None:
    (model,) = (rows.parent / "cache").glob("built-*")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    with pytest.raises(RunDirectoryError, match=r"(?s)the base model has changed: config\.json.*allow_changes=true"):
        command(rows).prepare(started)
    command(rows, ALLOWED).prepare(started)


@pytest.mark.parametrize(
    ("override", "is_used"),
    [("learner.algorithm.kl_beta=0.1", True), ("model.lora={rank=4}", True), ("learner.algorithm.kl_beta=0.0", False)],
    ids=["the reference", "the base of a LoRA", "neither"],
)
def test_a_warm_started_model_that_has_changed_is_said_where_it_is_used(rows, tmp_path, override, is_used) -> None:
    def start(latest: Checkpoint | None, *overrides: str) -> TrainCommand:
        config = load("countdown-tiny", [f"runs_dir={tmp_path}", "name=warm", override, *overrides])
        found = TrainCommand(config, Console(quiet=True))
        found.directory.open()
        found._check_warm_started(str(folder), latest)
        return found

    folder = tmp_path / "warm-1"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    resumed = Checkpoint(2, tmp_path, {}, start(None).fingerprints.summary())
    assert bool(resumed.fingerprints["models"]) == is_used
    start(resumed)
    (folder / "model.safetensors").write_bytes(b"others")
    if is_used:
        with pytest.raises(RunDirectoryError, match=r"the warm-started model has changed: model\.safetensors"):
            start(resumed)
    start(resumed, ALLOWED)


def test_a_run_of_an_earlier_version_goes_on_and_says_once_that_nobody_knows(rows, started, caplog) -> None:
    old = Checkpoint(2, rows.parent, {key: value for key, value in started.prompts.items() if key != "format"})
    resumed = command(rows)
    prompts = resumed.prepare(old).prompts
    assert prompts.state()["format"] == 1 and resumed.checkpoints.fingerprints["split"] == "by_position"
    assert caplog.text.count(UNKNOWN) == 1
