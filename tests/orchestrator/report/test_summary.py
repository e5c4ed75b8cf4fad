"""The table and the curve at the end of a run that was measured in several formats."""

import os

from rich.console import Console

from orchestrator.evaluate.evaluation import summarize
from orchestrator.records.metrics import rollout_metrics
from orchestrator.report.plots import draw_curve
from orchestrator.report.summary import summary_table
from tests.orchestrator.evaluate.test_evaluation import paid
from tests.support.groups import scored_group


def figures(right: int, prefix: str) -> dict[str, float]:
    """Of twenty prompts with one completion each, so many of which are right."""
    groups = [scored_group(str(index), [index < right]) for index in range(20)]
    return summarize(groups, groups).metrics(prefix)


def table_rows(lines) -> list[list[str]]:
    console = Console(record=True, width=160, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(summary_table(lines))
    split = [line.replace("┃", "│").split("│")[1:-1] for line in console.export_text().splitlines()]
    return [[cell.strip() for cell in cells] for cells in split if cells]


def test_what_is_said_of_the_whole_run_stands_below() -> None:
    lines = [{"step": 0} | figures(0, "eval"), {"step": 9} | figures(0, "eval")]
    said = "run 'mine' has learned nothing: [bold]all wrong"
    console = Console(record=True, width=160, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(summary_table(lines, said))
    assert said in " ".join(console.export_text().split())


def test_formats_stand_side_by_side_with_their_changes() -> None:
    lines = [
        {"step": 0} | figures(4, "eval") | figures(2, "eval/natural"),
        {"step": 9} | figures(10, "eval") | figures(3, "eval/natural"),
    ]
    header, before, after, change, *rest = table_rows(lines)
    assert header == ["", "", "the recipe's format", "natural"]
    assert before[:2] == ["pass@1 (sampled)", "before (step 0)"] and after[:2] == ["", "after (step 9)"]
    assert [cell.partition(" ")[0] for cell in before[2:]] == ["20.0%", "10.0%"]
    assert change == ["", "change", "+30.0 points", "+5.0 points"]
    assert len(rest) % 3 == 0


def test_a_format_that_was_added_later_has_no_before() -> None:
    lines = [{"step": 0} | figures(4, "eval"), {"step": 9} | figures(10, "eval") | figures(3, "eval/one_shot")]
    _, before, after, change, *_ = table_rows(lines)
    assert (before[3], change[3]) == ("", "") and after[3].startswith("15.0% ± ")


def test_rewards_of_several_formats_are_numbers_not_rates() -> None:
    def rewards(value: float, prefix: str) -> dict[str, float]:
        return summarize([paid("a", value), paid("b", value + 0.1)]).metrics(prefix)

    lines = [{"step": step} | rewards(step, "eval") | rewards(2 * step, "eval/natural") for step in (1, 3)]
    text = str(table_rows(lines))
    assert "+2.000" in text and "+4.000" in text and "%" not in text


def test_the_summary_and_the_curve_come_from_the_metrics_alone(tmp_path) -> None:
    groups = [[scored_group("a", [True, False])], [scored_group("a", [True, True])]]
    lines = []
    for step, of_step in enumerate(groups):
        evaluation = summarize([*of_step, *of_step], of_step).metrics()
        lines.append({"step": step} | evaluation | (rollout_metrics(of_step) if step else {}))
    from rich.console import Console

    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(summary_table(lines))
    assert "+50.0 points" in console.export_text()
    draw_curve(lines, tmp_path / "curve.png", "one")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_of_a_task_without_right_answers_shows_its_reward_as_a_number(tmp_path) -> None:
    lines = []
    for step, groups in enumerate(
        [[paid("a", 0.2, 0.3), paid("b", 0.1, 0.2)], [paid("a", 0.5, 0.6), paid("b", 0.4, 0.7)]]
    ):
        lines.append({"step": step} | summarize(groups, ()).metrics() | (rollout_metrics(groups) if step else {}))
    from rich.console import Console

    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(summary_table(lines))
    text = console.export_text()
    assert "0.200 ± 0.098" in text and "+0.350" in text and "%" not in text
    draw_curve(lines, tmp_path / "curve.png", "one")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
