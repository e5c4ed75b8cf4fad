"""What `rayzero scale` writes, refuses, and what a run reads of it."""

import json
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.config.recipe import load
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.scale import FILE, requested_generators


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    config = load("countdown-tiny", [f"runs_dir={tmp_path}", "name=run"])
    config.directory.mkdir()
    (config.directory / "config.json").write_text(config.model_dump_json())
    return config


def test_a_run_reads_what_was_asked_last(run, capsys) -> None:
    assert requested_generators(run) is None
    assert main(["scale", str(run.directory), "3"]) == 0
    assert main(["scale", str(run.directory), "4"]) == 0
    assert requested_generators(run) == 4
    assert "4 generators from the next step on" in capsys.readouterr().out


def test_a_later_command_with_another_number_is_newer_than_the_wish(run) -> None:
    assert main(["scale", str(run.directory), "3"]) == 0
    resumed = run.model_copy(update={"max_staleness": 1})
    assert requested_generators(resumed) == 3
    rollout = run.rollout.model_copy(update={"num_generators": 5})
    assert requested_generators(run.model_copy(update={"rollout": rollout})) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"num_generators": "many"}', '{"num_generators": 0}', "{}"])
def test_what_cannot_be_read_changes_nothing(run, text: str) -> None:
    (run.directory / FILE).write_text(text)
    assert requested_generators(run) is None


def test_wrong_wishes_are_refused_with_the_fix(run, capsys, tmp_path: Path) -> None:
    assert main(["scale", str(tmp_path / "nowhere"), "2"]) == 1
    assert "is not a run: it has no config.json. Give a run's directory" in capsys.readouterr().err
    assert main(["scale", str(run.directory), "0"]) == 1
    assert "a run needs at least 1" in capsys.readouterr().err
    settings = json.loads((run.directory / "config.json").read_text())
    settings["placement"]["mode"] = "colocated"
    (run.directory / "config.json").write_text(json.dumps(settings))
    assert main(["scale", str(run.directory), "2"]) == 1
    assert 'use placement.mode = "pods"' in capsys.readouterr().err
    assert requested_generators(run) is None
