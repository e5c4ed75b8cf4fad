"""The recorder beside the loop: in order, never far behind, done before a checkpoint is sealed, missed at once."""

import logging
import os
import signal
import time

import numpy as np
import pytest

from learner.logprob_record import LogprobRecord
from orchestrator.cluster.calls import ready_of
from orchestrator.config.recipe import load
from orchestrator.records.checkpoints import Checkpoints
from orchestrator.records.recorder import MAX_BEHIND, RecorderLostError
from orchestrator.records.run_directory import RunDirectory, RunDirectoryError, read_records
from orchestrator.records.trackers.base import LearnedGroup
from orchestrator.records.trackers.files import FileTracker
from rewards.workers.pool import stored
from tests.support.groups import scored_group
from tests.support.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_here")]
BUSY_S = 1.5


@pytest.fixture
def directory(tmp_path) -> RunDirectory:
    return RunDirectory(load("countdown-tiny", [f"runs_dir={tmp_path}", f"name=recorded-{tmp_path.name}"])).open()


@pytest.fixture
def tracker(directory):
    tracker = FileTracker(directory, directory._config)
    yield tracker
    tracker.close()


def log(tracker, step: int) -> float:
    """Log a step, and return the seconds that the caller waited."""
    begin = time.monotonic()
    tracker.log(step, {"reward/total": 1.0}, [learned_group(step)])
    return time.monotonic() - begin


def learned_group(step: int) -> LearnedGroup:
    """Two completions of three tokens; the learner did not compute the second."""
    gaps, changes = (np.array([*known, *[np.nan] * 3], np.float16) for known in ([0, 0.25, -0.5], [0.125, 0, -2]))
    return LearnedGroup(stored(scored_group(f"p{step}", [True, False])), [0.7, -0.7], LogprobRecord(gaps, changes))


def keep_busy(tracker) -> None:
    tracker._recorder.actor.__ray_call__.remote(lambda self, seconds: time.sleep(seconds), BUSY_S)


def steps_written(directory) -> list[int]:
    files = sorted(directory.rollouts.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    return [int(file.name[5:11]) for file in files]


def test_the_loop_waits_only_for_a_recorder_that_is_far_behind_and_a_flush_for_all_of_it(tracker, directory) -> None:
    log(tracker, 1)
    tracker.flush()
    assert steps_written(directory) == [1]
    keep_busy(tracker)
    waited = [log(tracker, 2 + index) for index in range(MAX_BEHIND + 1)]
    assert max(waited[:MAX_BEHIND]) < BUSY_S / 3 < waited[MAX_BEHIND]
    tracker.flush()
    assert steps_written(directory) == [1, 2, 3, 4]
    first, second = read_records(directory.rollouts_file(4))
    assert [first["advantage"], second["advantage"]] == [0.7, -0.7]
    assert (first["logprob_gaps"], first["logprob_changes"]) == ([0, 0.25, -0.5], [0.125, 0, -2])
    assert not second.keys() & {"logprob_gaps", "logprob_changes"}
    assert [line["step"] for line in directory.metrics()] == [1, 2, 3, 4]


def test_a_checkpoint_is_sealed_once_its_rollouts_are_written(tracker, directory) -> None:
    log(tracker, 1)
    keep_busy(tracker)
    log(tracker, 2)
    Checkpoints(directory.checkpoints, keep=1).save(2, Saved(), {}, tracker.flush)
    (manifest,) = directory.checkpoints.glob("*/manifest.json")
    written = directory.rollouts / "step_000002.jsonl.zst"
    assert written.stat().st_mtime_ns < manifest.stat().st_mtime_ns


def test_a_recorder_that_dies_stops_the_run_by_name_and_no_checkpoint_is_sealed(tracker, directory) -> None:
    log(tracker, 1)
    tracker.flush()
    tracker._recorder.actor.__ray_call__.remote(lambda self: os.kill(os.getpid(), signal.SIGKILL))
    log(tracker, 2)
    said = r"rollouts of step 2 are not written: the recorder died.*the same command again to resume"
    with pytest.raises(RecorderLostError, match=said):
        Checkpoints(directory.checkpoints, keep=1).save(2, Saved(), {}, tracker.flush)
    assert not [*directory.checkpoints.iterdir()] and steps_written(directory) == [1]


def test_a_recorder_that_died_is_missed_at_the_next_step(tracker) -> None:
    log(tracker, 1)
    tracker.flush()
    tracker._recorder.actor.__ray_call__.remote(lambda self: os.kill(os.getpid(), signal.SIGKILL))
    log(tracker, 2)
    time.sleep(BUSY_S)
    with pytest.raises(RecorderLostError, match="the recorder died"):
        log(tracker, 3)


def test_a_disk_that_refuses_rollouts_says_so_as_it_does_of_all_else(tracker, directory, caplog) -> None:
    directory.rollouts.rmdir()
    log(tracker, 1)
    with pytest.raises(RunDirectoryError, match=r"cannot write the run directory.*it resumes from the last checkpoint"):
        tracker.flush()
    log(tracker, 2)
    with caplog.at_level(logging.WARNING):
        tracker.close()
    assert "cannot write the run directory" in caplog.text, "a run that ends with an error of its own still tells"


def test_the_report_is_written_while_the_run_goes_on_and_neither_before_nor_at_its_end(tracker, directory) -> None:
    evaluation, report = {"eval/reward": 0.5, "eval/completion_tokens": 9.0}, directory.path / "report.html"
    for step in (0, 10, 1):
        assert not report.exists()
        tracker.log(step, evaluation)
        assert wait_until(lambda: ready_of([tracker._recorder._drawing], 0.0))
    assert wait_until(report.exists)


def test_the_curve_is_drawn_after_each_evaluation_and_what_keeps_it_from_there_ends_nothing(
    tracker, directory, caplog
) -> None:
    evaluation = {"eval/reward": 0.5, "eval/completion_tokens": 9.0}
    log(tracker, 1)
    tracker.flush()
    assert not directory.curve.exists()
    tracker.log(2, evaluation)
    assert wait_until(directory.curve.exists)
    drawn = directory.curve.read_bytes()
    tracker.log(3, evaluation | {"reward/total": 0.2})
    assert wait_until(lambda: directory.curve.read_bytes() != drawn)
    directory.curve.unlink()
    directory.curve.mkdir()
    for step in (4, 5):
        tracker.log(step, evaluation)
        assert wait_until(lambda: ready_of([tracker._recorder._drawing], 0.0))
    log(tracker, 6)
    tracker.flush()
    assert "curve.png cannot be drawn" in caplog.text
    assert [line["step"] for line in directory.metrics()] == [1, 2, 3, 4, 5, 6] and steps_written(directory) == [1, 6]


class Saved:
    def save(self, folder):
        folder.mkdir()
        return {}
