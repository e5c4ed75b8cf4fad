"""The report of what `rayzero eval` wrote."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.config.recipe import load
from orchestrator.evaluate.comparison import ModelResult, compare_pass_at_1
from orchestrator.evaluate.evaluation import summarize
from orchestrator.evaluate.models import NamedModel
from orchestrator.report.comparison_file import write_comparison
from orchestrator.report.page import document
from tests.support.groups import scored_group
from tests.support.run_directories import data_of

pytest.importorskip("plotly", reason="`make install` installs plotly")


def written(file: Path, said: str = "says </script>") -> Path:
    """Two models, of which the second is right more often, on easy and hard problems."""
    results: list[ModelResult] = []
    for name, right in (("base", 1), ("trained", 3)):
        groups = []
        for n in range(6):
            group = scored_group(f"held_out/{n}", [k < right for k in range(4)], text=f"{name} {said}")
            groups.append(replace(group, prompt=replace(group.prompt, difficulty=f"{n % 2 + 2} numbers")))
        evaluation = summarize(groups, [scored_group("g", [True])] * 6, (1, 4))
        difference = compare_pass_at_1(evaluation, results[0].evaluation if results else None)
        model = NamedModel(name, f"/home/planted-user/{name}")
        results.append(ModelResult(model, "zero_shot", evaluation, difference))
    write_comparison(results, load(None), file)
    return file


def test_models_stand_side_by_side_in_figures_and_in_answers(tmp_path: Path, capsys) -> None:
    file = written(tmp_path / "found.json")
    assert main(["report", "--evaluation", str(file)]) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "found.html"))
    found = data_of(tmp_path / "found.html")["evaluation"]
    assert found["columns"] == [["base", "zero shot"], ["trained", "zero shot"]] and found["problems"] == 6
    rows = {row["title"]: row for row in found["rows"]}
    assert [cell["mean"] for cell in rows["pass@1 (sampled)"]["cells"]] == [0.25, 0.75]
    assert rows["pass@1 (sampled)"]["is_rate"] and not rows["mean reward"]["is_rate"]
    assert found["differences"][0] is None and found["differences"][1]["mean"] == 0.5
    (chart,) = found["charts"]
    assert [line["y"] for line in chart["lines"]] == [[0.25, 0.25], [0.75, 0.75]] and chart["kind"] == "groups"
    assert (found["kept"], found["of"], len(found["questions"])) == (48, 48, 6)
    answers = found["questions"][0]["answers"]
    assert [sum(each["right"] for each in answer["completions"]) for answer in answers] == [1, 3]
    assert answers[0]["completions"][0]["text"] == "base says </script>" and answers[1]["greedy"]["right"]
    assert "planted-user" not in (tmp_path / "found.html").read_text()


def test_completions_of_markup_are_left_out_where_the_page_would_grow_too_large(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(document, "MAX_GROUPS", 500_000)
    file = written(tmp_path / "found.json", "<" * 19_000)
    assert main(["report", "--evaluation", str(file)]) == 0
    assert len((tmp_path / "found.html").read_bytes()) < document.empty_page() + 600_000
    assert data_of(tmp_path / "found.html")["evaluation"]["kept"] == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": []}', '{"results": [{"model": "a"}]}', '{"results": 3}'])
def test_another_file_is_refused_in_one_line(text: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "found.json").write_text(text)
    assert main(["report", "--evaluation", str(tmp_path / "found.json")]) == 2
    assert "is not a JSON file of `rayzero eval`" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["runs/one", "--evaluation", "two.json"]])
def test_runs_or_an_evaluation_and_not_both(arguments: list[str], capsys) -> None:
    assert main(["report", *arguments]) == 2
    assert "name runs" in capsys.readouterr().err


def test_figures_that_are_not_known_are_left_open(tmp_path: Path) -> None:
    file = written(tmp_path / "found.json")
    content = json.loads(file.read_text())
    content["results"][1]["figures"] |= {"greedy_pass_at_1": None, "reward": {"mean": 1.0, "low": None, "high": None}}
    content["results"][1]["prompts"] = content["results"][1]["prompts"][1:]
    file.write_text(json.dumps(content))
    assert main(["report", "--evaluation", str(file)]) == 0
    found = data_of(tmp_path / "found.html")["evaluation"]
    assert found["questions"][0]["answers"][1] is None
