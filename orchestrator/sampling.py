"""The groups of a step, and DAPO's dynamic sampling: groups that teach nothing are replaced by fresh ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.config import RunConfig
from orchestrator.fleet import Rollouts
from rollout.prompts.stream import PromptStream
from rollout.types import Group


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was sampled for one step."""

    groups: list[Group]
    """Those to train on, ``prompts_per_step`` of them."""
    replaced: list[Group]
    """Those without spread that others took the place of."""
    num_rounds: int
    """How often fresh prompts were sampled."""

    @property
    def everything(self) -> list[Group]:
        return self.groups + self.replaced

    def credited(self, advantages: Sequence[Sequence[float]]) -> list[tuple[Group, Sequence[float]]]:
        """Everything with its advantages, of which those that were trained on are given; the others taught nothing."""
        untrained = [[0.0] * len(group.completions) for group in self.replaced]
        return list(zip(self.everything, [*advantages, *untrained], strict=True))

    def metrics(self) -> dict[str, float]:
        return {
            "rollout/replaced_groups": float(len(self.replaced)),
            "rollout/resample_rounds": float(self.num_rounds),
        }


def sample(rollouts: Rollouts, prompts: PromptStream, config: RunConfig) -> Sampled:
    """Sample and score the step's groups.

    While some have no spread, as many fresh prompts are sampled, in at most ``resample_rounds`` further rounds
    (arXiv:2503.14476, equation 11). What then is still missing is made up of groups without spread.
    """
    groups: list[Group] = []
    replaced: list[Group] = []
    num_rounds = 0
    while True:
        fresh = prompts.take(config.prompts_per_step - len(groups))
        collected = rollouts.collect(fresh, config.sampling, config.group_size)
        if num_rounds == config.learner.algorithm.resample_rounds:
            groups += collected
            break
        groups += [group for group in collected if group.has_spread]
        replaced += [group for group in collected if not group.has_spread]
        if len(groups) == config.prompts_per_step:
            break
        num_rounds += 1
    return Sampled(groups, replaced, num_rounds)
