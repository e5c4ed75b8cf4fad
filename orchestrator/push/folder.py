"""The folder that is uploaded: the trained model, its adapter, a card, the recipe and the curve."""

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
"""The sub-folder of `final/` where a run with LoRA has its adapter."""
ENDINGS = (".json", ".jinja", ".model", ".safetensors", ".tiktoken", ".txt")
"""Files of a model. Whatever else somebody put beside them stays here."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Their tokens may look like folders."""
BASE_KEY = "base_model_name_or_path"
WHOLE_PATH = re.compile(r"(?:~[\w.-]*|[A-Za-z]:)?(?:[/\\][^/\\\n]+){2,}[/\\]?|~[\w.-]*[/\\][^/\\\n]+[/\\]?")
"""A text that is a path as a whole, which may hold spaces, unlike one within a sentence."""


def write_folder(run: RecordedRun, card: Card, folder: Path) -> None:
    """Write everything into a new folder. Weights are linked where the file system can, copied elsewhere.

    Raises ConfigError where the disk refuses.
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
            f"{folder} cannot be written ({error.strerror}): name another folder with --output"
        ) from error


def files_of(final: Path) -> list[Path]:
    """Return the files of the model and of its adapter."""
    return sorted(
        file
        for place in (final, final / ADAPTER)
        for file in place.glob("*")
        if file.suffix in ENDINGS and file.is_file()
    )


def take(file: Path, target: Path, card: Card) -> None:
    """Link or copy a file; of settings leave out what names a folder of this machine."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".json" and file.name not in VOCABULARIES:
        settings = json.loads(file.read_text("utf-8"))
        if isinstance(settings, dict) and BASE_KEY in settings:
            settings[BASE_KEY] = card.base.hub or card.base.name
        target.write_text(json.dumps(without_folders(settings), indent=2, ensure_ascii=False) + "\n", "utf-8")
        return
    try:
        os.link(file.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, target)


def without_folders(value: Any) -> Any:
    """Return settings with the last part of each text that is a folder or a file of some machine."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    if isinstance(value, str) and WHOLE_PATH.fullmatch(value):
        return last_part(value)
    return value


def differing(folder: Path, new: Path) -> list[str]:
    """Return the files of a folder of before that the new one lacks, or has otherwise, other than the curve."""
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_symlink() or not file.is_dir())
    return [str(file) for file in files if str(file) != CURVE and not is_same(folder / file, new / file)]


def is_same(one: Path, other: Path) -> bool:
    """Return whether two files hold the same; weights that are linked, or were copied at once, are not read."""
    return one.is_file() and other.is_file() and filecmp.cmp(one, other)
