"""What a command says of a run that is complete, that was asked for fewer steps, or whose weights broke."""

import json
import os
import signal
from contextlib import contextmanager, nullcontext
from io import StringIO
from pathlib import Path
from typing import Self

import pytest
from rich.console import Console

from learner.backend.file_digests import file_digest
from learner.parity import NonFiniteError
from orchestrator import command
from orchestrator.command import Command, Ending
from orchestrator.config.recipe import load
from orchestrator.records.origin.fingerprints import BASE, Fingerprints, read_summary
from orchestrator.records.run_directory import RunDirectoryError
from orchestrator.run import TrainCommand
from tests.support.run_directories import data_of


class FakeCommand(Command[None]):
    """Saves a checkpoint of its last step and exports, unless it is told to break before."""

    name, steps_key = "train", "num_steps"
    breaks = False
    base = "2:a"

    @property
    def num_steps(self) -> int:
        return self.config.num_steps

    def plan(self):
        return []

    def how_to_continue(self):
        return "go on."

    def prepare(self, latest):
        self.check_fingerprints(Fingerprints(models={BASE: {"config.json": self.base}}), latest)

    def report(self, seconds):
        pass

    def train(self, inputs, latest, interrupt):
        if self.breaks:
            raise NonFiniteError("step 7: logprobs are not finite")
        if latest is None or latest.step < self.num_steps:
            self.checkpoints.save(self.num_steps, self, {})
        self.directory.final.mkdir(exist_ok=True)
        (self.directory.final / "step").write_text(str(self.num_steps))
        os.utime(self.directory.final)
        return Ending.COMPLETE

    def save(self, folder: Path):
        folder.mkdir()
        (folder / "weights").write_text("1")
        return {"weights": file_digest(folder / "weights")}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch) -> None:
    monkeypatch.setattr(command, "ray_cluster", lambda **_: nullcontext())


def of(tmp_path: Path, num_steps: int) -> FakeCommand:
    return FakeCommand(load("countdown-tiny", overrides(tmp_path, num_steps)), Console(width=200))


def overrides(tmp_path: Path, num_steps: int) -> list[str]:
    return [f"runs_dir={tmp_path}", "name=run", f"num_steps={num_steps}"]


def test_fewer_steps_than_were_done_are_refused_where_their_model_is_not(tmp_path: Path, capsys) -> None:
    first = of(tmp_path, 3)
    assert first.run() is Ending.COMPLETE
    final = first.directory.final
    assert of(tmp_path, 2).run() is Ending.COMPLETE and "is complete at step 3" in capsys.readouterr().out
    (final / "step").unlink()
    final.rmdir()
    expected = (
        r"^num_steps = 2 is below step 3 of the last checkpoint of the run 'run', .*step_000003: "
        r"set num_steps=3 to export the model of that step, or more to train on"
    )
    with pytest.raises(RunDirectoryError, match=expected):
        of(tmp_path, 2).run()
    assert of(tmp_path, 3).run() is Ending.COMPLETE
    assert (final / "step").read_text() == "3"


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_model_of_fewer_steps_than_were_done_since_is_exported_anew(tmp_path: Path, is_noted: bool) -> None:
    """The run was made longer, and left before its new end: final/ is still the model of the old one.

    In a copy of the run's folder it may be the newer one. Earlier versions did not note its step.
    """
    assert of(tmp_path, 3).run() is Ending.COMPLETE
    longer = of(tmp_path, 8)
    longer.checkpoints.save(5, longer, {})
    copied = longer.checkpoints.latest().folder.stat().st_mtime + (60 if is_noted else -60)
    if not is_noted:
        (longer.directory.final / "step").unlink()
    os.utime(longer.directory.final, (copied, copied))
    with pytest.raises(RunDirectoryError, match="num_steps = 4 is below step 5"):
        of(tmp_path, 4).run()
    assert of(tmp_path, 5).run() is Ending.COMPLETE
    assert (longer.directory.final / "step").read_text() == "5"


def test_a_warmup_that_is_longer_than_the_run_is_warned_of(tmp_path: Path, capsys) -> None:
    for num_steps, is_said in ((2, True), (3, False)):
        assert of(tmp_path / str(num_steps), num_steps).run() is Ending.COMPLETE
        said = "learner.warmup_steps = 3 is more than the 2 optimizer steps of the run: the learning rate ends at 67%"
        assert (said in capsys.readouterr().err) is is_said
        assert (said in (tmp_path / str(num_steps) / "run" / "log.txt").read_text()) is is_said


def test_weights_that_broke_are_said_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    broken = of(tmp_path, 8)
    broken.breaks = True
    with pytest.raises(NonFiniteError, match=r"^step 7: logprobs are not finite\. There is no checkpoint of before"):
        broken.run()
    broken.checkpoints.save(5, broken, {})
    with pytest.raises(NonFiniteError, match=r"The last good checkpoint is that of step 5, .*step_000005$"):
        broken.run()


