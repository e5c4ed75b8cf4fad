"""Data sets of several files. The hub cannot be reached from the tests: folders laid out as one stand in for it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from rollout.rows.files import file_rows
from rollout.rows.hub import hub_rows

ROWS = [{"q": "2024-01-01", "a": "007"}, {"q": "x", "a": "2024-01-02"}]


def lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_json_files_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "train-0.jsonl").write_bytes(lines(ROWS))
    (tmp_path / "train-1.jsonl.gz").write_bytes(gzip.compress(b'{"q": 7, "a": 2.50}\n'))
    (tmp_path / "test.jsonl").write_bytes(lines(ROWS[:1]))
    found = list(hub_rows(str(tmp_path), "prompts.x.source"))
    assert [each.row for each in found] == [*ROWS, {"q": 7, "a": 2.5}]
    assert str(found[2].row["a"]) == "2.50"
    assert found[1].where == f"{tmp_path}, train-0.jsonl, line 2"
    assert [each.row for each in hub_rows(str(tmp_path), "prompts.x.source", split="test")] == ROWS[:1]


def test_csv_files_are_text(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("q,a\n2024-01-01,007\n7,\n")
    found = [each.row for each in hub_rows(str(tmp_path), "prompts.x.source")]
    assert found == [{"q": "2024-01-01", "a": "007"}, {"q": "7", "a": ""}]


def test_parquet_has_types_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "train.parquet")
    first, second = hub_rows(str(folder), "prompts.x.source")
    assert [first.row, second.row] == ROWS and second.where == f"{folder}, row 1"


def test_floats_of_parquet_are_those_of_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / "data" / "train.parquet"
    file.parent.mkdir()
    numbers = [number / 10 for number in range(1500)]
    values = pyarrow.array([float("nan"), *numbers], pyarrow.float32())
    pyarrow.parquet.write_table(pyarrow.table({"q": ["x", *map(str, numbers)], "a": values}), file)
    found = [each.row for each in hub_rows(str(file.parent), "prompts.x.source")]
    assert found == [each.row for each in file_rows(str(file), "prompts.x.source")]
    assert [row["a"] for row in found] == [None, *numbers]


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(lines(ROWS))
    with pytest.raises(ConnectionError, match=r"prompts\.x\.source = .*no split 'train\[:1\]', but 'train'"):
        hub_rows(str(tmp_path), "prompts.x.source", split="train[:1]")


def test_an_empty_split_is_said(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b"\n")
    with pytest.raises(ValueError, match=r"split 'train' has no rows: name another split"):
        list(hub_rows(str(tmp_path), "prompts.x.source"))
