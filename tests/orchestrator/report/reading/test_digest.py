"""What is counted of all completions, which of them a report keeps, and what reading them costs."""

import json
from pathlib import Path

import pytest
import zstandard

from orchestrator.evaluate.statistics import Clusters, rate
from orchestrator.report.reading import digests as kept_digests
from orchestrator.report.reading.columns import counted_table
from orchestrator.report.reading.digest import StepDigest, digest
from orchestrator.report.reading.digests import KEPT, KeptDigests
from orchestrator.report.reading.kept import RULE, Place, choose, spread
from orchestrator.report.reading.record_stream import groups_of, records_of
from orchestrator.report.reading.recorded_run import read_run
from tests.support.run_directories import columns, written_run


def record(prompt: str, text: str = "no", right: bool = False, status: str = "ok", **others) -> dict:
    part = {"value": float(right), "status": status}
    given = {"prompt_id": prompt, "completion": text, "token_ids": [1, 2, 3], "reward": float(right)}
    return given | {"parts": {"correctness": part}, "finish_reason": "stop", "advantage": 0.0} | others


def file_of(folder: Path, records: list[dict], tail: str = "") -> Path:
    lines = "".join(json.dumps(each) + "\n" for each in records) + tail
    file = folder / "step_000007.jsonl.zst"
    file.write_bytes(zstandard.compress(lines.encode()))
    return file


def estimates_of(found: StepDigest) -> dict[str, list[float]]:
    """Mean, and both ends of its interval, by key."""
    table = counted_table({1: found})
    return {key: [value for (value,) in values] for key, values in columns(table.to_json(), [1], 3).items()}


@pytest.mark.parametrize("reason", ["timeout", "error"])
def test_an_environment_that_failed_is_a_fault_of_its_group(tmp_path: Path, reason: str) -> None:
    records = [record("a"), record("b", finish_reason=reason), record("c", finish_reason="turns")]
    found = digest(7, groups_of(file_of(tmp_path, records)))
    assert found.faults == [1]
    assert "fault" in choose({"train": {7: found}, "held_out": {}})[Place("train", 7, 1)]


def test_right_and_wrong_completions_are_counted_apart(tmp_path: Path) -> None:
    records = [
        record("a", "Let me check: 3", right=True, markers=["verification"]),
        record("a", "no", markers=[], finish_reason="length", token_ids=[1] * 9, advantage=-2.5),
        record("b", "no", markers=["verification"], status="timeout"),
    ]
    found = digest(7, groups_of(file_of(tmp_path, records)))
    sides = {name: {figure: Clusters(*sums) for figure, sums in found.sides[name].items()} for name in found.sides}
    assert found.completions == 3
    assert [sides[name]["tokens"].completions for name in ("all", "right", "wrong")] == [3, 1, 2]
    assert (sides["wrong"]["tokens"].total, sides["wrong"]["tokens"].prompts) == (12, 2)
    assert [sides[name]["marker/verification"].total for name in ("all", "right", "wrong")] == [2, 1, 1]
    assert [found.lines(number) for number in range(found.num_groups)] == [range(2), range(2, 3)]
    assert found.faults == [1] and found.largest_advantage == [0, 2.5] and found.first_shown == {"verification": 0}
    figures = estimates_of(found)
    assert figures["rollout/completion_tokens"][0] == 5 and found.right == {}
    assert figures["wrong/rollout/truncated"][0] == figures["group/spread/total"][0] == 0.5
    mean, low, high = figures["marker/verification"]
    assert mean == pytest.approx(2 / 3, rel=1e-5) and 0 < low < mean < high < 1
    held_out = digest(7, groups_of(file_of(tmp_path, records)), is_training=False)
    assert [*held_out.right.values()] == [[1, 2], [0, 1]] and list(estimates_of(held_out)) == [
        "eval/right_completion_tokens",
        "eval/wrong_completion_tokens",
        "eval/completion_tokens",
    ]
    assert StepDigest.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_an_interval_is_that_of_the_evaluations_where_groups_are_of_one_size(tmp_path: Path) -> None:
    shown = [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 0]]
    records = [record(str(n), markers=["exploration"] * each) for n, group in enumerate(shown) for each in group]
    found = estimates_of(digest(7, groups_of(file_of(tmp_path, records))))
    wanted = rate([sum(group) / 4 for group in shown], 4)
    assert found["wrong/marker/exploration"] == pytest.approx([wanted.mean, wanted.low, wanted.high], rel=1e-5)
    assert found["group/solved"][:2] == [0, 0] and found["rollout/groups_without_spread"][0] == 1


