"""The prompts of a run, in a seeded order that a resumed run takes up where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from rollout.config import PromptsConfig
from rollout.prompts.tasks import problem_source
from rollout.prompts.template import Template, Tokenizer
from rollout.types import Prompt


class PromptStream:
    """Endless shuffled training prompts, and a fixed list of held-out ones.

    A prompt's id names its position, so it is unique in the run and the same after a resume.
    """

    def __init__(self, config: PromptsConfig, tokenizer: Tokenizer) -> None:
        self._template = Template(config, tokenizer)
        self._source = problem_source(config)
        self._position = 0

    def take(self, count: int) -> list[Prompt]:
        """The next `count` training prompts."""
        positions = range(self._position, self._position + count)
        self._position += count
        return [self._template.prompt(f"train/{position:06d}", self._source.train(position)) for position in positions]

    @cached_property
    def held_out(self) -> list[Prompt]:
        """The evaluation's prompts; none of their problems is ever among the training prompts."""
        return [
            self._template.prompt(f"held_out/{position:06d}", problem)
            for position, problem in enumerate(self._source.held_out)
        ]

    def state(self) -> dict[str, int]:
        """What `restore` needs to go on from here."""
        return {"position": self._position}

    def restore(self, state: Mapping[str, int]) -> None:
        self._position = state["position"]
