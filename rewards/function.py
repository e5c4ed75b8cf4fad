"""A function that grades a text, and the outcome of a call. Standard library only: grading processes import this."""

from __future__ import annotations

import asyncio
import importlib
import sys
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from rewards.parsing.extraction import extract_answer, is_natural
from rewards.signature import OFFERED, Keywords, Kind, SignatureError, check_signature, keywords_of, kind_of
from rewards.subject import FigureLog, Subject

MAX_REASON_CHARACTERS = 500
JUDGE = "rewards.judge.judge:judge"
"""The function of every judge of the recipe."""
MAX_IN_FLIGHT = 64
"""Largest number of concurrent calls of ``async def`` functions in one worker."""

RIGHT_UNTAGGED = "right_untagged"
"""Part of some completions without an answer in tags: 1 if their text contains the right answer elsewhere. It is logged
and never rewarded."""
UNTAGGED_ONE_IN = 8
"""One in this many completions without tags is read a second time for it, which costs up to a hundred times as much as
finding no tags. The text alone decides which ones, so that a resumed run has the same metrics."""
UNTAGGED_CHARACTERS = 4000
"""Number of characters at the end of the text that are read."""

Grades = Mapping[str, float]
"""The named parts of a reward that one function returned."""


class Outcome(NamedTuple):
    """The result of one function for one text."""

    status: Literal["ok", "timeout", "error"]
    grades: Grades
    """Empty unless the status is ``ok``. NaN and infinity pass; score.py makes errors of them."""
    reason: str = ""
    """A message for people if the status is not ``ok``: ``ValueError: …``, ``not graded within 10 s``."""
    seconds: float = 0.0
    """How long it took. 0 if that is unknown."""
    markers: tuple[str, ...] | None = None
    """Behaviours that the text shows (rewards/parts/markers.py). Only one function's outcome has them, and not if that
    function did not end."""
    each: tuple[float | None, ...] = ()
    """For a function of a whole group: its value for each completion, None if it does not apply."""
    logged: Mapping[str, float] = {}
    """Values that the function logged."""

    def of_completion(self, name: str, index: int, size: int) -> Outcome:
        """Return the part ``name`` that a function of a whole group of ``size`` gave to one of its completions."""
        seconds = self.seconds / size
        if self.status != "ok":
            return self._replace(seconds=seconds)
        value = self.each[index]
        return self._replace(grades={} if value is None else {name: value}, seconds=seconds)


@dataclass(frozen=True)
class RewardFunction:
    """The location of a function and how it is called."""

    name: str
    """The name of its part; for a task's ``score`` the task's name."""
    path: str
    """``module:function``."""
    parts: tuple[str, ...]
    """The parts that it returns, as far as they are known before the call; a user's grader may return more."""
    grades_task: bool = False
    """Whether it is a task's ``score``, which returns a mapping of parts; others return one number."""
    finds_untagged: bool = False
    """Whether it also reads answers without tags, as RIGHT_UNTAGGED needs."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float = 10.0

    def load(self) -> Callable[..., Any]:
        """Import the function and return it. Calls ``prepare`` of a task's or a judge's module; no deadline applies.

        Raises SignatureError if the module has no such function or the function does not take the parameters. Errors of
        the import pass through, and errors of ``prepare``, which raises if nothing can be graded on this machine.
        """
        function = import_function(self.path)
        check_parameters(self, function)
        prepare = getattr(sys.modules[self.path.partition(":")[0]], "prepare", None)
        if prepare is not None and (self.grades_task or self.path == JUDGE):
            prepare(**self.parameters)
        return function


def import_function(path: str) -> Callable[..., Any]:
    """Return the object at ``module:function``. Raises SignatureError, and any error of the import."""
    module, _, name = path.partition(":")
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise SignatureError(f"{path}: module {module!r} has no function {name!r}")
    found: Callable[..., Any] = function
    return found


@dataclass(frozen=True, slots=True)
class LoadedFunction:
    """A loaded function, and how it is called."""

    declared: RewardFunction
    function: Callable[..., Any]
    kind: Kind
    keywords: Keywords
    asked_for: frozenset[str]
    """The optional arguments that it takes."""

    @classmethod
    def of(cls, declared: RewardFunction, function: Callable[..., Any]) -> LoadedFunction:
        kind = kind_of(function)
        keywords = keywords_of(function, kind)
        return cls(declared, function, kind, keywords, keywords.named & {*OFFERED})

    def call(self, subject: Subject) -> Outcome:
        """Call it and return the outcome. Never raises an Exception, but the function may end the process or hang."""
        log = FigureLog()
        try:
            value = self._begin(subject, log)
            if self.kind.is_async:
                value = asyncio.run(value)
            return self._outcome(subject, value, log)
        except Exception as error:  # noqa: BLE001  the boundary with untrusted text: it may raise anything
            return _failed(error, log)

    async def call_async(self, subject: Subject) -> Outcome:
        """Call an ``async def`` function like ``call``, concurrently with others in one event loop."""
        log = FigureLog()
        try:
            return self._outcome(subject, await self._begin(subject, log), log)
        except (Exception, SystemExit) as error:  # noqa: BLE001  as above; SystemExit would end concurrent calls too
            return _failed(error, log)

    def _begin(self, subject: Subject, log: FigureLog) -> Any:
        """Return the function's value; for an ``async def`` function the awaitable."""
        if self.kind.takes == "columns":
            return self._begin_on_columns(subject, log)
        parameters = self.declared.parameters
        if self.asked_for:
            offered: dict[str, Any] = {"prompt": subject.prompt, **log.offered}
            parameters = {**{name: offered[name] for name in self.asked_for}, **parameters}
        text = list(subject.texts) if self.kind.is_whole else subject.texts[0]
        return self.function(text, subject.answer, **parameters)

    def _begin_on_columns(self, subject: Subject, log: FigureLog) -> Any:
        keywords, columns = self.keywords, subject.columns()
        available = {**columns, **log.offered}
        arguments = {name: value for name, value in available.items() if keywords.takes_any or name in keywords.named}
        arguments |= self.declared.parameters
        if missing := [name for name in keywords.required if name not in arguments]:
            raise TypeError(
                f"{self.declared.path} needs {', '.join(missing)}, and a group has {', '.join(columns)}: add a column "
                "of the data with answer_columns, or set a parameter"
            )
        return self.function(**arguments)

    def _outcome(self, subject: Subject, value: Any, log: FigureLog) -> Outcome:
        declared = self.declared
        if self.kind.is_whole:
            values = [None if each is None else float(each) for each in value]
            if len(values) != len(subject.texts):
                raise ValueError(f"it returned {len(values)} values for {len(subject.texts)} completions")
            return Outcome("ok", {}, each=tuple(values), logged=log.means())
        grades = value.items() if declared.grades_task else [(declared.name, value)]
        found = {str(name): float(grade) for name, grade in grades if grade is not None or declared.grades_task}
        text, answer = subject.texts[0], subject.answer
        if declared.finds_untagged and not is_natural(answer) and is_untagged(text):
            is_right = found["correctness"] == 1.0 or is_right_untagged(declared, self.function, text, answer)
            found[RIGHT_UNTAGGED] = float(is_right)
        return Outcome("ok", found, logged=log.means())


