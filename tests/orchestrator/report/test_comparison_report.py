"""A comparison as a table and as JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.config.recipe import ConfigError, load
from orchestrator.evaluate.comparison import ModelResult, compare_pass_at_1
from orchestrator.evaluate.evaluation import summarize
from orchestrator.evaluate.models import NamedModel
from orchestrator.report.comparison_file import comparison_file, write_comparison
from orchestrator.report.tables import print_comparison
from rewards.parts.markers import AGREEMENT
from tests.orchestrator.evaluate.test_evaluation import labelled, paid
from tests.support.groups import scored_group


def evaluation(rights, greedy=True):
    """Of two kinds of prompts with four completions each, so many of which are right."""
    groups = [
        labelled(scored_group(str(i), [True] * right + [False] * (4 - right)), "2 numbers" if i % 2 else "10 numbers")
        for i, right in enumerate(rights)
    ]
    return summarize(groups, [scored_group(str(i), [right > 2]) for i, right in enumerate(rights)], (1, 4))


@pytest.fixture
def results():
    base, trained = evaluation([0, 1, 2, 1, 0, 4]), evaluation([2, 3, 3, 2, 1, 4])
    return [
        ModelResult(NamedModel("base", "org/base"), "zero_shot", base, None),
        ModelResult(NamedModel("trained", "runs/x/final"), "zero_shot", trained, compare_pass_at_1(trained, base)),
    ]


def printed(results, config) -> str:
    console = Console(record=True, width=160, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_comparison(results, config, console)
    return console.export_text()


def test_the_table_has_every_model_its_intervals_and_the_paired_difference(results) -> None:
    text = printed(results, load("countdown-tiny"))
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for line in text.splitlines()
        if len(cells := line.split("│")) > 3
    }
    assert rows["pass@1 (sampled)"][0].startswith("33.3% [") and rows["pass@1 (sampled)"][1].startswith("62.5% [")
    assert rows["pass@4 (sampled)"][1].startswith("100.0% [")
    # 2 2 1 1 1 0 more right completions of 24; 2 of 32 choices of signs are as far from 0.
    assert rows["pass@1 minus base's, points"][1].startswith("+29.2 [")
    assert rows["p-value"] == ["", f"{2 / 32:.4f}"]
    assert {"pass@1 (greedy)", "well-formed answers", "right ones", "wrong ones", "shows verification"} <= set(rows)
    assert rows["2 numbers (3)"][0].startswith("50.0%") and rows["10 numbers (3)"][0].startswith("16.7%")
    assert text.index("2 numbers (3)") < text.index("10 numbers (3)")
    assert all(f"{name} {agreement}" in text for name, agreement in AGREEMENT.items())
    assert "pass@1 by source" not in text  # there is but one
    assert "Training base, zero_shot: trainable." in text and "This can be trained" in text


def test_a_right_and_a_wrong_completion_of_each_model_are_shown(results) -> None:
    text = printed(results, load("countdown-tiny"))
    assert text.count("reward 1 ") == text.count("reward 0.1 ") == 2


def test_names_with_square_brackets_are_shown_as_they_are(results) -> None:
    named = [replace(each, model=NamedModel(f"{each.model.name}[lr][/b]", each.model.path)) for each in results]
    text = printed(named, load("countdown-tiny"))
    for said in ("minus base[lr][/b]'s", "Training trained[lr][/b], zero_shot:", "base[lr][/b], zero_shot, "):
        assert said in text


def test_a_task_without_right_answers_has_neither_accuracy_nor_verdict() -> None:
    paying = summarize([paid("a", 1.0, 3.0), paid("b", 2.0, 2.0)])
    text = printed([ModelResult(NamedModel("one", "one"), "zero_shot", paying, None)], load("period-count-tiny"))
    assert "mean reward" in text and "pass@" not in text and "Training" not in text and "p-value" not in text


def test_escape_sequences_of_a_model_do_not_reach_the_terminal() -> None:
    hostile = summarize([scored_group("a", [True, False], text="\x1b]0;owned\x07 [red]no markup[/red]")])
    text = printed([ModelResult(NamedModel("one", "one"), "zero_shot", hostile, None)], load("countdown-tiny"))
    assert "\x1b" not in text and "[red]no markup[/red]" in text


def test_the_json_holds_the_figures_and_what_they_were_computed_from(results, tmp_path) -> None:
    file = tmp_path / "new" / "comparison.json"
    write_comparison(results, load("countdown-tiny"), comparison_file(str(file), load("countdown-tiny")))
    content = json.loads(file.read_text())
    assert content["models"] == {"base": "org/base", "trained": "runs/x/final"}
    trained = content["results"][1]
    rights = [[done["parts"]["correctness"] for done in prompt["completions"]] for prompt in trained["prompts"]]
    assert trained["figures"]["pass_at_1"]["mean"] == pytest.approx(sum(map(sum, rights)) / 24)
    assert trained["difference"]["mean"] == pytest.approx(7 / 24)
    assert trained["by_difficulty"]["2 numbers"]["num_prompts"] == 3
    assert trained["trainability"]["verdict"] == "trainable"
    assert content["config"]["group_size"] == 8


def test_what_is_not_known_is_null_in_the_json(tmp_path) -> None:
    one = summarize([paid("a", 1.0)])
    file = tmp_path / "one.json"
    write_comparison([ModelResult(NamedModel("one", "one"), "zero_shot", one, None)], load("countdown-tiny"), file)
    figures = json.loads(file.read_text(), parse_constant=pytest.fail)["results"][0]["figures"]
    assert figures["reward"] == {"mean": 1.0, "low": None, "high": None}
    assert figures["format_rate"] is None


def test_completions_that_got_no_mark_are_counted_and_shown_only_then(results) -> None:
    assert "could not be graded" not in printed(results, load("countdown-tiny"))
    late = summarize([scored_group("a", [True, False], status="timeout"), scored_group("b", [True, False])])
    assert late.metrics()["eval/unmarked"] == 0.5
    shown = printed([ModelResult(NamedModel("late", "org/late"), "zero_shot", late, None)], load("countdown-tiny"))
    (line,) = [line for line in shown.splitlines() if "could not be graded" in line]
    assert "50.0%" in line


def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written .*; name another file"):
        comparison_file(str(tmp_path / "file" / "x.json"), load("countdown-tiny"))
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        comparison_file(str(tmp_path), load("countdown-tiny"))
    config = replace_runs(load("countdown-tiny"), tmp_path)
    assert comparison_file(None, config).parent == tmp_path / "evaluations"


def replace_runs(config, folder: Path):
    return config.model_copy(update={"runs_dir": str(folder)})


def test_the_baseline_is_compared_only_in_the_same_format(results) -> None:
    assert results[0].difference is None
    unmarked = summarize([paid("a", 1.0)])
    assert compare_pass_at_1(unmarked, unmarked) is None
