"""Sample the groups of each step in a fixed order, ahead if the recipe allows it, and replace groups without spread.

With `max_staleness` s, the prompts of step t are requested when the weights of step t - s - 1 are published. So the
weights that sample them are at most s steps older than the weights that step t updates. The prompts of a step are fixed
when they are taken from the stream, never by the speed of generators. So a resumed run continues with the same prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import numpy as np

from learner.metrics import Update
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.protocols import Rollouts
from orchestrator.records.trackers.base import LearnedGroup
from rollout.prompts.stream import PromptStream
from rollout.rows.json_text import json_text
from rollout.types.completions import RemoteGroup
from rollout.types.numbers import written_float
from rollout.types.prompts import Prompt
from rollout.types.sampling import SamplingRequest

AHEAD = "ahead"
"""Key of a checkpoint's prompts that were requested for later steps. It is absent if there are none, for example after
the last step, and in checkpoints of earlier versions without staleness."""


class StaleGroupError(RuntimeError):
    """A group was sampled by weights that are older than `max_staleness` allows."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """The groups that were sampled for one step."""

    groups: list[RemoteGroup]
    """The ``prompts_per_step`` groups to train on."""
    replaced: list[RemoteGroup]
    """Groups without spread that were replaced."""
    num_rounds: int
    """Number of rounds that sampled new prompts."""

    @property
    def everything(self) -> list[RemoteGroup]:
        return self.groups + self.replaced

    def learned(self, update: Update) -> list[LearnedGroup]:
        """Return every group with its advantages: the update's for trained groups, and zeros for replaced groups."""
        lengths = (group.num_completion_tokens for group in self.groups)
        logprobs = update.logprobs.split(lengths) if update.logprobs else repeat(None)
        trained = map(LearnedGroup, self.groups, update.advantages, logprobs)
        untrained = (LearnedGroup(group, [0.0] * len(group.completions)) for group in self.replaced)
        return [*trained, *untrained]

    def metrics(self) -> dict[str, float]:
        return {
            "rollout/replaced_groups": float(len(self.replaced)),
            "rollout/resample_rounds": float(self.num_rounds),
        }


class StepBatches:
    """Samples the groups of each step, and keeps groups of later steps in flight if `max_staleness` allows it."""

    def __init__(self, rollouts: Rollouts, prompts: PromptStream, config: RunConfig) -> None:
        self._rollouts = rollouts
        self._prompts = prompts
        self._config = config
        self._ahead: dict[int, list[Prompt]] = {}
        """Requested prompts, by step."""

    def ask(self, step: int) -> None:
        """Request the prompts of `step`, and of later steps that may be sampled now. Return at once.

        No prompt is requested twice, and none for a step after the last.
        """
        for later in range(step, min(step + self._config.max_staleness, self._config.num_steps) + 1):
            if later not in self._ahead:
                self._ahead[later] = self._ask(self._config.prompts_per_step)

    def sample(self, step: int) -> StepBatch:
        """Return the sampled and graded groups of `step`; request them if that was not done before.

        While some groups have no spread, the same number of new prompts is sampled, in at most ``resample_rounds``
        further rounds (arXiv:2503.14476, equation 11). Groups without spread fill the places that are then still
        empty.

        Raises:
            StaleGroupError: a generator has other weights than it should.
        """
        self.ask(step)
        requested = self._ahead.pop(step)
        groups: list[RemoteGroup] = []
        replaced: list[RemoteGroup] = []
        num_rounds = 0
        while True:
            gathered = self._rollouts.gather(requested)
            check_staleness(gathered, step, self._config.max_staleness)
            if num_rounds == self._config.learner.algorithm.resample_rounds:
                groups += gathered
                break
            groups += [group for group in gathered if group.has_spread]
            replaced += [group for group in gathered if not group.has_spread]
            if len(groups) == self._config.prompts_per_step:
                break
            num_rounds += 1
            requested = self._ask(self._config.prompts_per_step - len(groups))
        return StepBatch(groups, replaced, num_rounds)

    def state(self) -> dict[str, Any]:
        """Return the state that `restore` needs to continue after the last step: the taken prompts, not completions."""
        ahead = {step: [as_json(prompt) for prompt in prompts] for step, prompts in self._ahead.items()}
        return self._prompts.state() | ({AHEAD: ahead} if ahead else {})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned, and request again what was in flight."""
        self._prompts.restore(state)
        self._ahead = {int(step): [from_json(row) for row in rows] for step, rows in state.get(AHEAD, {}).items()}
        for prompts in self._ahead.values():
            self._submit(prompts)

    def _ask(self, count: int) -> list[Prompt]:
        prompts = self._prompts.take(count)
        self._submit(prompts)
        return prompts

    def _submit(self, prompts: Sequence[Prompt]) -> None:
        config = self._config
        self._rollouts.submit(SamplingRequest(tuple(prompts), config.sampling, config.group_size, config.seed))


def check_staleness(groups: Sequence[RemoteGroup], step: int, max_staleness: int) -> None:
    """Raise StaleGroupError if a group was sampled by a policy version that is not allowed for `step`."""
    allowed = range(step - 1 - max_staleness, step)
    for group in groups:
        versions = {version for completion in group.completions for version in completion.policy_versions}
        if not versions <= {*allowed}:
            raise StaleGroupError(
                f"step {step} trains on samples of policy versions {allowed[0]} to {allowed[-1]}, but "
                f"{group.prompt.id} was sampled by {sorted(versions)}: a publish did not arrive, look at the "
                "generators' logs"
            )


def as_json(prompt: Prompt) -> dict[str, Any]:
    # A number of the answer keeps the digits with which it was written, by which some graders compare: 2.50.
    return asdict(prompt) | {"token_ids": prompt.token_ids.tolist(), "answer": json_text(prompt.answer)}


def from_json(row: Mapping[str, Any]) -> Prompt:
    fields = dict(row) | {"token_ids": np.array(row["token_ids"], dtype=np.int32)}
    if isinstance(fields["answer"], str):  # an object in checkpoints before format 3
        fields["answer"] = json.loads(fields["answer"], parse_float=written_float)
    if "task" in fields:  # the name of the grader in checkpoints before format 2
        fields["grader"] = fields.pop("task")
    return Prompt(**fields)
