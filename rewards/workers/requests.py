"""What a worker is asked to grade, and the rewards that it composes. No Ray here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from rewards.config import RewardsConfig
from rewards.function import Outcome, RewardFunction
from rewards.score import Given, compose, parts_of
from rewards.subject import Subject
from rewards.workers.failures import Failure
from rewards.workers.processes import GradeTask
from rollout.types.completions import Group, Reward


class GradeRequest(NamedTuple):
    """A request to grade completions of one group."""

    functions: tuple[RewardFunction, ...]
    group: int
    """Position among the groups that the worker is given in the same call."""
    completions: tuple[int, ...]
    """Positions in the group: all of them if a function is for whole groups."""
    given: tuple[Given, ...] = ()
    """Each completion's parts from its environment; empty: no environment gave any."""


class GradedCompletion(NamedTuple):
    """A completion's reward, and why functions failed on it."""

    position: int
    """In its group."""
    reward: Reward
    failures: tuple[Failure, ...] = ()


class GroupGrading:
    """A request, its tasks, and the rewards of the completions whose tasks are done."""

    def __init__(
        self, request: GradeRequest, groups: Sequence[Group], whole: Collection[str], config: RewardsConfig
    ) -> None:
        """``whole`` are the names of functions that are called once for a whole group."""
        self._request = request
        self._group = groups[request.group]
        self._config = config
        alone = tuple(function for function in request.functions if function.name not in whole)
        together = tuple(function for function in request.functions if function.name in whole)
        self._tasks = {index: self._task_of(index, alone) for index in request.completions} if alone else {}
        self._whole = self._task_of_all(together) if together else None
        self._open = dict(enumerate(request.completions))

    @property
    def tasks(self) -> list[GradeTask]:
        return [*self._tasks.values(), *([self._whole] if self._whole is not None else [])]

    def take_ready(self) -> list[GradedCompletion]:
        """Return the completions that became ready since the last call. Raises RewardConfigError as `compose` does."""
        if not self._open or (self._whole is not None and not self._whole.is_done):
            return []
        places = [place for place, index in self._open.items() if not self._tasks or self._tasks[index].is_done]
        return [self._graded(place, self._open.pop(place)) for place in places]

    def _graded(self, place: int, index: int) -> GradedCompletion:
        found = self._tasks[index].found if self._tasks else {}
        if self._whole is not None:
            size = len(self._group.completions)
            each = {name: outcome.of_completion(name, index, size) for name, outcome in self._whole.found.items()}
            found = found | each
        outcomes = [found[function.name] for function in self._request.functions]
        given = self._request.given[place] if self._request.given else Given()
        return graded(self._request.functions, outcomes, self._config, given, self._group.prompt.id, index)

    def _task_of(self, index: int, functions: tuple[RewardFunction, ...]) -> GradeTask:
        prompt, prefix = self._group.prompt, self._group.prompt.assistant_prefix
        text = prefix + self._group.completions[index].policy_text
        return GradeTask(functions, Subject((text,), prompt.answer, prompt.text, prefix_characters=len(prefix)))

    def _task_of_all(self, functions: tuple[RewardFunction, ...]) -> GradeTask:
        prompt, completions = self._group.prompt, self._group.completions
        texts = tuple(prompt.assistant_prefix + completion.policy_text for completion in completions)
        ids = tuple(completion.token_ids[completion.policy_tokens].tolist() for completion in completions)
        return GradeTask(functions, Subject(texts, prompt.answer, prompt.text, prompt.messages, ids))


def graded(
    functions: Sequence[RewardFunction],
    outcomes: Sequence[Outcome],
    config: RewardsConfig,
    given: Given,
    prompt_id: str,
    index: int,
) -> GradedCompletion:
    """Return a completion's reward by its functions' outcomes, and why some failed. Raises as `compose` does."""
    reward = compose(functions, outcomes, config, given)
    if reward.status == "ok" and all(outcome.status == "ok" for outcome in outcomes):
        return GradedCompletion(index, reward)
    place = f"prompt {prompt_id}, completion {index}"
    nobody = Failure("rewards.weights", "error", "every part that is weighed is None for it", place)
    failures = [_failure(*each, place) for each in zip(functions, outcomes, strict=True)]
    return GradedCompletion(index, reward, tuple(failure for failure in failures if failure is not None) or (nobody,))


def _failure(function: RewardFunction, outcome: Outcome, place: str) -> Failure | None:
    if outcome.status != "ok":
        return Failure(function.path, outcome.status, outcome.reason, place)
    is_broken = any(part.status != "ok" for part in parts_of(function, outcome))
    return Failure(function.path, "error", f"returned {dict(outcome.grades)}", place) if is_broken else None
