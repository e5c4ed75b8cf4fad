"""What a model was made from, with licences: its base, the data of its questions, and the pairs that it was taught."""

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
"""The `source` of a task whose questions are drawn."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A model or a set of data that went into a run."""

    role: str
    name: str
    licence: str = UNKNOWN
    hub: str = ""
    """Its name on the hub; empty where it is not there."""
    revision: str = ""
    """The commit there, where it is known."""


def base_of(run: RecordedRun) -> Ingredient:
    """Return the model that the run began with."""
    path = run.setting("model.path")
    if not isinstance(path, str):
        return Ingredient("base model", model_name(run), "none: its weights began at random")
    return model_at(run, path, "base model", BASE)


def teacher_of(run: RecordedRun) -> list[Ingredient]:
    """Return the model that taught the policy, if one did."""
    path = run.setting("model.teacher")
    return [model_at(run, path, "teacher", TEACHER)] if isinstance(path, str) else []


def model_at(run: RecordedRun, path: str, role: str, fingerprint: str) -> Ingredient:
    """Return the model at a path or of a hub's name, as its fingerprint tells: a folder may be called `owner/name`.

    Args:
        fingerprint: what the run's fingerprints call it.
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
    """Return the last part of a path, or HIDDEN where it tells of a person, a machine or a key."""
    shown = without_places(path)
    return shown if shown == HIDDEN else last_part(shown)


def is_on_hub(path: str) -> bool:
    """Return whether a path can only be a name on the hub."""
    return HUB_NAME.fullmatch(path) is not None and path[0] not in ".~" and not Path(path).exists()


def licence_of_files(path: str) -> str:
    """Return the licence that a GGUF file, or the card in a model's folder, states."""
    try:
        found = Path(from_home(located(path)))
    except (PolicyError, ValueError):
        return UNKNOWN
    if found.is_dir():
        return card_licence(str(found / "README.md"))
    return gguf_licence(found) if is_gguf(found.name) and found.is_file() else UNKNOWN


def gguf_licence(file: Path) -> str:
    # gguf's own reader makes as many entries as a damaged header claims.
    from transformers.integrations.gguf import read_gguf_metadata

    try:
        return stated(read_gguf_metadata(str(file))[0].get("general.license"))
    except (OSError, ValueError, struct.error):  # not the format that its name says
        return UNKNOWN


def card_licence(name: str, kind: str = "model") -> str:
    """Return the licence that a card states: that of a file, or of a model or data set on the hub."""
    from huggingface_hub import RepoCard

    if name.endswith(".md") and not Path(name).is_file():
        return UNKNOWN
    try:
        card = RepoCard.load(name, repo_type=kind, ignore_metadata_errors=True)
    except Exception:  # noqa: BLE001  no network, no such card, or one that cannot be read: nobody knows
        return UNKNOWN
    return stated(card.data.to_dict().get("license"))


def stated(found: Any) -> str:
    """Return a licence as somebody else's text states it, if it is one."""
    names = [str(name) for name in (found if isinstance(found, list) else [found])]
    return ", ".join(names) if all(LICENCE.fullmatch(name) for name in names) and found else UNKNOWN


def package_licence(name: str) -> str:
    """Return the licence of an installed package."""
    try:
        said = metadata.metadata(name).json
    except metadata.PackageNotFoundError:
        return UNKNOWN
    return stated(said.get("license_expression") or said.get("license"))


def data_of(run: RecordedRun) -> list[Ingredient]:
    """Return where the questions, and the pairs of supervised training, come from."""
    found: list[Ingredient] = []
    if run.setting("num_steps"):
        prompts = run.setting("prompts", {})
        for entry in (prompts.get("mixture") or {"": prompts}).values():
            found += questions(entry)
    if run.setting("warm_start.num_steps"):
        pairs = run.setting("warm_start.data")
        if isinstance(pairs, str):
            found.append(Ingredient(PAIRS, last_name(pairs)))
        else:
            found.append(Ingredient(PAIRS, "traces that Rayzero writes", package_licence("rayzero")))
    return list(dict.fromkeys(found))


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
        yield Ingredient(role, f"those of the task {short_name(task)}")
    for source in sources:
        if source == DRAWN:
            continue
        if is_file(source) or not is_on_hub(source):
            yield Ingredient(role, last_name(source))
        else:
            yield Ingredient(role, source, card_licence(source, "dataset"), source)
