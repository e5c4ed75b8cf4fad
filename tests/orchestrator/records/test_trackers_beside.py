"""Processes that tell other programs of a run: whatever becomes of them, the run neither stops nor waits."""

import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from orchestrator.config.recipe import ConfigError, load
from orchestrator.records.trackers import beside, build
from orchestrator.records.trackers.beside import trackers_beside
from orchestrator.records.trackers.build import PACKAGES, check_trackers
from tests.support.paths import ROOT
from tests.support.processes import wait_until
from tests.support.run_files import WrittenRun, row

RECORDS = """
import os, pathlib

class SummaryWriter:
    def __init__(self, folder, purge_step=None, filename_suffix=""):
        {begin}
        pathlib.Path(folder).mkdir(exist_ok=True)
        self.file = pathlib.Path(folder, "told").open("a", buffering=1)
        self.file_writer = self

    def add_text(self, tag, text, step):
        self.file.write(f"text {{tag}} {{step}}\\n")

    def add_scalar(self, key, value, step):
        {log}
        if key == "reward/total":
            self.file.write(f"{{step}}\\n")

    def flush(self):
        pass

    def close(self):
        {end}
        self.file.write("closed\\n")
        self.file.close()
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> WrittenRun:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")
    return WrittenRun(tmp_path / "one")


def program(tmp_path: Path, begin: str = "pass", log: str = "pass", end: str = "pass") -> None:
    """Install a stand-in for TensorBoard's writer that does these."""
    (tmp_path / "tensorboardX.py").write_text(RECORDS.format(begin=begin, log=log, end=end))


def told(run: WrittenRun) -> list[str]:
    file = run.path / "tensorboard" / "told"
    return file.read_text().splitlines() if file.exists() else []


def test_it_follows_while_the_run_goes_on_and_tells_the_rest_at_the_end(run: WrittenRun, tmp_path: Path) -> None:
    program(tmp_path)
    said: list[str] = []
    with trackers_beside(["tensorboard"], run.path, -1, said.append):
        run.log(row(1))
        assert wait_until(lambda: "1" in told(run))
        run.log(row(2))
        (run.path / "report.html").write_text("the report")
    assert told(run) == ["text settings 0", "1", "2", "text report 2", "closed"] and not said


def test_one_that_fails_after_its_folder_was_removed_is_said_too(run: WrittenRun, tmp_path: Path) -> None:
    program(tmp_path)
    said: list[str] = []
    with trackers_beside(["tensorboard"], run.path, -1, said.append):
        run.log(row(1))
        assert wait_until(lambda: "1" in told(run))
        shutil.rmtree(run.path)
        run.path.write_text("no folder any more")
    assert len(said) == 1 and "tensorboard gets no more data of the run (" in said[0]


def test_one_that_fails_is_said_at_once_and_once(run: WrittenRun, tmp_path: Path, caplog) -> None:
    program(tmp_path, begin="raise RuntimeError('the server said no')")
    said: list[str] = []
    with trackers_beside(["tensorboard"], run.path, -1, said.append):
        run.log(row(1))
        assert wait_until(lambda: said)
        begin = time.monotonic()
    assert time.monotonic() - begin < 30.0
    (sentence,) = said
    assert (
        "tensorboard gets no more data of the run (RuntimeError: the server said no). The run is not affected"
        in sentence
    )
    assert "metrics.jsonl has every step" in sentence and sentence in caplog.text


@pytest.mark.parametrize("where", ["log", "end"])
def test_one_that_hangs_is_left_to_itself(run: WrittenRun, tmp_path: Path, monkeypatch, where: str) -> None:
    monkeypatch.setattr(beside, "END_S", 1.5)
    program(tmp_path, **{where: f"pathlib.Path({str(tmp_path / 'hangs')!r}).touch(); __import__('time').sleep(40)"})
    said: list[str] = []
    with trackers_beside(["tensorboard"], run.path, -1, said.append):
        run.log(row(1))
        assert wait_until((tmp_path / "hangs").exists if where != "end" else lambda: "1" in told(run))
        begin = time.monotonic()
    assert 1.4 < time.monotonic() - begin < 30.0
    assert len(said) == 1 and "has not taken the rest of the data within 1.5 s" in said[0]


def test_an_error_of_the_run_does_not_wait_for_it_and_the_rest_is_told_all_the_same(run, tmp_path: Path) -> None:
    program(tmp_path)
    run.log(row(1))
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), trackers_beside(["tensorboard"], run.path, -1, print):
        raise KeyboardInterrupt
    assert time.monotonic() - begin < 30.0
    assert wait_until(lambda: told(run)[-1:] == ["closed"])
    assert "1" in told(run)


def test_it_outlives_a_run_that_is_killed_to_tell_the_rest(run: WrittenRun, tmp_path: Path) -> None:
    program(tmp_path)
    script = (
        "import os, pathlib, sys, time\n"
        "from orchestrator.records.trackers.beside import trackers_beside\n"
        "with trackers_beside(['tensorboard'], pathlib.Path(sys.argv[1]), -1, print):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    run.log(row(1))
    assert subprocess.run([sys.executable, "-c", script, str(run.path)], check=False).returncode == -9
    assert wait_until(lambda: told(run)[-1:] == ["closed"])
    assert "1" in told(run)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_program_that_is_not_installed_is_named_with_its_extra_before_anything_starts(name: str, monkeypatch) -> None:
    monkeypatch.setattr(build, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"tracking.to names '{name}'.*pip install 'rayzero\[{name}\]'"):
        check_trackers(load("countdown-tiny", [f'tracking.to=["{name}"]']))
    assert name in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    check_trackers(load("countdown-tiny"))


def test_the_older_key_of_wandb_means_the_same() -> None:
    assert load("countdown-tiny", ["tracking.wandb=true", 'tracking.to=["mlflow","wandb"]']).tracking.programs == (
        "mlflow",
        "wandb",
    )
    assert load("countdown-tiny", ["tracking.wandb=true"]).tracking.programs == ("wandb",)
    with pytest.raises(ConfigError, match=r"tracking\.to"):
        load("countdown-tiny", ['tracking.to=["comet"]'])
