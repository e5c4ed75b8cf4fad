"""Fingerprints of what a recipe asks: all that is shown and graded counts, and nothing else."""

import json
from pathlib import Path

import pytest

from rollout.prompts.config import PromptsConfig
from rollout.prompts.entry_fingerprints import fingerprints
from rollout.prompts.mixture import Mixture

ROWS = [{"id": n, "question": f"What is {n}?", "hint": f"Hint {n}.", "note": "", "answer": f"{n}"} for n in range(20)]


def summaries(tmp_path: Path, rows=ROWS, **settings) -> dict:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "num_held_out": 5,
        "task": "jsonl",
        "template": "{question} {hint}",
        "jsonl": {"source": str(file), "key_column": "id"},
    }
    config = PromptsConfig.model_validate(given | settings)
    (found,) = fingerprints(config, Mixture(config)).values()
    return {"rows": found.rows.summary(), "held_out": found.held_out.summary()}


def test_the_order_of_rows_and_what_nobody_sees_do_not_count(tmp_path) -> None:
    before = summaries(tmp_path)
    assert before["rows"]["count"] == 20 and before["held_out"]["count"] == 5
    assert summaries(tmp_path, ROWS[::-1]) == before
    assert summaries(tmp_path, [row | {"note": "seen by nobody"} for row in ROWS]) == before


@pytest.mark.parametrize(("column", "parts"), [("question", "contents"), ("hint", "contents"), ("answer", "contents")])
def test_what_is_shown_or_graded_counts(tmp_path, column, parts) -> None:
    before = summaries(tmp_path)
    now = summaries(tmp_path, [ROWS[0] | {column: "another"}, *ROWS[1:]])
    assert now["rows"][parts] != before["rows"][parts] and now["rows"]["keys"] == before["rows"]["keys"]


def test_rows_that_are_of_no_use_count_too(tmp_path) -> None:
    """They may be of use later, as when a limit is raised: a resume must not take that for other data."""
    before = summaries(tmp_path)
    bad = [{"id": 100, "question": "Without an answer?"}, {"id": 101, "question": "Nor this?"}]
    now = summaries(tmp_path, [*ROWS, *bad])
    assert now["rows"]["count"] == 22 and now["held_out"] == before["held_out"]
    assert summaries(tmp_path, [bad[1], *ROWS, bad[0]]) == now
    assert summaries(tmp_path, [*ROWS, bad[0], bad[1] | {"question": "Another?"}])["rows"] != now["rows"]


def test_rows_that_no_grader_can_grade_count_too(tmp_path) -> None:
    def fingerprint(*rows: dict) -> dict:
        file = tmp_path / "problems.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = PromptsConfig.model_validate({"num_held_out": 1, "task": "code", "code": {"source": str(file)}})
        return fingerprints(config, Mixture(config))["prompts.code"].rows.summary()

    good = [{"text": f"Add {n}.", "code": "def f(x): ...", "test_list": [f"assert f(1) == {n}"]} for n in range(3)]
    ungradable = {"text": "Make a node.", "code": "class Node: ...", "test_list": ["assert f(Node(1)) == Node(2)"]}
    found = fingerprint(*good, ungradable)
    assert found["count"] == 4 and found != fingerprint(*good, ungradable | {"text": "Make another node."})


def test_of_drawn_problems_the_held_out_ones_count(monkeypatch) -> None:
    config = PromptsConfig.model_validate({"num_held_out": 9})
    found = fingerprints(config, Mixture(config))["prompts.countdown"]
    assert found.rows is None and found.held_out.summary()["count"] == 9 and found.source == "generated"
    other = config.model_copy(update={"seed": 1})
    assert fingerprints(other, Mixture(other))["prompts.countdown"].held_out.summary() != found.held_out.summary()


def test_entries_of_a_mixture_are_called_as_in_the_recipe() -> None:
    mixture = {"easy": {"countdown": {"max_number": 9}}, "words": {"task": "word_problems"}}
    config = PromptsConfig.model_validate({"num_held_out": 9, "mixture": mixture})
    assert list(fingerprints(config, Mixture(config))) == ["prompts.mixture.easy", "prompts.mixture.words"]