def test_what_a_run_was_started_with_stands_in_its_directory_and_its_checkpoints(tmp_path: Path, capsys) -> None:
    first = of(tmp_path, 3)
    first.run()
    assert read_summary(first.directory.path) == dict(first.checkpoints.latest().fingerprints)
    longer = of(tmp_path, 4)
    longer.base = "2:b"
    with pytest.raises(RunDirectoryError, match=r"the base model has changed: config\.json"):
        longer.run()
    assert read_summary(first.directory.path)["models"] == {BASE: {"config.json": "2:a"}}
    assert json.loads((first.directory.path / "config.json").read_text())["num_steps"] == 3
    told = FakeCommand(
        load("countdown-tiny", [*overrides(tmp_path, 4), "checkpoint.allow_changes=true"]), Console(width=200)
    )
    told.base = "2:b"
    assert told.run() is Ending.COMPLETE and "the base model has changed" in capsys.readouterr().err
    assert "the base model has changed: config.json" in (told.directory.path / "log.txt").read_text()
    assert read_summary(first.directory.path)["models"] == {BASE: {"config.json": "2:b"}}


def test_trackers_follow_from_the_step_that_is_resumed_until_the_report_is_there(tmp_path: Path, monkeypatch) -> None:
    events: list[object] = []

    @contextmanager
    def followed(names, run, after, say):
        events.append((names, run, after))
        yield
        events.append("told")

    monkeypatch.setattr(command, "trackers_beside", followed)
    monkeypatch.setattr(FakeCommand, "report", lambda self, seconds: events.append("reported"))
    for num_steps in (3, 5):
        of(tmp_path, num_steps).run()
    run = tmp_path / "run"
    assert events == [((), run, -1), "reported", "told", ((), run, 3), "reported", "told"]


class Stopped(TrainCommand):
    """A run that its recipe stopped after the third of ten steps."""

    def prepare(self, latest):
        raise AssertionError("it goes on")

    @classmethod
    def of(cls, folder: Path, *overrides: str) -> Self:
        config = load(
            "countdown-tiny", [f"runs_dir={folder}", "name=mine", "num_steps=10", "health.stop_after=2", *overrides]
        )
        return cls(config, Console(width=200))


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    run = Stopped.of(tmp_path)
    run.directory.open()
    for step in range(1, 4):
        run.directory.log_metrics(step, {"reward/total": 0.0, "rollout/groups_without_spread": float(step > 1)})
    run.checkpoints.save(3, FakeCommand(run.config, run.console), {})
    run.directory.final.mkdir()
    return tmp_path


def test_a_run_that_was_stopped_as_hopeless_says_so_again_and_does_not_go_on(stopped, capsys) -> None:
    assert Stopped.of(stopped).run() is Ending.HOPELESS
    printed = capsys.readouterr().out
    assert "run 'mine' was stopped after step 3 of 10: 2 steps in a row taught nothing" in printed
    assert "set health.stop_after = 0" in printed and "name=mine-2" in printed


@pytest.mark.parametrize("override", ["health.stop_after=0", "health.stop_after=3"])
def test_it_goes_on_when_the_recipe_no_longer_stops_it(stopped, override: str) -> None:
    with pytest.raises(AssertionError, match="it goes on"):
        Stopped.of(stopped, override).run()


def test_good_news_does_not_look_like_a_warning(tmp_path: Path) -> None:
    console = Console(record=True, force_terminal=True, color_system="standard", width=60, file=StringIO())
    said = TrainCommand(load("countdown-tiny", [f"runs_dir={tmp_path}"]), console)
    said.warn("bad")
    said.praise("good")
    assert console.export_text(styles=True).splitlines() == ["\x1b[33mbad\x1b[0m", "\x1b[32mgood\x1b[0m"]


class Left(TrainCommand):
    """A run that does three of ten steps a command, and then is left, or fails."""

    error: Exception | None = None
    steps = 3

    def prepare(self, latest):
        return None

    def train(self, inputs, latest, interrupt):
        done = latest.step if latest else 0
        for step in range(done + 1, done + 1 + self.steps):
            self.directory.log_metrics(step, {"reward/total": 0.1 * step, "rollout/completion_tokens": 9.0})
        if self.error is not None:
            raise self.error
        self.checkpoints.save(done + self.steps, FakeCommand(self.config, self.console), {})
        return Ending.INTERRUPTED


def left(folder: Path, error: Exception | None = None, steps: int = 3) -> Left:
    made = Left(load("countdown-tiny", overrides(folder, 10)), Console(width=200))
    made.error, made.steps = error, steps
    return made


def test_a_run_that_is_left_writes_a_report_of_every_step_it_did(tmp_path: Path, capsys) -> None:
    for done in (3, 6):
        assert left(tmp_path).run() is Ending.INTERRUPTED
        said = capsys.readouterr().out
        assert said.index("writing report.html") < said.index("left cleanly")
        (found,) = data_of(tmp_path / "run" / "report.html")["runs"]
        assert (found["summary"]["steps"], found["summary"]["state"]) == ([done, 10], "ended early")
    assert (tmp_path / "run" / "curve.png").stat().st_size > 10_000


def test_a_run_that_fails_writes_a_report_of_what_it_did_if_anything(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        left(tmp_path, ZeroDivisionError(), steps=0).run()
    assert not (tmp_path / "run" / "report.html").exists()
    with pytest.raises(ZeroDivisionError):
        left(tmp_path, ZeroDivisionError()).run()
    assert data_of(tmp_path / "run" / "report.html")["runs"][0]["summary"]["steps"] == [3, 10]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_without_the_report(number: signal.Signals, tmp_path: Path, monkeypatch, capsys) -> None:
    def long(run: Path) -> None:
        os.kill(os.getpid(), number)
        raise AssertionError("it is still being written")

    monkeypatch.setattr(command, "write_last_report", long)
    assert left(tmp_path).run() is Ending.INTERRUPTED
    assert "left cleanly" in capsys.readouterr().out
