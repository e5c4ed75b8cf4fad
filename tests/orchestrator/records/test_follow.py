"""Telling a tracker of a run from its files: each step once, over resumes, whatever the tracker can take back."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.records.run_files import RunFiles
from orchestrator.records.trackers.external import ExternalTracker
from orchestrator.records.trackers.follow import Follower
from tests.support.run_files import WrittenRun, row


class KeepsAll(ExternalTracker):
    """Keeps what it is told, and takes nothing back."""

    def __init__(self) -> None:
        self.is_empty = True
        self.steps: list[tuple[int, float]] = []
        self.tables: list[tuple[int, str]] = []
        self.curves: list[int] = []
        self.report = ""
        self.fails_at = -1

    def log(self, step, metrics, groups=(), held_out=()):
        assert step != self.fails_at and "step" not in metrics
        self.is_empty = False
        self.steps.append((step, metrics["reward/total"]))

    def log_completions(self, step, rows):
        self.tables.append((step, rows[0][1]))

    def log_curve(self, step, file):
        self.curves.append(step)

    def log_report(self, file):
        self.report = file.read_text()

    def close(self):
        pass


class TakesBack(KeepsAll):
    """Forgets a step and those after it."""

    def rewind(self, step):
        self.steps = [pair for pair in self.steps if pair[0] < step]
        self.tables = [pair for pair in self.tables if pair[0] < step]
        return step


class BeginsAnew(KeepsAll):
    """Forgets all where a step is done again."""

    def rewind(self, step):
        self.steps, self.tables = [], []
        return 0


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    run = WrittenRun(tmp_path / "one")
    (run.path / "trackers").mkdir()
    return run


@pytest.fixture
def follower(run: WrittenRun) -> Callable[..., Follower]:
    def begin(tracker: ExternalTracker, after: int = -1) -> Follower:
        return Follower(RunFiles(run.path), tracker, run.path / "trackers" / "x.json", after)

    return begin


def again(step: int, value: float) -> dict[str, float]:
    return row(step) | {"reward/total": value}


@pytest.mark.parametrize(("kind", "third"), [(KeepsAll, 0.3), (TakesBack, 0.9), (BeginsAnew, 0.9)])
def test_a_step_that_is_done_again_is_there_once(run: WrittenRun, follower, kind, third: float) -> None:
    tracker = kind()
    first = follower(tracker)
    run.log(row(1), row(2), row(3))
    run.write_rollouts(2, "second", folder="held_out")
    run.write_rollouts(3, "third", folder="held_out")
    first.send()
    run.cut(2)  # within one command
    run.log(again(3, 0.9), row(4))
    first.send()
    assert tracker.steps == [(1, 0.1), (2, 0.2), (3, third), (4, 0.4)]
    run.cut(2)  # and by another
    second = follower(tracker, after=2)
    run.log(again(3, 0.9), row(4))
    second.send()
    run.log(row(5))
    second.close()
    assert tracker.steps == [(1, 0.1), (2, 0.2), (3, third), (4, 0.4), (5, 0.5)]
    assert tracker.tables == [(2, "second"), (3, "third")]


def test_what_a_tracker_has_missed_the_next_command_tells(run: WrittenRun, follower) -> None:
    tracker = KeepsAll()
    tracker.fails_at = 3
    run.log(row(1), row(2))
    first = follower(tracker)
    first.send()
    run.log(row(3), row(4))
    with pytest.raises(AssertionError):
        first.send()
    tracker.fails_at = -1
    follower(tracker, after=4).close()
    assert [step for step, _ in tracker.steps] == [1, 2, 3, 4]


def test_one_that_was_switched_on_late_or_begins_anew_is_told_of_the_whole_run(run: WrittenRun, follower) -> None:
    run.log(row(1), row(2))
    run.write_rollouts(1, "first", folder="held_out")
    (run.path / "curve.png").write_text("a curve")
    for tracker in (KeepsAll(), KeepsAll()):
        follower(tracker, after=2).close()
        assert [step for step, _ in tracker.steps] == [1, 2]
        assert tracker.tables == [(1, "first")] and tracker.curves == [2]


def test_nothing_of_before_is_told_again(run: WrittenRun, follower) -> None:
    tracker = KeepsAll()
    run.log(row(1))
    run.write_rollouts(1, "first", folder="held_out")
    (run.path / "curve.png").write_text("a curve")
    (run.path / "report.html").write_text("the report")
    follower(tracker).close()
    follower(tracker, after=1).close()
    assert len(tracker.steps) == len(tracker.tables) == len(tracker.curves) == 1
    assert tracker.report == "the report"


def test_a_run_of_before_this_version_is_taken_as_told(run: WrittenRun, follower) -> None:
    tracker = KeepsAll()
    tracker.is_empty = False
    run.log(row(1), row(2))
    follower(tracker, after=2).close()
    assert not tracker.steps


def test_completions_that_cannot_be_read_are_left_out(run: WrittenRun, follower, capsys) -> None:
    tracker = KeepsAll()
    run.log(row(1), row(2))
    run.write_rollouts(1, "first", folder="held_out")
    (run.path / "held_out" / "step_000002.jsonl.zst").write_bytes(b"torn")
    (run.path / "held_out" / "step_mine.jsonl.zst").write_bytes(b"a person's")
    follower(tracker).close()
    assert tracker.tables == [(1, "first")] and "step_000002.jsonl.zst cannot be read" in capsys.readouterr().out
