"""Models that are written to a full disk: one sentence with what to do, what there was before, and nothing torn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from orchestrator.base_model import ModelFolderError, base_model, export_whole
from orchestrator.config.recipe import load
from orchestrator.interrupt import Interrupt
from orchestrator.records.final_model import has_model_of
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.files import FileTracker
from orchestrator.sft import SupervisedCommand, SupervisedInputs
from orchestrator.warm_start import WarmStart, warm_started_model
from rollout.types.sampling import EngineSpec
from tests.support.full_disk import files_below, full_disk


class Teaching:
    """A learner group that learns nothing, and exports a model of 1,000 bytes."""

    def __init__(self, config) -> None:
        self.run = SimpleNamespace(
            config=config, learner=config.learner, engine=EngineSpec("base", "float32", 64, load_weights=False)
        )

    def start(self, *_, **__) -> None: ...

    def persist(self, attempt, roll_back):
        return attempt()

    def supervised_update(self, step, examples):
        return {"optim/loss": 1.0}

    def save(self, folder: Path) -> dict[str, str]:
        folder.mkdir()
        return {}

    def load(self, folder: Path) -> None: ...

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"0" * 1000)


class Examples:
    num_left_out = 0

    def take(self, count: int) -> list[int]:
        return [0] * count

    def state(self) -> dict[str, str]:
        return {"position": "0" * 600}

    def restore(self, state: dict[str, str]) -> None: ...


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_model_that_is_built(cache) -> None:
    config = load("countdown-tiny")
    with full_disk(1000), pytest.raises(ModelFolderError, match=r"cache/built-.*File too large.*set RAYZERO_CACHE to"):
        base_model(config)
    assert files_below(cache) == set()
    assert Path(base_model(config)).is_dir()


def test_a_warm_start(tmp_path) -> None:
    config, console, cache = load("countdown-tiny", ["warm_start.num_steps=2"]), Console(quiet=True), tmp_path / "cache"
    learner, interrupt, warm_start = Teaching(config), Interrupt(console), WarmStart(cache / "warm", Examples())
    with full_disk(500), pytest.raises(ModelFolderError, match=r"cache/warm: File too large.*set RAYZERO_CACHE to"):
        warm_started_model(learner.run, warm_start, learner, console, interrupt)
    assert files_below(cache) == set()
    assert warm_started_model(learner.run, warm_start, learner, console, interrupt) == str(cache / "warm")
    assert (cache / "warm").is_dir()


def test_an_export_keeps_the_model_of_before(tmp_path) -> None:
    learner, final = Teaching(load("countdown-tiny")), tmp_path / "final"
    export_whole(learner, final, 1)
    (final / "of").write_text("before")
    with full_disk(500), pytest.raises(ModelFolderError, match=r"final: File too large.*exports the last checkpoint"):
        export_whole(learner, final, 2)
    assert files_below(tmp_path) == {
        f"final{name}" for name in ("", "/of", "/step", "/config.json", "/model.safetensors")
    }
    assert not has_model_of(final, 2) and has_model_of(final, 1) and not has_model_of(tmp_path / "none", 1)
    export_whole(learner, final, 2)
    assert has_model_of(final, 2)


@pytest.mark.parametrize(
    ("limit", "refused", "left"),
    [(0, "run directory", set()), (600, "checkpoint of step 2", {1, 2}), (900, "model to .*final", {1, 2})],
)
def test_a_supervised_run_can_go_on_from_wherever_the_disk_was_full(tmp_path, limit, refused, left) -> None:
    config = load(
        "countdown-tiny", [f"runs_dir={tmp_path}", "name=one", "warm_start.num_steps=2", "checkpoint.every_steps=2"]
    )
    command = SupervisedCommand(config, Console(quiet=True))
    directory = RunDirectory(config).open()
    inputs = SupervisedInputs("base", Examples())
    with full_disk(limit), pytest.raises(RuntimeError, match=f"cannot write the {refused}.*File too large.*start the"):
        command._persist(Teaching(config), inputs, FileTracker(directory, config), Interrupt(Console(quiet=True)))
    assert {line["step"] for line in directory.metrics()} == left
    assert not [name for name in files_below(directory.path) if name.endswith(".tmp")]
    directory.truncate_after(latest.step if (latest := command.checkpoints.verify_latest()) else -1)
    tracker = FileTracker(directory, config)
    assert command._persist(Teaching(config), inputs, tracker, Interrupt(Console(quiet=True))) == 2
    assert [line["step"] for line in directory.metrics()] == [1, 2] and directory.final.is_dir()
