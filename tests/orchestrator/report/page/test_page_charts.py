"""What the pages Emergence, GRPO, Time and Compare compute."""

from pathlib import Path

import pytest

from orchestrator.report.page.chart import present
from orchestrator.report.page.comparison import ComparedRun, comparison
from orchestrator.report.page.emergence import behaviour, emergence, verdict
from orchestrator.report.page.group_credit import credit, distributions, explained, spread_chart
from orchestrator.report.page.learning import by_entry, rewards
from orchestrator.report.page.machines import machines
from orchestrator.report.page.run_data import report_data
from orchestrator.report.reading.digest import StepDigest
from orchestrator.report.reading.digests import KeptDigests
from orchestrator.report.reading.recorded_run import RecordedRun, read_run
from tests.support.run_directories import written_run


def shown(step: int, count: int, of: int = 100) -> StepDigest:
    """A step of so many completions, each of its own prompt, of which `count` show a behaviour."""
    side = {
        "marker/verification": [of, of, of, count, count, count],
        "tokens": [of, of, of, 10 * of, 100 * of, 10 * of],
    }
    first = {"verification": 0} if count else {}
    return StepDigest(step, sides={"all": side, "right": {}, "wrong": side}, first_shown=first)


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (0, 30, "emerged"),
        (20, 60, "grew"),
        (60, 20, "faded"),
        (30, 35, "no clear change"),
        (0, 2, "hardly seen"),
        (3, 8, "no clear change"),
    ],
)
def test_a_behaviour_has_emerged_where_chance_does_not_explain_it(first: int, last: int, said: str) -> None:
    train = {step: shown(step, first if step < 3 else last) for step in range(1, 6)}
    found = behaviour("verification", train)
    assert (found["verdict"], found["start"][0], found["end"][0]) == (said, first / 100, last / 100)
    assert found["first"] == (1 if first else 3) and found["last"] == 5 and found["right"] is None
    assert found["agreement"].startswith("precision")


def test_where_nothing_was_measured_no_verdict_is_given() -> None:
    assert verdict(None, None) == "not measured"
    found = emergence({"marker/verification"}, {}, {})
    assert found["behaviours"] == [] and found["charts"][0]["lines"] == [
        {"label": "all", "key": "marker/verification", "role": "main"}
    ]


def group(*rewards: float, lengths: tuple[int, ...] = ()) -> dict:
    given = lengths or (10,) * len(rewards)
    each = [
        {"reward": reward, "length": length, "advantage": 0.5} for reward, length in zip(rewards, given, strict=True)
    ]
    return {"split": "train", "completions": each}


def test_advantages_are_those_of_the_papers() -> None:
    found = explained(group(1, 0, 0, 0, lengths=(10, 20, 30, 40)), 3, 100)
    assert (found["group"], found["mean"], found["std"]) == (3, 0.25, 0.5)
    assert found["advantages"]["GRPO"] == pytest.approx([0.75 / 0.5001] + [-0.25 / 0.5001] * 3, rel=1e-4)
    assert found["advantages"]["Dr. GRPO, no std"] == [0.75, -0.25, -0.25, -0.25]
    assert found["advantages"]["RLOO"] == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3], rel=1e-4)
    scaled = 0.75 / 0.5001
    assert found["tokens"]["sequence_mean"][0] == pytest.approx(scaled / 10 / 4, rel=1e-4)
    assert found["tokens"]["token_mean"][0] == pytest.approx(scaled / 100, rel=1e-4)
    assert found["tokens"]["constant"][0] == pytest.approx(scaled / 400, rel=1e-4)
    assert found["recorded"] == [0.5] * 4


def test_a_group_without_spread_has_no_advantages() -> None:
    assert [*explained(group(0.1, 0.1), 0, None)["advantages"].values()] == [[0.0, 0.0]] * 3


def test_groups_with_spread_are_explained_first_and_a_few_without_after_them() -> None:
    equal, unequal, ungraded = group(1, 1), group(1, 0), group(1, 0)
    ungraded["completions"][0]["reward"] = None
    assert [each["group"] for each in credit({}, [equal, ungraded, unequal], {})["examples"]] == [2, 0]
    many = credit({}, [equal] * 9 + [unequal] * 90, {})["examples"]
    assert [each["std"] > 0 for each in many] == [True] * 24 + [False] * 4
    assert many[-1]["group"] == 8 and many[0]["group"] == 9
    assert [each["group"] for each in credit({}, [equal, equal], {})["examples"]] == [0, 1]
    assert credit({}, [], {})["examples"] == []


def test_the_distribution_of_a_part_is_over_all_completions_of_the_first_and_last_steps() -> None:
    train = {step: StepDigest(step, parts={"total": [[0.0, 3], [1.0, step]]}) for step in range(1, 6)}
    (chart,) = distributions(train)
    assert [(list(line.x), list(line.y)) for line in chart.lines] == [
        (["0", "1"], [0.75, 0.25]),
        (["0", "1"], [0.375, 0.625]),
    ]
    made = spread_chart([f"group/spread/{name}" for name in ("closeness", "correctness", "total")])
    assert made is not None
    assert [(line.label, line.key) for line in made.lines] == [
        ("the reward", "group/spread/total"),
        ("right or wrong alone", "group/spread/correctness"),
        ("closeness alone", "group/spread/closeness"),
    ]


