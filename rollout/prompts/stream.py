"""The prompts of a run, in a seeded order, which a resumed run continues where it stopped."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from rollout.problems.listed import SplitRule
from rollout.prompts.chat import Tokenizer
from rollout.prompts.config import PromptsConfig
from rollout.prompts.curriculum import Curriculum, SolvedProblems, training_id
from rollout.prompts.mixture import MAX_REDRAWS, Draw, Mixture, NoneFitsError, NothingLeftError
from rollout.prompts.template import OverlongPromptError, Template
from rollout.types.completions import GroupHeader
from rollout.types.prompts import Prompt, PromptFormat

logger = logging.getLogger(__name__)

FORMAT = 2
"""Version of the state. Of the first, which names none, held-out problems were chosen by their position."""


class PromptStream:
    """Endless shuffled training prompts, and a fixed list of held-out ones.

    A prompt's id names its position, so it is unique in the run and the same after a resume.
    """

    def __init__(
        self,
        config: PromptsConfig,
        tokenizer: Tokenizer,
        problems: Mixture | None = None,
        checks: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = MappingProxyType({}),
    ) -> None:
        """Take what `config` describes.

        Args:
            problems: what is asked, where it was looked at before; None: what `config` describes.
            checks: by entry, what returns why no answer to a problem could be graded right; None where one could. A
                drawn problem of which it finds something is drawn again.
        """
        self._checks = checks
        self._config = config
        self._template = Template(config, tokenizer)
        self._curriculum = Curriculum(config.curriculum, config.weights)
        self._solved = SolvedProblems(config.curriculum.drop_solved_after)
        self._mixture = problems or Mixture(config)
        self._position = 0
        self._step = 1
        self.held_out = lru_cache(maxsize=None)(self._held_out)

    def take(self, count: int) -> list[Prompt]:
        """Return the next `count` training prompts."""
        return [self._next() for _ in range(count)]

    def observe(self, groups: Sequence[GroupHeader]) -> None:
        """End a step with these graded groups; they may end a stage of the curriculum."""
        self._curriculum.observe(groups, self._position)
        for group in groups:
            if self._mixture.is_listed(group.prompt.source):
                self._solved.observe(group)
        self._step += 1

    def metrics(self) -> dict[str, float]:
        """Return the `curriculum/` metrics; none if prompts do not change over the run."""
        share = {"curriculum/one_shot_share": self._one_shot_share} if self._config.one_shot_steps else {}
        return self._curriculum.metrics() | self._solved.metrics() | share

    def _held_out(self, format: PromptFormat | None = None) -> list[Prompt]:
        """Return the prompts of evaluations, in the recipe's format or another. None is ever trained on."""
        return [
            self._template.prompt(f"held_out/{position:06d}", problem, format, name)
            for position, (name, problem) in enumerate(self._mixture.held_out)
        ]

    @property
    def answer_entries(self) -> dict[str, set[str]]:
        """The entries of the held-out problems' answers, by the problems' source."""
        found: dict[str, set[str]] = {}
        for name, problem in self._mixture.held_out:
            found.setdefault(name, set()).update(map(str, problem.answer))
        return found

    def state(self) -> dict[str, Any]:
        """Return the state that `restore` needs to continue from here."""
        return {
            "format": FORMAT if self._mixture.rule == "by_key" else 1,
            "position": self._position,
            "step": self._step,
            "mixture": self._mixture.state(),
            "curriculum": self._curriculum.state(),
            "solved": self._solved.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        assert split_rule(state) == self._mixture.rule
        self._position, self._step = state["position"], state["step"]
        self._mixture.restore(state["mixture"])
        self._curriculum.restore(state["curriculum"])
        self._solved.restore(state["solved"])

    @property
    def _one_shot_share(self) -> float:
        steps = self._config.one_shot_steps
        return max(0.0, 1.0 - (self._step - 1) / steps) if steps else 0.0

    def _next(self) -> Prompt:
        position, self._position = self._position, self._position + 1
        is_one_shot = random.Random(f"format/{self._config.seed}/{position}").random() < self._one_shot_share
        format: PromptFormat | None = "one_shot" if is_one_shot else None
        fault = ""
        for _ in range(MAX_REDRAWS):
            name, problem = self._draw(position)
            is_listed = self._mixture.is_listed(name)
            if not is_listed and name in self._checks and (fault := self._checks[name](problem.answer) or ""):
                logger.info("another problem is asked in place of %s: %s", problem.key, fault)
                continue
            try:
                return self._template.prompt(training_id(position), problem, format, name)
            except OverlongPromptError as error:
                if is_listed:
                    raise
                fault = str(error)
                logger.info("another problem is asked in its place: %s", fault)
        raise NoneFitsError(name, fault)

    def _draw(self, position: int) -> Draw:
        weights, has_dropped = self._curriculum.weights, self._solved.has_dropped
        try:
            return self._mixture.draw(position, weights, has_dropped)
        except NothingLeftError as error:
            if not self._solved.forget(error.name):
                raise
            logger.warning("every problem of %r was dropped as solved: all of them are asked again", error.name)
            return self._mixture.draw(position, weights, has_dropped)


def split_rule(state: Mapping[str, Any]) -> SplitRule:
    """Return how held-out problems are chosen in a run whose stream had this state."""
    return "by_key" if state.get("format", 1) >= FORMAT else "by_position"
