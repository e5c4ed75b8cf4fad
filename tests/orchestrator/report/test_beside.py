"""The report that a run writes while it goes on: by processes of their own, one at a time."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.report import beside
from orchestrator.report.beside import ReportProcess
from orchestrator.report.report import write_last_report
from tests.support.run_directories import data_of, written_run

pytest.importorskip("plotly", reason="`make install` installs plotly")


def test_a_process_writes_the_report_and_one_that_failed_is_told_of(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    process = ReportProcess(run)
    assert process.start() is None and process.failure() is None
    assert data_of(run / "report.html")["runs"][0]["name"] == "one"
    (run / "config.json").write_text("no JSON")
    process.start()
    assert "config.json is not JSON" in str(process.failure())
    assert not [file.name for file in run.iterdir() if file.name.startswith(".report.html")]


def test_one_that_is_still_being_written_is_enough(tmp_path: Path, monkeypatch) -> None:
    started: list[list[str]] = []

    class Endless:
        returncode = 0

        def __init__(self, command: list[str], **_: object) -> None:
            started.append(command)

        def poll(self) -> int | None:
            return None if len(started) < 2 else 0

        def communicate(self) -> tuple[str, str]:
            return "", ""

    monkeypatch.setattr(subprocess, "Popen", Endless)
    process = ReportProcess(tmp_path)
    process.start()
    process.start()
    assert len(started) == 1 and started[0][-1] == str(tmp_path)


def test_a_run_that_ends_goes_without_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    assert write_last_report(run) is None and (run / "report.html").is_file()
    shutil.rmtree(run)
    assert "cannot be written" in str(write_last_report(run))


def test_it_works_after_everything_else(tmp_path: Path, monkeypatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "nice", asked.append)
    beside.main(str(written_run(tmp_path)))
    assert asked == [19]