def test_parts_that_are_not_shown_are_counted_and_the_shown_ones_come_in_natural_order() -> None:
    names = [f"part_{n}" for n in range(1, 15)]
    charts = {chart["title"]: chart for chart in present(rewards([f"reward/{name}" for name in names]))}
    shown = charts["Reward, part by part (7 of 14)"]["lines"]
    assert [line["label"] for line in shown] == [f"part {n}" for n in range(1, 8)]
    entries = by_entry([f"rollout/share/{name}" for name in names], "Share", "rollout/share/<source>")
    assert entries is not None and entries.title == "Share (7 of 14)" and entries.lines[1].label == "part_2"
    train = {1: StepDigest(1, parts={name: [[0.0, 1]] for name in ["total", *reversed(names)]})}
    titles = [chart.title for chart in distributions(train)]
    assert titles == ["Rewards (6 of 15)", *(f"Reward part part {n}" for n in range(1, 6))]
    spread = spread_chart([f"group/spread/{name}" for name in names])
    assert spread is not None and spread.title.endswith(" (4 of 14)") and spread.lines[1].label == "part 2 alone"


def test_the_timeline_puts_phases_one_after_the_other(tmp_path: Path) -> None:
    seconds = {
        "time/rollout_s": 3.0,
        "time/reward_wait_s": 0.25,
        "time/update_s": 1.5,
        "time/publish_s": 0.5,
        "time/step_s": 5.0,
        "time/other_s": 0.0,
    }
    rows = [{"step": float(step), **seconds} for step in (1, 2)]
    run = RecordedRun(tmp_path, {}, rows, {}, {}, "complete", peak_gib={"learner-0": 2.5})
    found = machines(run, {})
    assert found["phases"] == [["sampling and grading", 6.0], ["update", 3.0], ["publishing", 1.0]]
    timeline = next(chart for chart in found["charts"] if chart.get("kind") == "timeline")
    spans = {line["label"]: [*zip(line["x"], line["low"], line["high"], strict=True)] for line in timeline["lines"]}
    assert spans["sampling and grading"] == [("generators", 0.0, 2.75), ("generators", 5.0, 7.75)]
    assert spans["grading, after the last completion"] == [
        ("reward workers", 2.75, 3.0),
        ("reward workers", 7.75, 8.0),
    ]
    assert spans["publishing"] == [
        ("generators", 4.5, 5.0),
        ("learner", 4.5, 5.0),
        ("generators", 9.5, 10.0),
        ("learner", 9.5, 10.0),
    ]
    assert [chart["title"] for chart in found["service"]] == ["Peak memory of each process"]


def test_a_run_without_times_has_no_charts_of_them(tmp_path: Path) -> None:
    assert machines(RecordedRun(tmp_path, {}, [], {}, {}, "ended early"), {}) == {
        "phases": [],
        "charts": [],
        "service": [],
    }


def test_runs_are_compared_on_the_problems_that_both_were_asked(tmp_path: Path) -> None:
    first, second = (
        read_run(written_run(tmp_path, name, 4, 2, "no", f"learner.learning_rate={rate}"))
        for name, rate in (("one", 0.1), ("two", 0.2))
    )
    last = [KeptDigests(run.path).of(run.held_out)[4] for run in (first, second)]
    found = comparison([ComparedRun(first, last[0]), ComparedRun(second, last[1])])
    assert found["settings"] == [["learner.learning_rate", "0.1", "0.2"]]
    (pair,) = found["pairs"]
    assert (pair["name"], pair["to"], pair["problems"], pair["steps"]) == ("two", "one", 6, [4, 4])
    mean, low, high, p = pair["difference"]
    assert mean == 0 and low < 0 < high and p == 1.0
    last[1].right.popitem()
    assert (
        "same held-out problems"
        in comparison([ComparedRun(first, last[0]), ComparedRun(second, last[1])])["pairs"][0]["why"]
    )
    assert "no completions" in comparison([ComparedRun(first, None), ComparedRun(second, last[1])])["pairs"][0]["why"]
    assert report_data([first, second])["compare"]["settings"] == found["settings"]


def test_memory_is_known_of_a_run_that_died_and_each_process_of_one_that_ended(tmp_path: Path) -> None:
    keys = {"system/generator_peak_gib", "system/learner_peak_gib"}
    rows = [{"step": 1.0, **dict.fromkeys(keys, 1.0)}]
    (chart,) = machines(RecordedRun(tmp_path, {}, rows, {}, {}, "ended early"), keys)["service"]
    assert (chart["title"], chart["unit"]) == ("Peak memory so far, the largest of each kind", "GiB")
    assert [line["label"] for line in chart["lines"]] == ["generator", "learner rank"]
    assert chart["note"].startswith("Healthy: steady after the first steps.")
