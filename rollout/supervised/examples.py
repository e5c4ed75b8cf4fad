"""Endless supervised examples in a seeded order, which a resumed training continues."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import islice
from typing import Any, Protocol

import numpy as np

from rollout.config import TracesConfig
from rollout.problems.fingerprint import Fingerprint
from rollout.prompts.chat import OPENED, Tokenizer, encode, encode_completion, opens_again
from rollout.prompts.config import PromptsConfig
from rollout.prompts.entry_fingerprints import EntryFingerprint
from rollout.prompts.held_out import HeldOutQuestions
from rollout.prompts.mixture import MAX_REDRAWS, NoneFitsError
from rollout.prompts.template import OverlongPromptError, Template
from rollout.supervised.pairs import LengthLimit, PairError, encode_pairs, left_out, read_pairs
from rollout.tasks.base import MAX_DRAWS, Problem
from rollout.types.prompts import SupervisedExample

logger = logging.getLogger(__name__)

Trace = str | Sequence[str]
"""A completion to imitate. With turns, every second text is an environment's observation, which is not imitated."""

FORMAT = 2
"""Version of the state. Version 1, whose states have no version, also taught held-out questions of other entries."""
MAX_NAMED = 5
"""Number of lines that a warning names."""


class Examples(Protocol):
    """The examples of a supervised training."""

    num_left_out: int
    """Number of examples that were left out so far because they ask a held-out question."""

    def take(self, count: int) -> list[SupervisedExample]:
        """Return the next `count` examples."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the state that `restore` needs to continue from here."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state, which may be an earlier one."""
        ...


class PairExamples:
    """The pairs of a JSONL file that do not ask a held-out question, shuffled again in each epoch."""

    def __init__(
        self,
        path: str,
        tokenizer: Tokenizer,
        limits: list[LengthLimit],
        seed: int,
        questions: HeldOutQuestions | None = None,
    ) -> None:
        """Read the file. Raises PairError for a file or a line that cannot be trained on. `questions` are left out."""
        pairs = read_pairs(path)
        left = left_out(pairs, questions)
        self.num_left_out = len(left)
        if len(left) == len(pairs):
            raise PairError(
                f"warm_start.data = {path!r}: each of its {len(pairs)} pairs asks a held-out question, so no pair is "
                "left to train on: give other pairs, or lower prompts.num_held_out"
            )
        if left:
            named = ", ".join(pairs[i].where.rpartition(", ")[2] for i in left[:MAX_NAMED])
            logger.warning(
                "%s: %d of %d pairs ask a held-out question and are not taught: %s",
                path,
                len(left),
                len(pairs),
                named + ", …" * (len(left) > MAX_NAMED),
            )
        rows = Fingerprint.of((pair.asked, pair.completion, pair.where) for pair in pairs)
        self.fingerprint = EntryFingerprint(path, rows, None)
        held_out = set(left)
        taught = [pair for i, pair in enumerate(pairs) if i not in held_out]
        self._examples = list(encode_pairs(taught, tokenizer, limits))
        self._format = FORMAT if questions is not None else 1
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
        return {"format": self._format, "position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._position = state["position"]


class TraceExamples:
    """The task's synthetic traces, with prompts in the recipe's format."""

    def __init__(
        self,
        prompts: PromptsConfig,
        config: TracesConfig,
        tokenizer: Tokenizer,
        seed: int,
        questions: HeldOutQuestions | None = None,
    ) -> None:
        """Start the traces. Raises ValueError if the task has none, or if the tokenizer cannot encode its prompts.

        Args:
            questions: held-out questions to leave out, in addition to those of the task itself.
        """
        self._prompts = prompts
        self._template = Template(prompts, tokenizer)
        self._tokenizer = tokenizer
        self._questions = questions
        self._format = FORMAT if questions is not None else 1
        self._begin = lambda: self._besides_held_out(traces(prompts, config, seed))
        self._traces = self._begin()
        self._position = 0
        self.num_left_out = 0

    def take(self, count: int) -> list[SupervisedExample]:
        """Return the next examples, without those whose prompts are too long.

        Raises NoneFitsError for MAX_REDRAWS of these in a row.
        """
        found: list[SupervisedExample] = []
        repeats = 0
        while len(found) < count:
            problem, text = next(self._traces)
            self._position += 1
            try:
                found.append(self._example(problem, text))
                repeats = 0
            except OverlongPromptError as error:
                repeats += 1
                if repeats == MAX_REDRAWS:
                    raise NoneFitsError(self._prompts.name, str(error)) from error
                logger.info("another trace is taught in its place: %s", error)
        return found

    def state(self) -> dict[str, Any]:
        return {"format": self._format, "position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        # Draw traces again: saving a random generator's state and the held-out problems would take far more space.
        self.num_left_out = 0
        self._traces = islice(self._begin(), state["position"], None)
        self._position = state["position"]

    def _besides_held_out(self, traces: Iterator[tuple[Problem, Trace]]) -> Iterator[tuple[Problem, Trace]]:
        repeats = 0
        for problem, text in traces:
            is_held_out = self._questions is not None and self._questions.holds(self._prompts, problem)
            repeats = repeats + 1 if is_held_out else 0
            if repeats == MAX_DRAWS:
                raise ValueError(
                    f"{MAX_DRAWS:,} traces of the warm start in a row ask a held-out question: lower "
                    "prompts.num_held_out"
                )
            if not is_held_out:
                yield problem, text
            else:
                self.num_left_out += 1

    def _example(self, problem: Problem, trace: Trace) -> SupervisedExample:
        prompt = self._template.prompt("warm_start", problem)
        *turns, last = [trace] if isinstance(trace, str) else trace
        text = "".join([*turns, last])
        if opens_again(prompt.text, text):
            raise ValueError(
                f"a trace of the warm start opens {OPENED}, which the prompt has opened at the end of "
                f"{prompt.text[-40:]!r}: remove it from prompts.assistant_prefix, or from the trace {text[:40]!r}"
            )
        where = "a trace of the warm start"
        # Encode each turn alone, as rollouts do: they encode an observation alone, and append it to the sampled tokens.
        pieces = [encode(self._tokenizer, turn, where, add_special_tokens=False) for turn in turns]
        pieces.append(encode_completion(self._tokenizer, last, where))
        is_taught = np.repeat(np.arange(len(pieces)) % 2 == 0, [len(piece) for piece in pieces])
        return SupervisedExample(
            prompt.token_ids, np.concatenate(pieces), np.flatnonzero(is_taught) if len(pieces) > 1 else None
        )


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, Trace]]:
    """Return endless problems that are not held out, each with a completion to imitate.

    Raises ValueError if the task has no traces.
    """
    if prompts.traces is None:
        raise ValueError(
            f"prompts.task = {prompts.task!r} has no synthetic traces for a warm start: set warm_start.data to a JSONL "
            "file of prompt and completion, or warm_start.num_steps = 0"
        )
    endless: Iterator[tuple[Problem, Trace]] = import_module(prompts.traces).traces(prompts, config, seed)
    return endless
