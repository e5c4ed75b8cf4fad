"""Rows of files: every value as it was written, every mistake with file, place and fix."""

from __future__ import annotations

import datetime
import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from rollout.rows.files import file_rows, format_of
from rollout.rows.json_text import json_text
from rollout.rows.row import RowError

QUESTION, ANSWER = '{"q": "1 + 1?", "a": "2"}\n', '{"q": "1 + 2?", "a": "3"}\n'
ROWS = [{"q": "1 + 1?", "a": "2"}, {"q": "1 + 2?", "a": "3"}]


def read(path: Path, content: bytes | str = b"") -> list[Any]:
    """Write the file, and return what its rows are: their columns, or the error of a bad one as text."""
    if content:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    rows = file_rows(str(path), "prompts.x.source")
    return [str(each.found) if isinstance(each.found, RowError) else each.found for each in rows]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", QUESTION + ANSWER),
        ("rows.jsonl", "\n" + QUESTION + "  \r\n" + ANSWER.strip()),
        ("ROWS.JSONL", QUESTION.replace("\n", "\r\n") + ANSWER),
        ("rows.jsonl", b"\xef\xbb\xbf" + (QUESTION + ANSWER).encode()),
        ("rows.jsonl.gz", gzip.compress((QUESTION + ANSWER).encode(), mtime=0)),
        ("rows.Json.GZ", gzip.compress(f"[{QUESTION}, {ANSWER}]".encode(), mtime=0)),
        ("rows.json", f" [{QUESTION}, {ANSWER}]\n"),
        ("rows.json", QUESTION + ANSWER),
        ("rows.jsonl", f"\n[\n{QUESTION},{ANSWER}\n]\n"),
        ("rows.csv", "q,a\n1 + 1?,2\n\n1 + 2?,3\n"),
        ("rows.csv", b'\xef\xbb\xbf"q","a"\r\n"1 + 1?","2"\r\n"1 + 2?","3"\r\n'),
        ("rows.csv.gz", gzip.compress(b"q,a\n1 + 1?,2\n1 + 2?,3", mtime=0)),
    ],
)
def test_the_same_rows_in_every_kind_of_file(name: str, content: bytes | str, tmp_path: Path) -> None:
    assert read(tmp_path / name, content) == ROWS


