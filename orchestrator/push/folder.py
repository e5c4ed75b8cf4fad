"""Write the folder that is uploaded: the trained model, its adapter, a card, the recipe and the curve."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from orchestrator.config.recipe import ConfigError
from orchestrator.push.card import Card
from orchestrator.records.files.atomic_file import write_atomically
from orchestrator.report.plots import draw_curve
from orchestrator.report.reading.privacy import last_part
from orchestrator.report.reading.recorded_run import RecordedRun

CARD, RECIPE, CURVE = "README.md", "recipe.toml", "curve.png"
ADAPTER = "adapter"
"""The sub-folder of `final/` with the adapter of a run with LoRA."""
ENDINGS = (".json", ".jinja", ".model", ".safetensors", ".tiktoken", ".txt")
"""Endings of a model's files. Other files in the folder are not uploaded."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Files that are uploaded unchanged, because their tokens may look like folders."""
BASE_KEY = "base_model_name_or_path"
WHOLE_PATH = re.compile(r"(?:~[\w.-]*|[A-Za-z]:)?(?:[/\\][^/\\\n]+){2,}[/\\]?|~[\w.-]*[/\\][^/\\\n]+[/\\]?")
"""A text that is nothing but a path. Such a path may contain spaces, unlike a path within a sentence."""


def write_folder(run: RecordedRun, card: Card, folder: Path) -> None:
    """Write everything into a new folder. Weights are linked if the file system supports it, otherwise copied.

    Raises ConfigError if a file cannot be written.
    """
    try:
        for file in files_of(run.path / "final"):
            take(file, folder / file.relative_to(run.path / "final"), card)
        if any("reward/total" in row for row in run.rows):
            draw_curve(run.rows, folder / CURVE, card.title)
        write_atomically(folder / RECIPE, card.recipe)
        write_atomically(folder / CARD, card.text)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}): choose another folder with --output"
        ) from error


def files_of(final: Path) -> list[Path]:
    """Return the files of the model and of its adapter."""
    return sorted(
        file
        for parent in (final, final / ADAPTER)
        for file in parent.glob("*")
        if file.suffix in ENDINGS and file.is_file()
    )


def take(file: Path, target: Path, card: Card) -> None:
    """Link or copy a file. In JSON settings shorten paths, which name folders of this machine."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".json" and file.name not in VOCABULARIES:
        settings = json.loads(file.read_text("utf-8"))
        if isinstance(settings, dict) and BASE_KEY in settings:
            settings[BASE_KEY] = card.base.hub or card.base.name
        target.write_text(json.dumps(without_folders(settings), indent=2, ensure_ascii=False) + "\n", "utf-8")
        return
    try:
        os.link(file.resolve(), target)
    except OSError:  # another file system, or a file system without links
        shutil.copyfile(file, target)


def without_folders(value: Any) -> Any:
    """Return settings in which each path is shortened to its last part."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    if isinstance(value, str) and WHOLE_PATH.fullmatch(value):
        return last_part(value)
    return value


def differing(folder: Path, new: Path) -> list[str]:
    """Return the files of an old folder that the new one does not have, or has with other content; not the curve."""
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_symlink() or not file.is_dir())
    return [str(file) for file in files if str(file) != CURVE and not is_same(folder / file, new / file)]


def is_same(one: Path, other: Path) -> bool:
    """Return whether two files have the same content. Files with the same type, size and time are not read."""
    return one.is_file() and other.is_file() and filecmp.cmp(one, other)
