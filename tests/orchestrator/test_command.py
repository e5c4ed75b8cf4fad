"""What a command says of a run that is complete, that was asked for fewer steps, or whose weights broke."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from learner.backend.file_digests import file_digest
from learner.parity import NonFiniteError
from orchestrator import command
from orchestrator.command import Command
from orchestrator.config.recipe import load
from orchestrator.records.run_directory import RunDirectoryError


class FakeCommand(Command[None]):
    """Saves a checkpoint of its last step and exports, unless it is told to break before."""

    name, steps_key = "train", "num_steps"
    breaks = False

    @property
    def num_steps(self) -> int:
        return self.config.num_steps

    def plan(self):
        return []

    def how_to_go_on(self):
        return "go on."

    def prepare(self):
        return None

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
        return True

    def save(self, folder: Path):
        folder.mkdir()
        (folder / "weights").write_text("1")
        return {"weights": file_digest(folder / "weights")}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch) -> None:
    monkeypatch.setattr(command, "ray_cluster", lambda **_: nullcontext())


def of(tmp_path: Path, num_steps: int) -> FakeCommand:
    return FakeCommand(load(None, [f"runs_dir={tmp_path}", "name=run", f"num_steps={num_steps}"]), Console(width=200))


def test_fewer_steps_than_were_done_are_refused_where_their_model_is_not(tmp_path: Path, capsys) -> None:
    first = of(tmp_path, 3)
    assert first.run()
    final = first.directory.final
    assert of(tmp_path, 2).run() and "is complete at step 3" in capsys.readouterr().out
    (final / "step").unlink()
    final.rmdir()
    expected = (
        r"^num_steps = 2 is below step 3 of the last checkpoint of the run 'run', .*step_000003: "
        r"set num_steps=3 to export the model of that step, or more to train on"
    )
    with pytest.raises(RunDirectoryError, match=expected):
        of(tmp_path, 2).run()
    assert of(tmp_path, 3).run()
    assert (final / "step").read_text() == "3"


def test_a_model_of_fewer_steps_than_were_done_since_is_exported_anew(tmp_path: Path) -> None:
    """The run was made longer, and left before its new end: final/ is still the model of the old one."""
    assert of(tmp_path, 3).run()
    longer = of(tmp_path, 8)
    longer.checkpoints.save(5, longer, {})
    old = longer.checkpoints.latest().folder.stat().st_mtime - 60
    os.utime(longer.directory.final, (old, old))
    with pytest.raises(RunDirectoryError, match="num_steps = 4 is below step 5"):
        of(tmp_path, 4).run()
    assert of(tmp_path, 5).run()
    assert (longer.directory.final / "step").read_text() == "5"


def test_weights_that_broke_are_said_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    broken = of(tmp_path, 8)
    broken.breaks = True
    with pytest.raises(NonFiniteError, match=r"^step 7: logprobs are not finite\. There is no checkpoint of before"):
        broken.run()
    broken.checkpoints.save(5, broken, {})
    with pytest.raises(NonFiniteError, match=r"The last good checkpoint is that of step 5, .*step_000005$"):
        broken.run()