def test_markers_of_an_earlier_versions_records_are_found_in_the_text(tmp_path: Path) -> None:
    found = digest(7, groups_of(file_of(tmp_path, [record("a", "Wait, that is wrong. Let me try again.")])))
    assert estimates_of(found)["marker/backtracking"][0] == 1


def test_a_largest_gap_is_noted_where_the_learners_logprobs_are_recorded(tmp_path: Path) -> None:
    records = [record("a", logprob_gaps=[0.5]), record("b", logprob_gaps=[0.0, -0.75, None])]
    found = digest(7, groups_of(file_of(tmp_path, records)))
    assert found.largest_gap == [1, 0.75]


@pytest.mark.parametrize(
    "tail", ['{"prompt_id": "b", "compl', "not json\n", "[1, 2]\n", '{"completion": 3}\n', "[" * 99_999 + "\n"]
)
def test_lines_that_are_no_record_are_passed_over(tmp_path: Path, tail: str) -> None:
    assert [number for number, _ in records_of(file_of(tmp_path, [record("a")], tail))] == [0]


def test_a_file_that_was_torn_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    file = file_of(tmp_path, [record(str(n), str(n) * 5_000) for n in range(400)])
    file.write_bytes(file.read_bytes()[:-200])
    assert len(list(records_of(file))) < 400


def test_a_line_of_a_megabyte_is_a_completion_like_others(tmp_path: Path) -> None:
    long = [record("a", "x" * 2**20), record("a", "\u202e</script>\u0000")]
    (group,) = groups_of(file_of(tmp_path, long))
    assert [len(each["completion"]) for each in group.records] == [2**20, 11]


def test_each_file_is_read_through_once_however_often_one_reports(tmp_path: Path, monkeypatch) -> None:
    run = read_run(written_run(tmp_path))
    first = KeptDigests(run.path).of(run.rollouts)
    with monkeypatch.context() as patch:
        patch.setattr(kept_digests, "digest", None)
        assert KeptDigests(run.path).of(run.rollouts) == first
    run.rollouts[2].write_bytes(run.rollouts[1].read_bytes() + b"")  # what a resumed run does
    (run.path / KEPT).open("a").write('{"file": ["rollouts/step')  # what a kill leaves
    again = KeptDigests(run.path).of(run.rollouts)
    assert again[2].sides == first[1].sides and again[4] == first[4]


def test_a_run_that_cannot_be_written_into_is_read_all_the_same(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path))
    (run.path / KEPT).mkdir()
    assert len(KeptDigests(run.path).of(run.rollouts)) == 4


def made(step: int, groups: int, size: int = 4, **others) -> StepDigest:
    return StepDigest(step, runs=[[0, size, groups]], **others)


def test_a_small_run_is_kept_whole_and_a_large_one_within_the_limit() -> None:
    small = {"train": {step: made(step, 3) for step in range(1, 4)}, "held_out": {0: made(0, 2)}}
    assert len(choose(small)) == 11
    large = {"train": {step: made(step, 64, 8) for step in range(1, 1001)}, "held_out": {}}
    assert len(choose(large)) * 8 == 2000
    assert "2,000" in RULE.format(limit=2000, faults=40)


def test_what_is_remarkable_comes_before_the_rest() -> None:
    train = {step: made(step, 20, largest_advantage=[5, 2.0]) for step in range(1, 101)}
    train[40].faults, train[41].first_shown, train[42].largest_gap = [7], {"backtracking": 9}, [11, 0.4]
    held_out = {step: made(step, 30) for step in (0, 50, 100)}
    chosen = choose({"train": train, "held_out": held_out}, limit=600)
    reasons = {place: found for place, found in chosen.items() if found}
    assert reasons[Place("train", 40, 7)] == ["fault"]
    assert reasons[Place("train", 41, 9)] == ["first backtracking"]
    assert {place.step for place in chosen if place.split == "held_out"} == {0, 50, 100}
    assert sum(found == ["largest advantage"] for found in reasons.values()) > 50
    assert Place("train", 50, 0) in chosen
    assert len(chosen) * 4 <= 600


def test_steps_that_are_asked_for_are_kept_whole_beyond_the_limit() -> None:
    train = {step: made(step, 200) for step in range(1, 11)}
    chosen = choose({"train": train, "held_out": {}}, [3], limit=400)
    assert sum(place.step == 3 for place in chosen) == 200


def test_every_beginning_of_the_order_lies_evenly_over_the_run() -> None:
    order = [step for step, _ in spread({step: made(step, 1) for step in range(1, 101)})]
    assert sorted(order) == list(range(1, 101))
    assert order[:2] == [100, 1] and sorted(order[:9])[4] in range(45, 55)
    longer = [step for step, _ in spread({step: made(step, 1) for step in range(1, 102)})]
    assert [step for step in longer if step not in (100, 101)] == [step for step in order if step != 100]
