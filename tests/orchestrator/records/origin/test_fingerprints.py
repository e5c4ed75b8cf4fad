"""What a run was started from is compared with what it would continue with, and each difference is named."""

import json
from pathlib import Path

import pytest

from orchestrator.records.origin.fingerprints import BASE, Fingerprints, check_changes, read_summary
from orchestrator.records.run_directory import RunDirectoryError
from rollout.problems.fingerprint import Fingerprint
from rollout.prompts.entry_fingerprints import EntryFingerprint
from tests.support.full_disk import files_below, full_disk

ROWS = [(f"question {n}", f"answer {n}", f"rows.jsonl, line {n}") for n in range(1, 31)]
MODEL = {"config.json": "2:a", "model.safetensors": "9:b"}


def of(rows=ROWS, held_out=5, model=MODEL, split="by_key") -> Fingerprints:
    entry = EntryFingerprint("rows.jsonl", Fingerprint.of(rows), Fingerprint.of(rows[:held_out]))
    return Fingerprints({"prompts.gsm8k": entry}, {BASE: model}, split)


@pytest.fixture
def before(tmp_path: Path) -> dict:
    of().write(tmp_path)
    found = read_summary(tmp_path)
    assert found == json.loads(json.dumps(of().summary()))
    return found


def test_nothing_is_said_of_what_is_the_same(before, tmp_path) -> None:
    assert of().changes(before, tmp_path) == [] == of([*ROWS[:5], *ROWS[:4:-1]]).changes(before, tmp_path)
    assert of().changes({}, tmp_path) == [] == of(ROWS[1:]).changes(before | {"format": 99}, tmp_path)


def test_rows_held_out_problems_and_files_are_told(before, tmp_path) -> None:
    changed = [("question 1", "2", "rows.jsonl, line 1"), *ROWS[2:], ("new", "7", "rows.jsonl, line 30")]
    assert of(changed, model=MODEL | {"model.safetensors": "9:c", "tokenizer.json": "1:d"}).changes(
        before, tmp_path
    ) == [
        "prompts.gsm8k (rows.jsonl) had 30 rows and has 30: 1 added (line 30), 1 removed, 1 with another question or "
        "answer (line 1)",
        "prompts.gsm8k: 1 of the 5 held-out problems were not held out before: the policy may have been "
        "trained on them",
        "the base model has changed: model.safetensors, tokenizer.json",
    ]


def test_without_the_hashes_of_then_the_count_is_told(before, tmp_path) -> None:
    (tmp_path / "fingerprints.npz").unlink()
    assert of(ROWS[1:]).changes(before, tmp_path)[0] == "prompts.gsm8k (rows.jsonl) had 30 rows and has 29: other rows"
    (tmp_path / "fingerprints.npz").write_bytes(b"torn")
    assert of(ROWS[1:]).changes(before, tmp_path)[0].endswith("other rows")
    of(ROWS[2:]).write(tmp_path)  # of another time than the checkpoint
    assert of(ROWS[1:]).changes(before, tmp_path)[0].endswith("other rows")


def test_questions_that_are_worded_otherwise_are_compared_by_their_keys(before, tmp_path) -> None:
    worded = [(key, f"worded: {content}", place) for key, content, place in ROWS]
    assert of(worded).changes(before, tmp_path, only_keys=True) == []
    assert len(of(worded).changes(before, tmp_path)) == 2


def test_the_order_is_told_where_problems_are_held_out_by_position(tmp_path) -> None:
    old = of(split="by_position")
    old.write(tmp_path)
    now = of([*ROWS[:5], *ROWS[:4:-1]], split="by_position")
    assert now.changes(old.summary(), tmp_path) == [
        "prompts.gsm8k (rows.jsonl) had 30 rows and has 30: the same rows in another order"
    ]


def test_a_model_of_the_hub_is_told_by_its_commits(tmp_path) -> None:
    before = of(model={"revision": "abc"}).summary()
    assert of(model={"revision": "def"}).changes(before, tmp_path) == [
        "the base model was commit abc of the hub, now def"
    ]


def test_a_change_is_refused_unless_it_is_allowed_and_then_logged(caplog) -> None:
    with pytest.raises(
        RunDirectoryError, match=r"(?s)^the run would continue with other data:\n  a\n  b\n.*allow_changes=true"
    ):
        check_changes(["a", "b"], "the run would continue with other data", is_allowed=False)
    check_changes(["a", "b"], "the run would continue with other data", is_allowed=True)
    assert "other data:\n  a\n  b. Continuing because of checkpoint.allow_changes=true" in caplog.text
    check_changes([], "nothing", is_allowed=False)


def test_no_summary_is_read_where_there_is_none(tmp_path) -> None:
    assert read_summary(tmp_path) is None
    (tmp_path / "fingerprints.json").write_text("[1]")
    assert read_summary(tmp_path) is None


@pytest.mark.parametrize("limit", [0, 300])
def test_on_a_full_disk_those_of_before_stay_and_nothing_torn(before, tmp_path, limit) -> None:
    with full_disk(limit), pytest.raises(OSError, match=r"File too large: '.*fingerprints\.npz'"):
        of(ROWS[1:]).write(tmp_path)
    assert files_below(tmp_path) == {"fingerprints.npz", "fingerprints.json"}
    assert of().changes(before, tmp_path) == []