def test_parquet_holds_the_same_rows_by_its_own_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert read(path) == ROWS
    day = datetime.date(2024, 1, 1)
    columns = {
        "text": pyarrow.array(["007", "2024-01-01"]),
        "day": pyarrow.array([day, None]),
        "half": pyarrow.array([0.1, None], pyarrow.float32()),
        "whole": pyarrow.array([2**64 - 1, 7], pyarrow.uint64()),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert read(path) == [
        {"text": "007", "day": day, "half": 0.1, "whole": 2**64 - 1},
        {"text": "2024-01-01", "day": None, "half": None, "whole": 7},
    ]


def test_floats_of_parquet_have_their_own_digits_and_nan_is_a_missing_value(tmp_path: Path) -> None:
    path, single = tmp_path / "rows.parquet", pyarrow.float32()
    columns = {
        "quarter": pyarrow.array(numpy.array([0.1, 0.25], numpy.float16)),
        "list": pyarrow.array([[0.1, None], None], pyarrow.list_(single)),
        "pair": pyarrow.array([[0.1, 1e20], [1 / 3, 7]], pyarrow.list_(single, 2)),
        "struct": pyarrow.array(
            [{"a": {"b": [0.1]}}, None], pyarrow.struct({"a": pyarrow.struct({"b": pyarrow.list_(single)})})
        ),
        "single": pyarrow.array([numpy.nan, 2.5], single),
        "double": pyarrow.array([0.1, numpy.nan]),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert read(path) == [
        {
            "quarter": 0.1,
            "list": [0.1, None],
            "pair": [0.1, 1e20],
            "struct": {"a": {"b": [0.1]}},
            "single": None,
            "double": 0.1,
        },
        {"quarter": 0.25, "list": None, "pair": [0.33333334, 7.0], "struct": None, "single": 2.5, "double": None},
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize(
    "values",
    [
        ['"2024-01-01"', '"2024-02-30"', '"2024-01-01T10:00:00Z"'],
        ['"007"', "7", '"7"'],
        ["7", "2.5", "2.50", "2.0", "-0.0", "1e3", "1E+3", "0.1000000000000000055511151231257827"],
        ["9223372036854775807", "9223372036854775808", "123456789012345678901234567890"],
        ["true", "null", '"true"', '"null"', '""', '" "', '"nan"'],
        ["[1, 2.50]", '["a"]', '"a"', '{"b": 1.0}', "{}", "[]"],
        ['"1,200"', '"½ \u2028 😀"', '"\\\\ud83d"', '" 12 "'],
    ],
)
def test_values_of_other_rows_do_not_change_a_value(name: str, values: list[str], tmp_path: Path) -> None:
    lines = [f'{{"q": {value}}}' for value in values]
    text = "\n".join(lines) if name.endswith("l") else f"[{', '.join(lines)}]"
    found = [row["q"] for row in read(tmp_path / name, text)]
    assert [json_text(value) for value in found] == values
    assert found == [json.loads(value) for value in values]
    assert [json_text(value) for value in pickle.loads(pickle.dumps(found))] == values


def test_csv_values_are_text_and_may_hold_commas_quotes_and_lines(tmp_path: Path) -> None:
    text = 'q,a\n"one, ""two""\nthree",007\nx,\ny,z,1\nv,2.50\n'
    assert read(tmp_path / "rows.csv", text) == [
        {"q": 'one, "two"\nthree', "a": "007"},
        {"q": "x", "a": ""},
        f"{tmp_path}/rows.csv, line 5 has 3 values for the 2 columns ['q', 'a']: put a value that holds commas in "
        "quotes",
        {"q": "v", "a": "2.50"},
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not JSON", "line 2 is not JSON (Expecting value at column 1): write one object per line"),
        ("{'q': 1}", "line 2 is not JSON (Expecting property name enclosed in double quotes at column 2): write"),
        ('{"q": 1}}', "line 2: its object is followed by '}': write one object per line"),
        ("[1, 2]", "line 2 is not an object, but [1, 2]: write one object per line"),
        ("7", "line 2 is not an object, but 7: write"),
        ('{"q": NaN}', "line 2: NaN is not a number in JSON: write a text in quotes, null, or leave the row out"),
        ('{"q": -Infinity}', "line 2: -Infinity is not a number in JSON"),
        ('{"q": 1e999}', "line 2: 1e999 is above what a number holds: write it as text, in quotes"),
        (f'{{"q": {"1" * 5000}}}', "line 2: a whole number of 5000 digits is above what is read: write it as text"),
        ('{"q": 1, "a": 2, "q": 3}', "line 2: 'q' occurs twice in one object: remove one of them"),
        ('{"q": ' + "[" * 100_000, "line 2 is nested too deep: write a flat object"),
        ('{"q": "\\ud83d!"}', "line 2: column 'q' holds \\ud83d, half of a character that takes two"),
        ('{"q": {"b": ["\\uDE00"]}}', "line 2: column 'q' holds \\ude00, half of a character"),
        ('{"\\ud83d": 1}', "holds \\ud83d, half of a character"),
        (
            b'{"q": "caf\xe9"}',
            "line 2 is not UTF-8 (byte 0xe9 at position 11): save the file as UTF-8, such as with `iconv",
        ),
        (b'{"q": "\xed\xa0\xbd"}', "line 2 is not UTF-8 (byte 0xed at position 8)"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(line: bytes | str, message: str, tmp_path: Path) -> None:
    bad = line if isinstance(line, bytes) else line.encode()
    first, found, last = read(tmp_path / "rows.jsonl", QUESTION.encode() + bad + b"\n" + ANSWER.encode())
    assert [first, last] == ROWS
    assert found.startswith(f"{tmp_path}/rows.jsonl, line 2") and message in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"q": 1},\n {"q": 2,}]', r"row 1 is not JSON \(.* at line 2, column 10\): write"),
        ('[{"q": 1} {"q": 2}]', r"row 0 is followed by '\{\"q\": 2\}\]' instead of `,` or `\]`: fix the list"),
        ('[{"q": 1}', "row 0 is followed by the end of the file instead of"),
        ('[{"q": 1}, 3]', "row 1 is not an object, but 3: write"),
        ('[{"q": 1}] x', "the list is followed by 'x': remove it"),
        ('[{"q": "\\ud83d"}]', "row 0: column 'q' holds .ud83d"),
        (b'[{"q": "\xe9"}]', r"rows.json is not UTF-8 \(byte 0xe9 at position 9\)"),
    ],
)
def test_a_bad_list_names_the_row(content: bytes | str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RowError, match=message):
        read(tmp_path / "rows.json", content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", "\n \n", "has no rows: give a file that has some, one object per line"),
        ("rows.json", "[]", "has no rows"),
        ("rows.csv", "q,a\n", "has no rows"),
        ("rows.csv", "q,q\n1,2\n", "cannot be read (its first line names a column twice: ['q', 'q'])"),
        ("rows.csv", 'q,a\n"x,1\n', "cannot be read (Error: unexpected end of data)"),
        ("rows.csv", b"q,a\nx,\xe9\n", "line 2 is not UTF-8 (byte 0xe9 at position 3)"),
        ("rows.jsonl", QUESTION.encode("utf-16"), "it is UTF-16, not UTF-8: save it as UTF-8, such as with `iconv"),
        ("rows.csv", "q,a\n1,2\n".encode("utf-16"), "it is UTF-16, not UTF-8"),
        (
            "rows.jsonl.gz",
            gzip.compress((QUESTION * 50).encode(), mtime=0)[:-9],
            "cannot be read (EOFError: Compressed file ended",
        ),
        ("rows.parquet", "PAR1", "cannot be read (ArrowInvalid: Parquet"),
        ("rows.tsv", "q\ta\n", "ends in '.tsv', which is not read: save it as one of .jsonl, .json, .csv, "),
        ("rows.jsonl.zip", "PK", "ends in '.zip', which is not read"),
        ("rows", QUESTION, "has no ending, and so is not read: save it as one of .jsonl"),
    ],
)
def test_a_file_that_is_no_data_names_setting_and_fix(
    name: str, content: bytes | str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as raised:
        read(tmp_path / name, content)
    assert message in str(raised.value)
    assert f"{tmp_path}/{name}" in str(raised.value)


def test_an_empty_file_a_folder_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(ValueError, match=r"prompts\.x\.source = .*rows.jsonl' has no rows"):
        read(tmp_path / "rows.jsonl")
    with pytest.raises(FileNotFoundError, match="Is a directory; name a file in it"):
        file_rows(str(tmp_path), "prompts.x.source")
    with pytest.raises(FileNotFoundError, match=r"prompts\.x\.source = 'none\.jsonl': no such file"):
        file_rows("none.jsonl", "prompts.x.source")


def test_parquet_text_that_is_not_utf_8_names_its_row(tmp_path: Path) -> None:
    offsets = pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0\4\0\0\0")
    column = pyarrow.Array.from_buffers(pyarrow.string(), 3, [None, offsets, pyarrow.py_buffer(b"a\xff\xfeb")])
    pyarrow.parquet.write_table(pyarrow.table({"q": column}), tmp_path / "rows.parquet")
    first, bad, last = read(tmp_path / "rows.parquet")
    assert (first, last) == ({"q": "a"}, {"q": "b"})
    assert "rows.parquet, row 1 holds text that is not UTF-8" in bad


def test_parquet_with_two_columns_of_a_name_is_refused(tmp_path: Path) -> None:
    twice = pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["q", "q"])
    pyarrow.parquet.write_table(twice, tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"it names a column twice: \['q', 'q'\]"):
        read(tmp_path / "rows.parquet")


def test_a_line_without_end_is_refused_rather_than_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.rows.json_text.MAX_LINE_BYTES", 100)
    with pytest.raises(RowError, match="line 2 has 100 bytes or more: it is not a row"):
        read(tmp_path / "rows.jsonl", QUESTION + '{"q": "' + "x" * 1000)


def test_the_home_folder_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text(QUESTION)
    assert [each.row for each in file_rows("~/rows.jsonl", "prompts.x.source")] == ROWS[:1]


def test_names_tell_the_format() -> None:
    names = ("a.jsonl", "a.JSON.GZ", "b/a.b.csv", "a.parquet", "a.parquet.gz", "a.gz", "openai/gsm8k", "org/name-v1.5")
    assert [format_of(name) for name in names] == ["json", "json", "csv", "parquet", None, None, None, None]
