"""Rows of a local file or a hub data set, with errors that name the setting, or the row and the column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""File names' endings -> the loader of `datasets`."""
MAX_SHOWN = 300
"""Characters of a row that an error shows."""


class RowError(ValueError):
    """A row that is no problem; the message names the source, the row and the column."""


def is_file(source: str) -> bool:
    """Whether the source is a local file, by the ending of its name."""
    return Path(source).suffix in BUILDERS


def read_rows(source: str, key: str, subset: str = "", split: str = "train", hint: str = "") -> Iterable[Row]:
    """Rows of a local .jsonl, .json or .parquet file, or of a split of a hub data set.

    Args:
        source: the file's path, or the data set's name such as `openai/gsm8k`.
        key: the setting that holds it, for errors, such as `prompts.gsm8k.source`.
        subset: the hub data set's configuration, such as `main`; empty for its only one. Files have none.
        split: the hub data set's split. A file is one split.
        hint: what else the setting may be, for the error about the hub.

    Raises FileNotFoundError for a file that is not there, ValueError for one that cannot be read, ConnectionError when
    the hub data set cannot be loaded.
    """
    import datasets

    if is_file(source):
        if not Path(source).is_file():
            raise FileNotFoundError(f"{key} = {source!r}: no such file")
        try:
            rows: Iterable[Row] = datasets.load_dataset(BUILDERS[Path(source).suffix], data_files=source, split="train")
        except Exception as error:
            raise ValueError(f"{key} = {source!r} cannot be read ({type(error).__name__}: {error})") from error
        return rows
    where = f"{source!r}" + f", subset {subset!r}" * bool(subset) + f", split {split!r}"
    try:
        hub_rows: Iterable[Row] = datasets.load_dataset(source, subset or None, split=split)
    except Exception as error:
        raise ConnectionError(
            f"{key} = {where}: neither a .jsonl, .json or .parquet file nor a hub data set that can be loaded from here "
            f"({type(error).__name__}: {error}). Check the name, its subset and split, and the network"
            + (f", or {hint}" if hint else "")
        ) from error
    return hub_rows


def column(row: Row, names: str | Sequence[str], where: str) -> Any:
    """The value of the first of the columns that the row has. Raises RowError when it has none of them."""
    names = [names] if isinstance(names, str) else names
    for name in names:
        if row.get(name) is not None:
            return row[name]
    wanted = " or ".join(map(repr, names))
    raise RowError(f"{where}: no {wanted}; it has {sorted(row)}: {shown(row)}")


def text_column(row: Row, names: str | Sequence[str], where: str) -> str:
    """The same for a text, stripped. Raises RowError when it is no text, or empty."""
    value = column(row, names, where)
    if not isinstance(value, str) or not value.strip():
        wanted = names if isinstance(names, str) else " or ".join(names)
        raise RowError(f"{where}: `{wanted}` must be text and not empty: {shown(row)}")
    return value.strip()


def shown(row: Row) -> str:
    """The row for an error, cut where it is long."""
    text = str(dict(row))
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def same_question(question: str) -> str:
    """The question's words in lower case: what stands twice with other spaces or capitals is the same problem."""
    return " ".join(question.casefold().split())
