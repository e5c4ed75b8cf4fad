"""`rayzero eval` asks what a model's run held out, and says when its data is no longer that of the run."""

import json
from pathlib import Path

import pytest

from orchestrator.config.recipe import ConfigError, load
from orchestrator.evaluate.asked_problems import asked_problems
from orchestrator.evaluate.models import NamedModel
from orchestrator.records.origin.fingerprints import Fingerprints
from orchestrator.records.run_directory import RunDirectory
from rollout.prompts.entry_fingerprints import fingerprints
from rollout.prompts.mixture import Mixture

ROWS = [{"question": f"What is {n}?", "answer": f"{n}"} for n in range(60)]


def write(tmp_path: Path, rows) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipe(tmp_path: Path, name: str = "one", *overrides: str):
    where = [f"runs_dir={tmp_path}", f"name={name}", "prompts.task=gsm8k", "prompts.num_held_out=10"]
    return load("gsm8k-4090", [*where, f"prompts.gsm8k.source={tmp_path / 'rows.jsonl'}", *overrides])


def run(tmp_path: Path, name: str = "one", split="by_key", *, is_old: bool = False) -> NamedModel:
    """A finished run. One that is old has no fingerprints."""
    config = recipe(tmp_path, name)
    directory = RunDirectory(config).open()
    directory.final.mkdir()
    if not is_old:
        Fingerprints(fingerprints(config.prompts, Mixture(config.prompts, split)), {}, split).write(directory.path)
    return NamedModel(name, str(directory.final))


def held_out(problems) -> list[str]:
    return [each.problem.key for each in problems.held_out]


@pytest.fixture
def model(tmp_path: Path) -> NamedModel:
    write(tmp_path, ROWS)
    return run(tmp_path)


def test_the_same_data_is_asked(model, tmp_path) -> None:
    write(tmp_path, ROWS[::-1])
    config = recipe(tmp_path)
    assert held_out(asked_problems([model], config)) == held_out(Mixture(config.prompts))


def test_data_that_has_changed_is_refused_unless_told(model, tmp_path, caplog) -> None:
    write(tmp_path, [*ROWS[3:], {"question": "A new one?", "answer": "1"}])
    with pytest.raises(ConfigError, match=r"(?s)one would be asked about other data.*1 added.*3 removed"):
        asked_problems([model], recipe(tmp_path))
    asked_problems([model], recipe(tmp_path, "one", "checkpoint.allow_changes=true"))
    assert "1 added" in caplog.text


def test_other_questions_and_other_models_are_none_of_its_business(model, tmp_path) -> None:
    write(tmp_path, ROWS[9:])
    asked_problems([NamedModel("base", "Qwen/Qwen2.5-0.5B")], recipe(tmp_path))
    asked_problems([model], recipe(tmp_path, "one", "prompts.seed=1"))


def test_another_wording_is_no_other_data(model, tmp_path) -> None:
    worded = recipe(tmp_path, "one", "prompts.template=Q: {question}")
    asked_problems([model], worded)
    write(tmp_path, ROWS[1:])
    with pytest.raises(ConfigError, match="1 removed"):
        asked_problems([model], worded)


def test_a_run_of_an_earlier_version_is_asked_what_it_held_out(tmp_path) -> None:
    write(tmp_path, ROWS)
    config = recipe(tmp_path)
    old, new = run(tmp_path, "old", is_old=True), run(tmp_path, "new")
    by_position = held_out(Mixture(config.prompts, "by_position"))
    assert held_out(asked_problems([old], config)) == by_position != held_out(asked_problems([new], config))
    with pytest.raises(ConfigError, match="old and new come from runs that held out other problems of the same data"):
        asked_problems([old, new], config)


def test_data_that_is_gone_says_that_nothing_can_be_asked(model, tmp_path) -> None:
    write(tmp_path, ROWS[:3])
    with pytest.raises(ConfigError, match=r"the models cannot be asked: .* too few for"):
        asked_problems([model], recipe(tmp_path))
