"""What a report keeps for the next one changes what it costs, never what it says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from orchestrator.config.recipe import load
from orchestrator.records.metrics import rollout_metrics
from orchestrator.records.run_directory import RunDirectory
from orchestrator.report.page.run_data import report_data
from orchestrator.report.reading.digests import KEPT, KeptDigests
from orchestrator.report.reading.kept import KeptGroup, Place
from orchestrator.report.reading.kept_groups import FILE, GroupShelf
from orchestrator.report.reading.recorded_run import RecordedRun, read_run
from tests.support.groups import scored_group
from tests.support.run_directories import written_run


def shelf(max_bytes: int = 10**6) -> GroupShelf:
    return GroupShelf(
        lambda group: {"id": group.records[0]["prompt_id"], "completions": group.records}, "me", max_bytes
    )


def filled(run: RecordedRun, chosen: dict[Place, list[str]], max_bytes: int = 10**6) -> GroupShelf:
    made = shelf(max_bytes)
    made.recall(run.path)
    digests = {"train": KeptDigests(run.path).of(run.rollouts), "held_out": {}}
    digests["train"][9] = digests["train"][3]
    made.add(chosen, digests, {"train": run.rollouts | {9: run.path / "gone"}, "held_out": {}})
    return made


def test_groups_are_those_that_were_chosen_with_their_reasons(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path))
    (group,) = filled(run, {Place("train", 3, 1): ["why"], Place("train", 9, 0): []}).groups
    assert [each["prompt_id"] for each in group["completions"]] == ["train/3-1"] * 4 and group["reasons"] == ["why"]


def test_only_what_is_new_or_has_room_by_now_is_read_again(tmp_path: Path, monkeypatch) -> None:
    run = read_run(written_run(tmp_path))
    both = {Place("train", 1, 0): ["one"], Place("train", 2, 0): []}
    size = filled(run, {Place("train", 1, 0): []}).num_bytes
    small = filled(run, both, size)
    assert [group["id"] for group in small.groups] == ["train/1-0"]
    small.keep(run.path)

    def never(group: KeptGroup) -> dict:
        raise AssertionError(group.place)

    again = shelf(size)
    again.make = never
    again.recall(run.path)
    digests = {"train": KeptDigests(run.path).of(run.rollouts), "held_out": {}}
    again.add(both, digests, {"train": run.rollouts, "held_out": {}})
    assert again.groups == small.groups
    large = filled(run, both)
    assert [group["id"] for group in large.groups] == ["train/1-0", "train/2-0"]


def gone(run: Path, name: str) -> None:
    (run / name).unlink()


def torn(run: Path, name: str) -> None:
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) * 2 // 3])


def garbled(run: Path, name: str) -> None:
    lines = (run / name).read_text().splitlines()
    (run / name).write_text("\n".join(line.replace('"', "'", 3) if n % 2 else line for n, line in enumerate(lines)))


def of_another_version(run: Path, name: str) -> None:
    lines = (run / name).read_text().splitlines()
    lines[0] = "[0, []]"
    (run / name).write_text("\n".join(line.replace('"format":3', '"format":2') for line in lines) + "\n")


def as_folder(run: Path, name: str) -> None:
    (run / name).unlink()
    (run / name).mkdir()


def fresh(run: Path) -> str:
    """The data of a report that is made of the files alone."""
    for name in (KEPT, FILE):
        if (run / name).is_dir():
            (run / name).rmdir()
        (run / name).unlink(missing_ok=True)
    return json.dumps(report_data([read_run(run)]))


@pytest.mark.parametrize("name", [KEPT, FILE])
@pytest.mark.parametrize("harm", [gone, torn, garbled, of_another_version, as_folder])
def test_a_report_is_the_same_whatever_became_of_what_is_kept(
    name: str, harm: Callable[[Path, str], None], tmp_path: Path
) -> None:
    run = written_run(tmp_path, steps=9, every=3)
    report_data([read_run(run)])
    harm(run, name)
    found = json.dumps(report_data([read_run(run)]))
    again = json.dumps(report_data([read_run(run)]))
    assert found == again == fresh(run)


def test_a_report_of_a_resumed_run_is_that_of_its_files(tmp_path: Path) -> None:
    run = written_run(tmp_path, steps=9, every=3)
    report_data([read_run(run)])
    directory = RunDirectory(load("countdown-tiny", [f"runs_dir={tmp_path}", "name=one", "num_steps=9"]))
    directory.truncate_after(4)
    cut = json.dumps(report_data([read_run(run)]))
    for step in (5, 6):  # done again, with another outcome
        groups = [scored_group(f"train/{step}-{n}", [True, n == 0], 7, text="wait, let me check") for n in range(3)]
        directory.write_rollouts(step, [(group, [0.5, -0.5]) for group in groups])
        directory.log_metrics(step, rollout_metrics(groups))
        found = json.dumps(report_data([read_run(run)]))
    assert found == fresh(run)
    directory.truncate_after(4)
    assert cut == fresh(run)


def test_completions_are_split_again_where_a_tokenizer_has_come(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    report_data([read_run(run)])
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate("abcde")}, "a"))
    tokenizer.save(str(run / "tokenizer.json"))
    found = json.dumps(report_data([read_run(run)]))
    assert '"pieces": ["a", ' in found and found == fresh(run)


def test_a_report_of_other_steps_leaves_what_is_kept_alone(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path))
    report_data([run])
    kept = (run.path / FILE).read_bytes()
    report_data([run], steps=[3])
    assert (run.path / FILE).read_bytes() == kept
