"""Rows of hub data sets, or of a folder with the same layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollout.rows.files import READERS, ROWS_PER_BATCH, numbers_of
from rollout.rows.row import LocatedRow

GUESSED = ("json", "csv")
"""Formats for which `datasets` guesses types: dates become timestamps, and `"007"` beside a number 7."""


def hub_rows(source: str, key: str, subset: str = "", split: str = "train", hint: str = "") -> Iterator[LocatedRow]:
    """Return the rows of a split. JSON and CSV files are read as local ones are, all others by their own types.

    Args:
        key: the setting that names the data set, for errors.
        subset: its configuration; empty for its only one.
        hint: what else the setting may be, for errors.

    Raises ConnectionError when the data set, or its split, cannot be loaded, ValueError when there are no rows.
    """
    import datasets

    where = f"{key} = {source!r}" + f", subset {subset!r}" * bool(subset) + f", split {split!r}"
    try:
        builder = datasets.load_dataset_builder(source, subset or None)
        if builder.name in GUESSED:
            return _filled(_file_rows(builder, source, _files_of(builder, split)), where)
        builder.download_and_prepare()
        return _filled(_typed_rows(builder.as_dataset(split=split), source), where)
    except Exception as error:
        raise ConnectionError(
            f"{where}: neither a file nor a hub data set that can be loaded from here "
            f"({type(error).__name__}: {error}). Check the name, its subset and split, and the network"
            + (f", or {hint}" if hint else "")
        ) from error


def _filled(rows: Iterator[LocatedRow], where: str) -> Iterator[LocatedRow]:
    is_empty = True
    for row in rows:
        is_empty = False
        yield row
    if is_empty:
        raise ValueError(f"{where} has no rows: name another split")


def _typed_rows(rows: Any, source: str) -> Iterator[LocatedRow]:
    arrow = rows.with_format("arrow")
    numbers: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        place = number % ROWS_PER_BATCH
        if place == 0:
            numbers = numbers_of(arrow[number : number + ROWS_PER_BATCH])
        yield LocatedRow(f"{source}, row {number}", row | {name: values[place] for name, values in numbers.items()})


def _files_of(builder: Any, split: str) -> list[tuple[str, str]]:
    """Return the name and the local path of each file of a split; downloads missing files."""
    import datasets

    files = builder.config.data_files
    if split not in files:
        raise ValueError(f"there is no split {split!r}, but {', '.join(repr(str(name)) for name in files)}")
    downloads = datasets.DownloadManager(dataset_name=builder.dataset_name, base_path=builder.base_path)
    local = downloads.download_and_extract(list(files[split]))
    return [
        (Path(name).name, path)
        for name, held in zip(files[split], local, strict=True)
        for path in downloads.iter_files(held)
    ]


def _file_rows(builder: Any, source: str, files: list[tuple[str, str]]) -> Iterator[LocatedRow]:
    for name, path in files:
        yield from READERS[builder.name](Path(path), f"{source}, {name}")
