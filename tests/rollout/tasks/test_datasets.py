"""Rows of files: what can be read, and what the errors name."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from rollout.tasks.datasets import RowError, column, read_rows, same_question, text_column

ROWS = [{"question": "1 + 1?", "answer": "2"}, {"question": "1 + 2?", "answer": "3"}]


def test_jsonl_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    jsonl, parquet = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), parquet)
    assert list(read_rows(str(jsonl), "prompts.x.source")) == ROWS
    assert list(read_rows(str(parquet), "prompts.x.source")) == ROWS


def test_a_missing_file_names_the_setting() -> None:
    with pytest.raises(FileNotFoundError, match=r"prompts\.x\.source = 'none\.jsonl': no such file"):
        read_rows("none.jsonl", "prompts.x.source")


def test_a_broken_file_names_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": 1}\nnot JSON\n')
    with pytest.raises(ValueError, match=r"prompts\.x\.source = .* cannot be read"):
        read_rows(str(path), "prompts.x.source")


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
