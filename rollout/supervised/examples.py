"""Endless supervised examples, in a seeded order that a resumed training continues where it stopped."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from itertools import islice
from typing import Any, Protocol

from rollout.config import TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.prompts.template import Template, Tokenizer, encode_completion
from rollout.supervised.pairs import LengthLimit, PairError, encode_pairs, fingerprint, read_pairs
from rollout.tasks.base import Problem
from rollout.types.prompts import SupervisedExample


class Examples(Protocol):
    """The examples that a supervised training learns from."""

    def take(self, count: int) -> list[SupervisedExample]:
        """Return the next `count` examples."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs to go on from here."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from that state. To be called once, before any `take`."""
        ...


class PairExamples:
    """The pairs of a JSONL file, shuffled anew for each epoch."""

    def __init__(self, path: str, tokenizer: Tokenizer, limits: list[LengthLimit], seed: int) -> None:
        """Raise PairError for a file, or a line, that cannot be trained on."""
        self._path = path
        self._fingerprint = fingerprint(path)
        self._examples = list(encode_pairs(read_pairs(path), tokenizer, limits))
        self._position = 0
        self._order = lru_cache(maxsize=1)(
            lambda epoch: random.Random(f"pairs/{seed}/{epoch}").sample(range(len(self._examples)), len(self._examples))
        )

    def __len__(self) -> int:
        return len(self._examples)

    def take(self, count: int) -> list[SupervisedExample]:
        positions = range(self._position, self._position + count)
        self._position += count
        places = (divmod(position, len(self._examples)) for position in positions)
        return [self._examples[self._order(epoch)[index]] for epoch, index in places]

    def state(self) -> dict[str, Any]:
        return {"position": self._position, "data": self._fingerprint}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from that state. Raises PairError when the file has changed since."""
        if state["data"] != self._fingerprint:
            raise PairError(
                f"warm_start.data = {self._path!r} has changed since the checkpoint: put the old file back to resume, "
                "or choose another name to start afresh"
            )
        self._position = state["position"]


class TraceExamples:
    """The task's synthetic traces, with prompts in the recipe's words."""

    def __init__(self, prompts: PromptsConfig, config: TracesConfig, tokenizer: Tokenizer, seed: int) -> None:
        """Raise ValueError when the task has no traces, or the tokenizer cannot encode its prompts."""
        self._template = Template(prompts, tokenizer)
        self._tokenizer = tokenizer
        self._traces = traces(prompts, config, seed)
        self._position = 0

    def take(self, count: int) -> list[SupervisedExample]:
        self._position += count
        return [self._example(problem, text) for problem, text in islice(self._traces, count)]

    def state(self) -> dict[str, Any]:
        return {"position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        # Drawn again rather than saved: a random generator's state and the held-out problems would be far larger.
        for _ in islice(self._traces, state["position"] - self._position):
            pass
        self._position = state["position"]

    def _example(self, problem: Problem, text: str) -> SupervisedExample:
        completion = encode_completion(self._tokenizer, text, "a trace of the warm start")
        return SupervisedExample(self._template.prompt("warm_start", problem).token_ids, completion)


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, str]]:
    """Return endless problems that are not held out, each with a completion to imitate.

    Raises ValueError when the task has no traces.
    """
    if prompts.traces is None:
        raise ValueError(
            f"prompts.task = {prompts.task!r} has no synthetic traces for a warm start: set warm_start.data to a JSONL "
            "file of prompt and completion, or warm_start.num_steps = 0"
        )
    endless: Iterator[tuple[Problem, str]] = import_module(prompts.traces).traces(prompts, config, seed)
    return endless
