"""Check every problem before anything starts: can it be asked, and can an answer to it be graded right."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import rewards
import rollout.prompts
from orchestrator.base_model import cache_folder
from orchestrator.config.environments import environment_parts
from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.records.files.atomic_file import write_atomically
from rewards.references import CheckReference, reference_check, shown_fields
from rollout.problems.listed import ListedProblems, content
from rollout.problems.problem import Problem
from rollout.prompts.held_out import fields_of
from rollout.prompts.mixture import Mixture
from rollout.prompts.template import Template
from rollout.types.prompts import PromptFormat

logger = logging.getLogger(__name__)

MAX_NAMED = 10
"""Largest number of rows that a message names."""
NUMBER = re.compile(r"([0-9]{1,15})")
MAX_PLACE = 200
"""The row is named within this number of characters at the beginning of a sentence."""
MIN_CACHED = 1_000
"""Results are cached for at least this number of problems: fewer are checked faster than a file is read."""


class BadRowsError(ConfigError):
    """Rows cannot be used, and the recipe does not allow leaving them out."""


class Fault(NamedTuple):
    """The reason why a row cannot be used."""

    entry: str
    """The entry of `prompts.mixture`, or the only task."""
    key: str | None
    """The problem's key; None for a row that cannot become a problem."""
    said: str
    """A sentence that begins with the row's place."""


def leave_out_bad_rows(
    config: RunConfig, problems: Mixture, tokenizer: Any, *, only_held_out: bool = False
) -> list[Fault]:
    """Remove the problems that cannot be used from the mixture, and return what is wrong with them.

    Args:
        only_held_out: check only the held-out problems, because nothing is trained.

    Drawn problems that cannot be used are drawn again. Raises BadRowsError with `prompts.on_bad_rows = "refuse"`, or if
    no problem is left, and ConfigError for a rubric with an entry that no answer has.
    """
    check_rubrics(config, problems)
    inspection = Inspection(config, tokenizer)
    faults: list[Fault] = []
    for entry, source in problems.sources.items():
        if isinstance(source, ListedProblems):
            faults += inspection.faults(entry, source, only_held_out=only_held_out)
            if not only_held_out:
                warn_of_special_tokens(config, entry, source, tokenizer)
        else:
            replaced = list(problems.hold_out_others(entry, partial(inspection.fault_of, entry)))
            if replaced:
                logger.info("%s: %d held-out problems cannot be used and were drawn again", entry, len(replaced))
    if not faults:
        return faults
    if config.prompts.on_bad_rows == "refuse":
        raise BadRowsError(
            f"{summary(faults)}\nFix or remove them, or set prompts.on_bad_rows=drop to continue without them"
        )
    unusable = {entry: {fault.key for fault in faults if fault.entry == entry} for entry in problems.sources}
    for entry, source in problems.sources.items():
        if isinstance(source, ListedProblems):
            check_enough_left(entry, source, unusable[entry], faults)
    problems.leave_out({entry: {key for key in keys if key is not None} for entry, keys in unusable.items()})
    logger.warning("%s\nprompts.on_bad_rows = 'drop': they are left out", summary(faults))
    return faults


def warn_of_special_tokens(config: RunConfig, entry: str, source: ListedProblems, tokenizer: Any) -> None:
    """Warn of rows with special tokens, such as `<|im_end|>`, inside the words of a chat template."""
    tokens = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special = [str(token.content) for token in tokens if token.special] if config.prompts.chat else []
    firsts, task = {token[0] for token in special}, config.prompts.tasks[entry]
    shown = fields_of(task.wording("zero_shot"), task.wording("natural"))
    found: list[tuple[str, str]] = []
    for problem in (*source.different, *source.held_out):
        text = "\n".join([problem.fields.get(name, "") for name in shown])
        if any(first in text for first in firsts):
            found += [(problem.where, token) for token in special if token in text][:1]
    if found:
        where, token = min(found, key=lambda each: place(Fault(entry, None, each[0])))
        logger.warning(
            "%s: %d rows hold special tokens, such as %s in %s, and the model reads them as such: remove them, or set "
            "prompts.chat = false if the rows are in the words of a chat template already",
            entry,
            len(found),
            token,
            where,
        )


def record_left_out(faults: Sequence[Fault], file: Path) -> None:
    """Write the rows that a run leaves out, one per line, and warn if they have changed."""
    before = {json.loads(line)["row"] for line in file.read_text().splitlines()} if file.is_file() else None
    now = {fault.said for fault in faults}
    if before is not None and before != now:
        logger.warning(
            "other rows are left out than before: %d that were used before, while %d that were left out are used "
            "again: %s",
            len(now - before),
            len(before - now),
            "; ".join([*sorted(now - before), *sorted(before - now)][:MAX_NAMED]),
        )
    if before or faults:
        write_atomically(file, "".join(json.dumps({"entry": each.entry, "row": each.said}) + "\n" for each in faults))


