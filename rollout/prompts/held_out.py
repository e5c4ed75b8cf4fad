"""Recognize a held-out question in another entry of a mixture, or in the examples of a warm start."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache

from rollout.problems.listed import ListedProblems
from rollout.problems.problem import Problem, ProblemSource
from rollout.prompts.task_config import TaskConfig, shown_fields
from rollout.tasks.base import ANY_FIELD

WORD = re.compile(r"\w+")
TERM = re.compile(r"\w+|[^\w\s,\"\[\]\\]")
"""A word, or a sign that does not come from writing a list as JSON."""
NUMBERS = re.compile(r"\b\d+(?:(?:[,\s]+|,?\s+and\s+)\d+)+")
"""A list of numbers, such as `3, 7 and 9`."""
LABEL = re.compile(r"[\s\"\[]*\(?\w[).:]\s+")
"""The label of an option, such as `A) `."""
LINE = re.compile(r"\n")
ITEM = re.compile(r"\n|,\s")
"""What is between the items of a list, in lines or in JSON."""

Pieces = frozenset[tuple[str, ...]]


class HeldOutQuestions:
    """The held-out problems of all entries, recognized with any task, key or wording.

    A problem is the same as a held-out one when it asks the same question, or has the same key in the same file. Where
    an entry has one question with several keys, such as "Which of these is a mineral?" with other options, the same
    question must show the same lines besides, in any order; in another entry, the same items of a list. Problems
    without a text of their own, such as Countdown's, are told apart by their keys.
    """

    def __init__(
        self,
        entries: Mapping[str, TaskConfig],
        sources: Mapping[str, ProblemSource],
        held_out: Mapping[str, Sequence[Problem]],
    ) -> None:
        """All three arguments are by the entry's name; `held_out` are the problems of evaluations."""
        self._entries = entries
        self._sources = sources
        self._problems = held_out

    def holds(self, task: TaskConfig, problem: Problem) -> bool:
        """Return whether a problem of `task` is held out."""
        if question_of(problem) in self._questions or (scope(task), problem.key) in self._keys:
            return True
        texts = shown_texts(task, problem) if self._shown else []
        # In a line of the same entry the order counts: `3 - 2` is not `2 - 3`. Other entries may write lists otherwise.
        ends = [(LINE if entry is task else ITEM, shown) for entry, shown in self._shown]
        return any(pieces_of(texts, end) in shown[end] for end, shown in ends)

    def is_asked_in(self, text: str) -> bool:
        """Return whether a text, such as the prompt of a pair, asks a held-out question, in any wording."""
        text = normal(text)
        lists = {numbers_of(found) for found in NUMBERS.findall(text)}
        for word in set(WORD.findall(text)):
            for groups in self._texts.get(word, ()):
                if all(any(contains(text, found) or numbers_of(found) in lists for found in group) for group in groups):
                    return True
        return False

    @cached_property
    def digest(self) -> str:
        """A hash of the questions, in hexadecimal."""
        questions = sorted({question_of(problem) for _, problem, _ in self._held_out()})
        return hashlib.sha256(json.dumps(questions).encode()).hexdigest()

    @cached_property
    def _ambiguous(self) -> Mapping[str, set[str]]:
        """The questions of each entry that have several keys there."""
        return {name: repeated(source) for name, source in self._sources.items()}

    def _held_out(self) -> Iterable[tuple[TaskConfig, Problem, bool]]:
        """Yield each held-out problem with its task, and whether its question alone does not tell which it is."""
        for name, problems in self._problems.items():
            for problem in problems:
                yield self._entries[name], problem, question_of(problem) in self._ambiguous[name]

    @cached_property
    def _questions(self) -> set[str]:
        return {question_of(problem) for _, problem, is_ambiguous in self._held_out() if not is_ambiguous}

    @cached_property
    def _keys(self) -> set[tuple[tuple[str, str], str]]:
        return {(scope(task, is_held_out=True), problem.key) for task, problem, _ in self._held_out()}

    @cached_property
    def _shown(self) -> list[tuple[TaskConfig, dict[re.Pattern[str], set[Pieces]]]]:
        """What each entry shows of the held-out problems that their question alone does not tell apart."""
        found = []
        for name, task in self._entries.items():
            ambiguous = self._ambiguous[name]
            texts = [shown_texts(task, each) for each in self._problems[name] if question_of(each) in ambiguous]
            if texts:
                found.append((task, {end: {pieces_of(each, end) for each in texts} for end in (LINE, ITEM)}))
        return found

    @cached_property
    def _texts(self) -> Mapping[str, list[list[list[str]]]]:
        """The texts that ask a held-out problem, by a word of theirs: of each group one must stand in the text."""
        found: dict[str, list[list[list[str]]]] = defaultdict(list)
        for task, problem, is_ambiguous in self._held_out():
            groups = [[normal(text) for text in group] for group in askings(task, problem, is_ambiguous)]
            for text in max(groups, key=lambda group: min(map(len, group)), default=()):
                for word in sorted(WORD.findall(text), key=len)[-1:]:
                    found[word].append(groups)
        return found


