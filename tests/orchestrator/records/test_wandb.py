"""Weights & Biases, the real client, offline: the steps it gets, under which id, and whether it would ask for a key."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
import wandb
from rich.console import Console

from orchestrator.config.recipe import load
from orchestrator.records.run_files import RunFiles
from orchestrator.records.trackers import build
from orchestrator.records.trackers.wandb import WandbError, check_login, run_id
from orchestrator.run import run
from orchestrator.sft import run_supervised
from tests.support.run_files import WrittenRun
from tests.support.tracked import PNG, Told
from tests.support.wandb_files import WandbFile, read_wandb


@pytest.fixture(autouse=True)
def _offline(monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def command(run: WrittenRun, after: int, *parts: Iterable[tuple[int, float]]) -> None:
    """Do what a command does that goes on after that step and logs these; before each part but the first it cuts."""
    second = int(time.time())
    with Told(run, "wandb", after) as told:
        for index, part in enumerate(parts):
            rows = [{"step": step, "reward/total": value} for step, value in part]
            if index:
                run.cut(rows[0]["step"] - 1)
            told.log(*rows)
    while int(time.time()) == second:  # by which W&B names a command's folder
        time.sleep(0.05)


def curve(file: WandbFile) -> list[tuple[int, float]]:
    return [(row["step"], row["reward/total"]) for row in file.rows]


def test_each_step_is_shown_once_as_it_was_done_last_under_one_id(tmp_path) -> None:
    tracked = WrittenRun(tmp_path / "one")
    first = [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    command(tracked, -1, first, again := [(2, 0.25), (3, 0.35)])  # a learner was lost after step 3
    tracked.cut(2)
    command(tracked, 2, once_more := [(3, 0.36), (4, 0.46)])
    files = read_wandb(tracked.path, num_files=3)
    assert len({file.run_id for file in files}) == 1
    assert all(file.step_metrics["*"] == "step" for file in files)
    # Of several files of one id W&B keeps the last: each has the steps until then.
    assert [curve(file) for file in files] == [first, [*first[:2], *again], [*first[:2], again[0], *once_more]]
    for file in files:  # W&B drops a row whose own step is not above the last one's
        own = [row["_step"] for row in file.rows]
        assert own == sorted({*own})


def test_another_run_of_that_name_has_another_id(tmp_path) -> None:
    runs = [WrittenRun(tmp_path / place / "one") for place in ("here", "there")]
    for each in runs:
        command(each, -1, [(1, 0.1)])
    ids = {read_wandb(each.path)[0].run_id for each in runs}
    assert len(ids) == 2 and "one" not in ids


def test_a_run_of_the_first_version_keeps_its_id_and_one_that_asks_late_tells_of_its_earlier_steps(tmp_path) -> None:
    tracked = WrittenRun(tmp_path / "old")
    tracked.log({"step": 1, "reward/total": 0.1})
    (tracked.path / "wandb").mkdir()
    command(tracked, 1, [(2, 0.2)])
    command(tracked, 2, [(3, 0.3)])
    files = read_wandb(tracked.path, num_files=2)
    assert {file.run_id for file in files} == {"old"}
    assert [curve(file) for file in files] == [[(1, 0.1), (2, 0.2)], [(1, 0.1), (2, 0.2), (3, 0.3)]]


def test_an_id_of_the_version_before_is_kept(tmp_path) -> None:
    tracked = WrittenRun(tmp_path / "one")
    (tracked.path / "wandb_id").write_text("abc123\n")
    assert run_id(RunFiles(tracked.path)) == ("abc123", False)


def test_the_curve_completions_and_the_report_are_there(tmp_path) -> None:
    tracked = WrittenRun(tmp_path / "one")
    tracked.write_rollouts(1, "[bold]a model's[/]", folder="held_out")
    (tracked.path / "curve.png").write_bytes(PNG)
    (tracked.path / "report.html").write_text("the report")
    command(tracked, -1, [(1, 0.1)])
    (file,) = read_wandb(tracked.path)
    table, picture = (file.folder / "files" / path for path in media(file))
    assert json.loads(table.read_text())["data"] == [["question 0\n", "[bold]a model's[/]", 1.0, 1.0, 3, "stop"]]
    assert picture.read_bytes() == PNG
    assert file.artifacts["one-report"] == ["report.html"] and file.settings["name"] == "one"


def media(file: WandbFile) -> list[str]:
    """Return the paths of the table and the picture that rows name."""
    keys = ("held_out/completions/path", "curve/path")
    return [row[key] for key in keys for row in file.rows if key in row]


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
