"""Checkpoints: whole or not at all, and never a torn one."""

import json
import shutil
from pathlib import Path

import pytest

from learner.backend.file_digests import file_digest
from orchestrator.records import checkpoints as module
from orchestrator.records.checkpoints import FORMAT, MANIFEST, CheckpointError, Checkpoints, step_of
from tests.support.full_disk import files_below, full_disk
from tests.support.paths import ROOT


class FileLearner:
    """Saves a file that holds a number."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def save(self, folder: Path) -> dict[str, str]:
        folder.mkdir()
        (folder / "weights.bin").write_text(str(self.value) * 1000)
        return {"weights.bin": file_digest(folder / "weights.bin")}

    def load(self, folder: Path) -> None:
        self.value = int((folder / "weights.bin").read_text()[0])


class OnAnotherNode(FileLearner):
    """Its files are not to be seen here."""

    def save(self, folder: Path) -> dict[str, str]:
        folder.mkdir()
        return {"weights.bin": "1000:0"}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return Checkpoints(folder, keep=2)


def test_a_fresh_run_has_none(checkpoints) -> None:
    assert checkpoints.latest() is None


def test_the_newest_comes_back_with_its_state_and_old_ones_go(checkpoints, tmp_path) -> None:
    for step in (2, 4, 6):
        checkpoints.save(step, FileLearner(step), {"position": 8 * step})
    latest = checkpoints.latest()
    learner = FileLearner()
    learner.load(latest.learner_folder)
    assert (latest.step, latest.prompts, learner.value) == (6, {"position": 48}, 6)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_000004", "step_000006"]


def test_retention_leaves_what_a_person_put_there(checkpoints, tmp_path) -> None:
    folder = tmp_path / "checkpoints"
    checkpoints.save(1, FileLearner(1), {})
    own = ("step_000001_best", "step_000001.keep", "step_best", "step_1", "step_000000")
    for name in own[:2]:
        shutil.copytree(folder / "step_000001", folder / name)
    for name in own[2:]:
        (folder / name).mkdir()
    (folder / "step_000002").symlink_to(folder / "step_best")
    (folder / "step_000003").write_text("a note")
    for step in (4, 5, 6):
        checkpoints.save(step, FileLearner(step), {})
    kept = {path.name for path in folder.iterdir()}
    assert kept == {*own, "step_000002", "step_000003", "step_000005", "step_000006"}
    assert checkpoints.verify_latest().step == 6


def test_a_million_steps_are_more_than_one_less(checkpoints) -> None:
    for step in (999_998, 999_999, 1_000_000):
        checkpoints.save(step, FileLearner(1), {})
    assert checkpoints.latest().step == 1_000_000
    assert [step_of(folder) for folder in checkpoints._all()] == [999_999, 1_000_000]


def test_what_was_saved_on_another_node_is_not_sealed(checkpoints, monkeypatch) -> None:
    """A resume would only then find that nothing is there."""
    monkeypatch.setattr("orchestrator.records.checkpoints.VISIBLE_S", 0.3)
    checkpoints.save(1, FileLearner(1), {})
    with pytest.raises(CheckpointError, match="Set runs_dir to a folder that all nodes share"):
        checkpoints.save(2, OnAnotherNode(), {})
    assert checkpoints.latest().step == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(checkpoints, damage, caplog) -> None:
    checkpoints.save(1, FileLearner(1), {})
    checkpoints.save(2, FileLearner(2), {})
    folder = checkpoints.latest().folder
    weights = folder / "learner" / "weights.bin"
    match damage:
        case "flip":
            weights.write_text(weights.read_text().replace("2", "3", 1))
        case "truncate":
            weights.write_text(weights.read_text()[:500])
        case "remove":
            weights.unlink()
        case "manifest":
            (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:40])
        case "no manifest":
            (folder / MANIFEST).unlink()
    assert checkpoints.verify_latest().step == 1
    assert "step_000002 is damaged" in caplog.text
    assert checkpoints.latest().step == 1


def test_a_later_one_that_is_damaged_does_not_push_out_what_is_saved_now(checkpoints, tmp_path) -> None:
    checkpoints.save(10, FileLearner(10), {})
    checkpoints.save(20, FileLearner(20), {})
    (checkpoints.latest().folder / "learner" / "weights.bin").unlink()
    resumed = Checkpoints(tmp_path / "checkpoints", keep=1)
    assert resumed.latest().step == 10
    resumed.save(13, FileLearner(13), {})
    assert resumed.latest().step == 13


def test_when_every_checkpoint_is_damaged_the_run_does_not_silently_start_over(checkpoints) -> None:
    checkpoints.save(1, FileLearner(1), {})
    (checkpoints.latest().learner_folder / "weights.bin").unlink()
    with pytest.raises(CheckpointError, match=r"every checkpoint .* is damaged .*weights\.bin is missing.*backup"):
        checkpoints.latest()


def test_one_that_was_being_written_when_the_run_was_killed_is_ignored(checkpoints, tmp_path) -> None:
    checkpoints.save(1, FileLearner(1), {})
    aside = tmp_path / "checkpoints" / "step_000002.tmp"
    aside.mkdir()
    (aside / MANIFEST).write_text(json.dumps({"files": {}, "state": {"step": 2, "prompts": {}}}))
    assert checkpoints.latest().step == 1
    checkpoints.save(2, FileLearner(2), {})
    assert checkpoints.latest().step == 2


@pytest.mark.parametrize(("prompts", "limit"), [({}, 0), ({}, 700), ({"position": "9" * 5000}, 2000)])
def test_a_full_disk_keeps_the_earlier_ones_and_says_so(checkpoints, tmp_path, prompts, limit) -> None:
    checkpoints.save(1, FileLearner(1), {})
    before = files_below(tmp_path)
    with full_disk(limit), pytest.raises(CheckpointError, match=r"step 2.*File too large.*Earlier checkpoints are"):
        checkpoints.save(2, FileLearner(2), prompts)
    assert files_below(tmp_path) == before
    assert checkpoints.verify_latest().step == 1
    checkpoints.save(2, FileLearner(2), prompts)
    assert checkpoints.verify_latest().step == 2


def test_what_a_kill_has_torn_makes_room_before_the_next_is_written_but_not_what_a_person_keeps(
    checkpoints, tmp_path
) -> None:
    for name in ("step_000004.tmp", "step_mine.tmp", "notes.tmp"):
        (tmp_path / "checkpoints" / name).mkdir()
    checkpoints.save(9, FileLearner(9), {})
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step_000009", "step_mine.tmp", "notes.tmp"}


@pytest.fixture
def hashed(monkeypatch) -> list[Path]:
    """Return a list that gets each file that the driver reads to hash it."""
    read: list[Path] = []

    def reading(path: Path) -> str:
        read.append(path)
        return file_digest(path)

    monkeypatch.setattr(module, "file_digest", reading)
    return read


def test_a_save_hashes_nothing_on_the_driver_and_a_resume_reads_each_file_once(checkpoints, tmp_path, hashed) -> None:
    for step in (1, 2):
        checkpoints.save(step, FileLearner(step), {})
    assert hashed == []
    resumed = Checkpoints(tmp_path / "checkpoints", keep=2)
    for asked in (resumed.latest, resumed.latest, resumed.verify_latest, resumed.verify_latest, resumed.latest):
        assert asked().step == 2
    assert hashed == [resumed.latest().learner_folder / "weights.bin"]


def test_what_is_saved_again_is_read_again(checkpoints, hashed) -> None:
    checkpoints.save(1, FileLearner(1), {})
    checkpoints.verify_latest()
    checkpoints.save(1, FileLearner(2), {})
    checkpoints.verify_latest()
    assert len(hashed) == 2


def test_one_that_names_no_format_is_read_as_the_first_was(checkpoints) -> None:
    checkpoints.save(3, FileLearner(3), {"position": 24})
    file = checkpoints.latest().folder / MANIFEST
    manifest = json.loads(file.read_text())
    assert manifest["state"].pop("format") == FORMAT
    file.write_text(json.dumps(manifest))
    assert checkpoints.verify_latest().prompts == {"position": 24}


def test_one_of_a_later_version_is_refused_and_no_older_one_taken_instead(checkpoints) -> None:
    for step in (1, 2):
        checkpoints.save(step, FileLearner(step), {})
    file = checkpoints.latest().folder / MANIFEST
    manifest = json.loads(file.read_text())
    manifest["state"]["format"] = FORMAT + 1
    file.write_text(json.dumps(manifest))
    with pytest.raises(
        CheckpointError, match=rf"newer Rayzero \(format {FORMAT + 1}.*resume the run with that version"
    ):
        checkpoints.latest()


def test_one_that_the_version_before_sealed_is_verified(tmp_path) -> None:
    shutil.copytree(ROOT / "tests" / "data" / "run-of-0.1.0" / "checkpoints", tmp_path / "checkpoints")
    checkpoint = Checkpoints(tmp_path / "checkpoints", keep=2).verify_latest()
    assert checkpoint.step == 2 and "format" not in (checkpoint.folder / MANIFEST).read_text()


def test_a_persons_copy_under_another_steps_name_is_neither_loaded_nor_removed(checkpoints, tmp_path, caplog) -> None:
    checkpoints.save(4, FileLearner(4), {})
    folder = tmp_path / "checkpoints"
    copies = [folder / "step_000001", folder / "step_999999"]
    for copy in copies:
        shutil.copytree(folder / "step_000004", copy)
    for step in (6, 8, 10):
        checkpoints.save(step, FileLearner(step), {})
    assert checkpoints.latest().step == checkpoints.verify_latest().step == 10
    assert "it is a copy of the checkpoint of step 4, under another name" in caplog.text
    assert all(copy.is_dir() for copy in copies) and not (folder / "step_000006").exists()
