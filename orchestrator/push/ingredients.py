"""Find what a model was made from, with licences: its base, its teacher, its questions, its supervised pairs."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.model_source import PACKAGE, PolicyError, is_gguf, located
from orchestrator.records.origin.fingerprints import BASE, TEACHER, read_summary
from orchestrator.report.page.overview import QUANTIZED, model_name
from orchestrator.report.reading.privacy import HIDDEN, last_part, without_places
from orchestrator.report.reading.recorded_run import RecordedRun
from rollout.tasks.base import task_names
from rollout.tasks.datasets import is_file
from rollout.types.names import short_name
from rollout.types.paths import from_home

UNKNOWN = "unknown"
LICENCE = re.compile(r"[A-Za-z0-9][\w.+-]{0,60}")
HUB_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
QUESTIONS, PAIRS = "questions", "supervised pairs"
"""The roles of data."""
DRAWN = "generated"
"""The `source` of a task that draws its questions at random."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A model or data set that a run used."""

    role: str
    name: str
    licence: str = UNKNOWN
    hub: str = ""
    """Its name on the hub; empty if it is not on the hub."""
    revision: str = ""
    """Its commit on the hub; empty if it is not known."""


def base_of(run: RecordedRun) -> Ingredient:
    """Return the model with which the run started."""
    path = run.setting("model.path")
    if not isinstance(path, str):
        return Ingredient("base model", model_name(run), "none: its weights were random at the start")
    return model_at(run, path, "base model", BASE)


def teacher_of(run: RecordedRun) -> list[Ingredient]:
    """Return the model that taught the policy; an empty list if there was none."""
    path = run.setting("model.teacher")
    return [model_at(run, path, "teacher", TEACHER)] if isinstance(path, str) else []


def model_at(run: RecordedRun, path: str, role: str, fingerprint: str) -> Ingredient:
    """Return the model at a path or with a name on the hub.

    The run's fingerprint of the model shows which of the two it is, because a folder may be called `owner/name`.

    Args:
        fingerprint: the model's key in the run's fingerprints.
    """
    files = ((read_summary(run.path) or {}).get("models") or {}).get(fingerprint) or {}
    if is_on_hub(path) and (not files or "revision" in files):
        return Ingredient(role, path, card_licence(path), path, str(files.get("revision", "")))
    name = last_name(path)
    name = "a model" if name == HIDDEN else QUANTIZED.sub("", name)
    if path.startswith(PACKAGE):
        name = f"{name}, from the Python package {path.removeprefix(PACKAGE).partition('/')[0]}"
    return Ingredient(role, name, licence_of_files(path))


def last_name(path: str) -> str:
    """Return the last part of a path, or HIDDEN if it shows a person, a machine or a key."""
    shown = without_places(path)
    return shown if shown == HIDDEN else last_part(shown)


def is_on_hub(path: str) -> bool:
    """Return whether a path can only be a name on the hub."""
    return HUB_NAME.fullmatch(path) is not None and path[0] not in ".~" and not Path(path).exists()


def licence_of_files(path: str) -> str:
    """Return the licence that a GGUF file, or the card in a model's folder, states."""
    try:
        source = Path(from_home(located(path)))
    except (PolicyError, ValueError):
        return UNKNOWN
    if source.is_dir():
        return card_licence(str(source / "README.md"))
    return gguf_licence(source) if is_gguf(source.name) and source.is_file() else UNKNOWN


def gguf_licence(file: Path) -> str:
    # Not with gguf's own reader: it creates as many entries as a header claims, even if the header is damaged.
    from transformers.integrations.gguf import read_gguf_metadata

    try:
        return stated(read_gguf_metadata(str(file))[0].get("general.license"))
    except (OSError, ValueError, struct.error):  # not a GGUF file, in spite of its name
        return UNKNOWN


def card_licence(name: str, kind: str = "model") -> str:
    """Return the licence in a card: `name` is a Markdown file, or a model or data set on the hub."""
    from huggingface_hub import RepoCard

    if name.endswith(".md") and not Path(name).is_file():
        return UNKNOWN
    try:
        card = RepoCard.load(name, repo_type=kind, ignore_metadata_errors=True)
    except Exception:  # noqa: BLE001  no network, no such card, or a card that cannot be read
        return UNKNOWN
    return stated(card.data.to_dict().get("license"))


def stated(value: Any) -> str:
    """Return the licence, or licences, in foreign metadata; UNKNOWN if the value is not the name of a licence."""
    names = [str(name) for name in (value if isinstance(value, list) else [value])]
    return ", ".join(names) if all(LICENCE.fullmatch(name) for name in names) and value else UNKNOWN


def package_licence(name: str) -> str:
    """Return the licence of an installed package."""
    try:
        fields = metadata.metadata(name).json
    except metadata.PackageNotFoundError:
        return UNKNOWN
    return stated(fields.get("license_expression") or fields.get("license"))


def data_of(run: RecordedRun) -> list[Ingredient]:
    """Return the sources of the questions, and of the pairs for supervised training."""
    data: list[Ingredient] = []
    if run.setting("num_steps"):
        prompts = run.setting("prompts", {})
        for entry in (prompts.get("mixture") or {"": prompts}).values():
            data += questions(entry)
    if run.setting("warm_start.num_steps"):
        pairs = run.setting("warm_start.data")
        if isinstance(pairs, str):
            data.append(Ingredient(PAIRS, last_name(pairs)))
        else:
            data.append(Ingredient(PAIRS, "traces that Rayzero writes", package_licence("rayzero")))
    return list(dict.fromkeys(data))


def questions(entry: Mapping[str, Any]) -> Iterator[Ingredient]:
    """Yield the sources of a task's questions."""
    role, task = QUESTIONS, str(entry.get("task", ""))
    section = entry.get(short_name(task))
    is_known, section = isinstance(section, Mapping), section or {}
    sources = [section[name] for name in ("source", "held_out_source") if section.get(name)]
    if task == "reasoning_gym":
        names = dict.fromkeys(str(each.get("name")) for each in section.get("datasets") or [])
        yield Ingredient(role, f"drawn by reasoning-gym ({', '.join(names)})", package_licence("reasoning-gym"))
    elif is_known and task in task_names() and set(sources) <= {DRAWN}:
        yield Ingredient(role, f"drawn by Rayzero ({task.replace('_', ' ')})", package_licence("rayzero"))
    elif not sources:
        yield Ingredient(role, f"from the task {short_name(task)}")
    for source in sources:
        if source == DRAWN:
            continue
        if is_file(source) or not is_on_hub(source):
            yield Ingredient(role, last_name(source))
        else:
            yield Ingredient(role, source, card_licence(source, "dataset"), source)
