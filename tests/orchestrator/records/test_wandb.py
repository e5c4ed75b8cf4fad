"""Weights & Biases, the real client, offline: the steps it gets, under which id, and whether it would ask for a key."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import wandb
from rich.console import Console

from orchestrator.config.recipe import load
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers import build
from orchestrator.records.trackers.wandb import WandbError, WandbTracker, check_login
from orchestrator.run import run
from orchestrator.sft import run_supervised
from tests.support.wandb_files import WandbFile, read_wandb


@pytest.fixture(autouse=True)
def _offline(monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def command(folder: Path, name: str, rows: Iterable[tuple[int, float]]) -> RunDirectory:
    """Do what a command does that logs these steps, each with a value."""
    config = load("countdown-tiny", [f"runs_dir={folder}", f"name={name}", "tracking.wandb=true"])
    directory = RunDirectory(config).open()
    tracker, second = WandbTracker(directory, config), int(time.time())
    for step, value in rows:
        directory.log_metrics(step, {"reward/total": value})
        tracker.log(step, {"reward/total": value})
    tracker.close()
    while int(time.time()) == second:  # by which W&B names a command's folder
        time.sleep(0.05)
    return directory


def curve(file: WandbFile) -> list[tuple[int, float]]:
    return [(row["step"], row["reward/total"]) for row in file.rows]


def test_steps_that_are_done_again_come_again_with_their_new_values_under_one_id(tmp_path) -> None:
    first = [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3), (2, 0.25), (3, 0.35)]  # a learner was lost after step 3
    directory = command(tmp_path, "one", first)
    directory.truncate_after(2)
    command(tmp_path, "one", again := [(3, 0.36), (4, 0.46)])
    directory.truncate_after(3)
    command(tmp_path, "one", once_more := [(4, 0.47), (5, 0.57)])
    files = read_wandb(directory.path, num_files=3)
    assert len({file.run_id for file in files}) == 1
    assert all(file.step_metrics["*"] == "step" for file in files)
    assert curve(files[0]) == first
    assert curve(files[1])[-2:] == again
    # Of several files of one id W&B keeps the last: it has each step, as it was done last.
    assert curve(files[2])[-3:] == [again[0], *once_more] and {step for step, _ in curve(files[2])} == {*range(6)}
    for file in files:  # W&B drops a row whose own step is not above the last one's
        own = [row["_step"] for row in file.rows]
        assert own == sorted({*own})


def test_another_run_of_that_name_has_another_id(tmp_path) -> None:
    ids = {read_wandb(command(tmp_path / place, "one", [(1, 0.1)]).path)[0].run_id for place in ("here", "there")}
    assert len(ids) == 2 and "one" not in ids


def test_a_run_of_the_first_version_keeps_its_id_and_one_that_asks_late_tells_of_its_earlier_steps(tmp_path) -> None:
    config = load("countdown-tiny", [f"runs_dir={tmp_path}", "name=old"])
    directory = RunDirectory(config).open()
    directory.log_metrics(1, {"reward/total": 0.1})
    (directory.path / "wandb").mkdir()
    command(tmp_path, "old", [(2, 0.2)])
    command(tmp_path, "old", [(3, 0.3)])
    files = read_wandb(directory.path, num_files=2)
    assert {file.run_id for file in files} == {"old"}
    assert [curve(file) for file in files] == [[(1, 0.1), (2, 0.2)], [(1, 0.1), (2, 0.2), (3, 0.3)]]


KEY = "0123456789abcdef" * 3


@pytest.fixture
def login(tmp_path, monkeypatch) -> Iterator[Callable[..., None]]:
    """Yield `check_login`, in an empty home and with nothing of W&B's in the environment but what it is given."""

    def check(**environment: str) -> None:
        wandb.teardown()  # it reads its settings once
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("WANDB_")]:
                patch.delenv(name)
            for name, value in ({"HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc")} | environment).items():
                patch.setenv(name, value)
            patch.chdir(tmp_path)
            check_login()

    yield check
    wandb.teardown()


@pytest.mark.parametrize("mode", ["online", ""])
def test_a_missing_login_is_one_sentence_with_what_to_do(login, mode) -> None:
    with pytest.raises(WandbError) as caught:
        login(**({"WANDB_MODE": mode} if mode else {}))
    said = str(caught.value)
    assert re.match(r".*tracking.wandb = true, and the login for https://\S+ is missing: run `wandb login`", said)
    assert "WANDB_API_KEY" in said and "WANDB_MODE=offline" in said and "tracking.wandb=false" in said


def test_a_key_that_cannot_be_one_is_refused_too(login) -> None:
    with pytest.raises(WandbError, match=r"is not valid \(WANDB_API_KEY invalid"):
        login(WANDB_API_KEY="short")


@pytest.mark.parametrize("mode", ["offline", "disabled", "dryrun"])
def test_where_nothing_is_sent_nobody_is_asked(login, mode) -> None:
    login(WANDB_MODE=mode)


def test_a_login_is_found_wherever_wandb_finds_it(login, tmp_path) -> None:
    login(WANDB_API_KEY=KEY)
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    login()
    with pytest.raises(WandbError, match=r"https://wandb\.example is missing"):
        login(WANDB_BASE_URL="https://wandb.example")
    (tmp_path / ".netrc").unlink()
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    login()


def test_a_command_without_a_login_ends_before_anything_starts(tmp_path, monkeypatch) -> None:
    def refuse() -> None:
        raise WandbError("there is no login")

    monkeypatch.setattr(build, "check_login", refuse)
    config = load("countdown-tiny", [f"runs_dir={tmp_path}", "name=one", "tracking.wandb=true"])
    for begin in (run, run_supervised):
        with pytest.raises(WandbError):
            begin(config, Console(quiet=True))
    assert not (tmp_path / "one").exists()