def check_parameters(declared: RewardFunction, function: Callable[..., Any]) -> None:
    """Raise SignatureError, with the nearest right name, unless ``function`` takes the parameters by keyword."""
    if declared.grades_task and kind_of(function).is_whole:
        raise SignatureError(
            f"{declared.path} takes a group, and a task is graded one completion at a time: (text, answer)"
        )
    check_signature(f"rewards.parameters.{declared.name}", declared.path, declared.parameters, function)


def missing_column(
    functions: Mapping[str, RewardFunction], kinds: Mapping[str, Kind], columns: Mapping[str, Collection[str]]
) -> str | None:
    """Return an error message if a function needs a column that the answers of a source do not have; else None.

    ``columns`` are the entries of the answers, by source.
    """
    for source, there in columns.items():
        for declared, kind in ((functions[name], kind) for name, kind in kinds.items()):
            for name in kind.needs:
                if name not in there and name not in declared.parameters:
                    return (
                        f"rewards.functions: {declared.path} needs {name}, and the answers of {source} have "
                        f"{', '.join(sorted(there)) or 'no entries'}: add a column of the data with answer_columns, or "
                        f"set rewards.parameters.{declared.name}.{name}"
                    )
    return None


def call(
    declared: RewardFunction, function: Callable[..., Any], text: str, answer: Mapping[str, Any], prompt: str = ""
) -> Outcome:
    """Call ``function`` with one text, like LoadedFunction.call."""
    return LoadedFunction.of(declared, function).call(Subject((text,), answer, prompt))


def _failed(error: Exception | SystemExit, log: FigureLog) -> Outcome:
    return Outcome("error", {}, f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS], logged=log.means())


def is_untagged(text: str) -> bool:
    """Return whether the text has no answer in tags, and is among those that are read a second time."""
    return not extract_answer(text) and zlib.crc32(text.encode("utf-8", "replace")) % UNTAGGED_ONE_IN == 0


def is_right_untagged(
    declared: RewardFunction, function: Callable[..., Any], text: str, answer: Mapping[str, Any]
) -> bool:
    """Return whether the text would be right if tags were not required. Never raises an Exception."""
    try:
        grades = function(text[-UNTAGGED_CHARACTERS:], {**answer, "extraction": "natural"}, **declared.parameters)
        return bool(grades["correctness"] == 1.0)
    except Exception:  # noqa: BLE001  the text is untrusted; the grade is known already, and this only adds a metric
        return False
