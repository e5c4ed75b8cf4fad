"""Rows of files: what can be read, and what the errors name."""

from __future__ import annotations

import pytest

from rollout.tasks.datasets import RowError, column, read_rows, same_question, text_column


def test_a_missing_file_names_the_setting() -> None:
    with pytest.raises(FileNotFoundError, match=r"prompts\.x\.source = 'none\.jsonl': no such file"):
        read_rows("none.jsonl", "prompts.x.source")


def test_an_unreachable_data_set_names_subset_split_and_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"'no/such', subset 'main', split 'train'.* or source = \"generated\""):
        read_rows("no/such", "prompts.x.source", "main", hint='source = "generated"')


def test_columns() -> None:
    row = {"problem": " x ", "empty": " ", "number": 3, "null": None}
    assert column(row, ("null", "number"), "here") == 3
    assert text_column(row, "problem", "here") == "x"
    with pytest.raises(RowError, match=r"rows.jsonl, row 7: no 'question' or 'query'; it has \['empty', 'null'"):
        column(row, ("question", "query"), "rows.jsonl, row 7")
    for name in ("empty", "number"):
        with pytest.raises(RowError, match=f"`{name}` must be text and not empty"):
            text_column(row, name, "here")


def test_a_long_row_is_cut_in_the_error() -> None:
    with pytest.raises(RowError) as raised:
        column({"passage": "x" * 10_000}, "question", "here")
    assert len(str(raised.value)) < 500


def test_questions_that_differ_in_spaces_and_capitals_are_the_same() -> None:
    assert same_question(" How  many?\n") == same_question("how many?") != same_question("how many")