def askings(task: TaskConfig, problem: Problem, is_ambiguous: bool) -> list[list[str]]:
    """Return groups of texts; every prompt that asks the problem contains one text of each group."""
    if is_ambiguous:
        return [[text] for text in shown_texts(task, problem) if text.strip()]
    if problem.question is not None:
        return [[problem.question]]
    groups = [[problem.fields[name] for name in group if name in problem.fields] for group in task.field_groups]
    return [[text for text in group if text.strip()] for group in groups if any(text.strip() for text in group)]


def repeated(source: ProblemSource) -> set[str]:
    """Return the questions that have several keys in a list."""
    if not isinstance(source, ListedProblems):
        return set()
    keys: dict[str, str] = {}
    several = set()
    for problem in (*source.different, *source.held_out):
        question = question_of(problem)
        if keys.setdefault(question, problem.key) != problem.key:
            several.add(question)
    return several


def scope(task: TaskConfig, is_held_out: bool = False) -> tuple[str, str]:
    """Return the scope in which a key means the same problem: the task, and the file or data set."""
    source: str = getattr(task.settings, "source", "")
    return task.task, getattr(task.settings, "held_out_source", "") or source if is_held_out else source


def question_of(problem: Problem) -> str:
    """Return what identifies a question: its text, or else the problem's key."""
    return normal(problem.key if problem.question is None else problem.question)


def shown_texts(task: TaskConfig, problem: Problem) -> Sequence[str]:
    """Return the texts of the problem that one of the task's templates shows."""
    shown = fields_of(task.wording("zero_shot"), task.wording("natural"))
    return [problem.fields[name] for name in shown if name in problem.fields]


@lru_cache
def fields_of(template: str, natural_template: str) -> Sequence[str]:
    """Return the sorted names of the fields in two templates."""
    shown = shown_fields("template", template) | shown_fields("natural_template", natural_template)
    return sorted(shown - {ANY_FIELD})


def pieces_of(texts: Sequence[str], end: re.Pattern[str]) -> Pieces:
    """Return the words and signs of each piece of the texts, without labels such as `A) `. `end` ends a piece."""
    pieces = (LABEL.sub("", piece, count=1) for text in texts for piece in end.split(text))
    return frozenset(tuple(TERM.findall(normal(piece))) for piece in pieces) - {()}


def numbers_of(text: str) -> tuple[str, ...] | None:
    """Return the numbers of a text that is a list of numbers, sorted; None for any other text."""
    return tuple(sorted(WORD.findall(text.replace("and", "")))) if NUMBERS.fullmatch(text.strip("[]")) else None


def normal(text: str) -> str:
    """Return a text without differences of case, spaces and spelling of characters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def contains(text: str, found: str) -> bool:
    """Return whether a text occurs in another, not as part of a longer word or number."""
    start = text.find(found)
    while start >= 0:
        end = start + len(found)
        begins = not (text[start - 1 : start].isalnum() and found[0].isalnum())
        if begins and not (text[end : end + 1].isalnum() and found[-1].isalnum()):
            return True
        start = text.find(found, start + 1)
    return False