class Inspection:
    """Finds the problems that a run cannot use."""

    def __init__(self, config: RunConfig, tokenizer: Any) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._template = Template(config.prompts, tokenizer)
        shown: tuple[PromptFormat, ...] = ("one_shot",) if config.prompts.one_shot_steps else ()
        self._trained = tuple(dict.fromkeys((config.prompts.format, *shown)))
        self._measured = tuple(dict.fromkeys((*config.measured_formats, *shown)))
        self._checks = reference_checks(config)

    def faults(self, entry: str, source: ListedProblems, *, only_held_out: bool = False) -> list[Fault]:
        """Return what is wrong with the rows of a source. If several rows are the same problem, only one is checked."""
        file = None if only_held_out else self._cache_file(entry, source)
        if file is not None and file.is_file():
            faults = [Fault(*each) for each in json.loads(file.read_text())]
        else:
            faults = [
                *self._listed(entry, () if only_held_out else source.different, self._trained),
                *self._listed(entry, source.held_out, self._measured),
            ]
            if file is not None:
                try:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(file, json.dumps(faults))
                except OSError as error:  # the next run checks again
                    logger.warning("the list of left-out rows cannot be written to %s: %s", file, error.strerror)
        return sorted([*(Fault(entry, None, fault.said) for fault in source.faults), *faults], key=place)

    def fault_of(self, entry: str, problem: Problem) -> str | None:
        """Return why a drawn problem cannot be held out; None if it can."""
        return next((fault.said for fault in self._listed(entry, [problem], self._measured)), None)

    def _listed(self, entry: str, problems: Sequence[Problem], formats: Iterable[PromptFormat]) -> Iterator[Fault]:
        reasons: list[str | None] = [None] * len(problems)
        for format in formats:
            faults = self._template.faults(problems, format, entry)
            reasons = [reason or fault for reason, fault in zip(reasons, faults, strict=True)]
        check = self._checks.get(entry, nothing_wrong)
        for problem, reason in zip(problems, reasons, strict=True):
            wrong = reason or check(problem.answer)
            if wrong:
                yield Fault(entry, problem.key, f"{problem.where or problem.key}: {wrong}")

    def _cache_file(self, entry: str, source: ListedProblems) -> Path | None:
        """Return the file that caches the result; None if nothing proves that a later check would find the same."""
        task, tokens = self._config.prompts.tasks[entry], getattr(self._tokenizer, "backend_tokenizer", None)
        if source.num_problems < MIN_CACHED or "." in task.grader or tokens is None:
            return None
        settings = {"prompts": self._config.prompts.model_dump(mode="json"), "entry": entry}
        settings |= {"rewards": self._config.rewards.model_dump(mode="json"), "formats": self._measured}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        digest.update(f"{tokens.to_str()}{self._tokenizer.chat_template}".encode())
        for package in (rewards, rollout.prompts):
            for file in sorted(Path(package.__path__[0]).rglob("*.py")):
                digest.update(file.read_bytes())
        for problem in (*source.different, *source.held_out):
            digest.update(f"{problem.where}{content(problem)}".encode("utf-8", "surrogatepass"))
        return cache_folder() / f"inspected-{digest.hexdigest()[:16]}.json"


def reference_checks(config: RunConfig) -> dict[str, CheckReference]:
    """Return the function that checks the references of each entry, without entries whose grader has no such check."""
    tasks, given = config.prompts.tasks, environment_parts(config)
    checks = {name: reference_check(task.grader, config.rewards, given) for name, task in tasks.items()}
    return {name: check for name, check in checks.items() if check is not None}


def check_rubrics(config: RunConfig, problems: Mixture) -> None:
    """Raise ConfigError if a judge's rubric names an entry that no answer of a task has."""
    for key, field in shown_fields(config.rewards):
        for entry, source in problems.sources.items():
            listed = source.different if isinstance(source, ListedProblems) else [source.train(0)]
            answers = [problem.answer for problem in chain(source.held_out, listed)]
            if not any(field in answer for answer in answers):
                there = sorted({name for answer in answers for name in answer})
                raise ConfigError(
                    f"{key} shows {{{field}}}, which no answer of {entry} has: it has "
                    f"{', '.join(there) or 'no entries'}. Show one of those, or write the name without braces"
                )


def place(fault: Fault) -> list[tuple[int, str]]:
    """Return a key that sorts faults in the order of their rows: `line 9` before `line 10`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in NUMBER.split(fault.said[:MAX_PLACE])]


def nothing_wrong(answer: Mapping[str, Any]) -> None:
    """Check nothing, for a user's grader without a check of references."""


def check_enough_left(entry: str, source: ListedProblems, unusable: set[str | None], faults: list[Fault]) -> None:
    """Raise BadRowsError if a source has no training problem left, or no held-out problem."""
    for what, listed in (("to train on", source.different), ("of those held out", source.held_out)):
        if listed and all(problem.key in unusable for problem in listed):
            raise BadRowsError(f"{summary(faults)}\nNo problem of {entry} is left {what}")


def summary(faults: Sequence[Fault]) -> str:
    """Return the number of rows that cannot be used, and the first of them, for each entry."""
    counts = Counter(fault.entry for fault in faults)
    lines = []
    for entry, count in counts.items():
        said = [fault.said for fault in faults if fault.entry == entry]
        lines.append(f"{count} rows of {entry} cannot be used:" if count > 1 else f"a row of {entry} cannot be used:")
        lines += [f"  {each}" for each in said[:MAX_NAMED]]
        if count > MAX_NAMED:
            lines.append(f"  … and {count - MAX_NAMED} more")
    return "\n".join(lines)
