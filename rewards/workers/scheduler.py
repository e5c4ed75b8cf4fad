"""The queue of completions to be graded, and their rewards. No Ray here: pool.py decides which worker grades.

The forms of a completion on its way: a RemoteGroup is submitted and becomes a PendingGroup; each of its completions is
a WorkItem here, a GradeRequest on its way to a worker, a GradeTask there (processes.py), an Outcome of each function
(rewards/function.py), and in the end a Reward (rewards/score.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rewards.config import RewardsConfig
from rewards.environments.registry import EnvironmentSpec
from rewards.function import Outcome, RewardFunction
from rewards.registry import functions_of
from rewards.score import compose, parts_of
from rewards.workers.failures import Failure, Failures
from rewards.workers.running_means import RunningMeans
from rollout.types.completions import RemoteGroup, Reward, RewardPart

AHEAD_S = 0.2
"""Seconds of work that a worker may have before it: enough to be busy until it is given more, and so little that slow
work is shared among all."""
MAX_AHEAD = 512
"""The same in completions."""


@dataclass(eq=False)
class PendingGroup:
    """A group on its way through the pool."""

    group: RemoteGroup
    functions: tuple[RewardFunction, ...]
    rewards: dict[int, Reward] = field(default_factory=dict)
    """By the completion's index."""

    @property
    def is_done(self) -> bool:
        return len(self.rewards) == len(self.group.completions)

    def scored(self) -> RemoteGroup:
        """Return the group with its rewards. It must be done."""
        return self.group.scored(tuple(self.rewards[index] for index in range(len(self.rewards))))


@dataclass(frozen=True, eq=False)
class WorkItem:
    """One completion of a pending group, to be graded by one worker."""

    pending: PendingGroup
    index: int
    may_retry: bool = True
    """Whether a worker that dies with it has it given to another."""

    @property
    def grader(self) -> str:
        return self.pending.group.prompt.grader


class Scheduler:
    """Groups in, rewards out. Each completion of a group gets exactly one reward."""

    def __init__(self, config: RewardsConfig, environments: Mapping[str, EnvironmentSpec] | None = None) -> None:
        """``environments`` are those that answer completions, by ``Prompt.environment``."""
        self._config = config
        self._environments = environments or {}
        self._environment_parts = {part for each in self._environments.values() for part in each.parts}
        self._functions: dict[str, tuple[RewardFunction, ...]] = {}
        self._means = RunningMeans()
        self.failures = Failures(config)
        self.queue: deque[WorkItem] = deque()
        self.finished: list[PendingGroup] = []
        self.num_pending = 0
        """Groups that were queued and not taken back yet."""

    def enqueue(self, group: RemoteGroup) -> PendingGroup:
        """Queue a group. Raises RewardConfigError when the settings cannot grade its task."""
        pending = PendingGroup(group, self.functions_of(group.prompt.grader))
        self.num_pending += 1
        self.queue.extend(WorkItem(pending, index) for index in range(len(group.completions)))
        if pending.is_done:  # a group without completions
            self.finished.append(pending)
        return pending

    def functions_of(self, task: str) -> tuple[RewardFunction, ...]:
        """Return what grades completions of ``task``. Raises RewardConfigError when the settings cannot grade it."""
        if task not in self._functions:
            self._functions[task] = functions_of(task, self._config, self._environment_parts)
        return self._functions[task]

    def next_items(self, num_open: int) -> list[WorkItem]:
        """Take off the queue what a worker gets that has ``num_open`` completions before it.

        That is AHEAD_S of work by the means so far; nothing, unless there is room for half of it.
        """
        items: list[WorkItem] = []
        while self.queue:
            target = self._means.count_within(self.queue[0].grader, AHEAD_S, MAX_AHEAD)
            room = target - num_open
            if room <= 0 or (not items and 2 * room < target):
                break
            items.append(self.queue.popleft())
            num_open += 1
        return items

    def take_finished(self) -> list[RemoteGroup]:
        """Return the groups that are done, each once."""
        return self.take(list(self.finished))

    def take(self, groups: Sequence[PendingGroup]) -> list[RemoteGroup]:
        """Return those groups, which must be done, in that order."""
        taken = set(groups)
        self.finished = [pending for pending in self.finished if pending not in taken]
        self.num_pending -= len(groups)
        return [pending.scored() for pending in groups]

    def settle(self, item: WorkItem, outcomes: Sequence[Outcome]) -> None:
        """Give a completion its reward by its functions' outcomes.

        Raises RewardConfigError when they did not return what the settings weigh, and RewardFailure when the settings
        want the run to stop.
        """
        pending = item.pending
        assert item.index not in pending.rewards, "a completion was graded twice"
        statuses = {outcome.status for outcome in outcomes}
        if "timeout" not in statuses:
            self._means.record(item.grader, sum([outcome.seconds for outcome in outcomes]))
        reward = pending.rewards[item.index] = compose(
            pending.functions, outcomes, self._config, self._given(pending.group, item.index)
        )
        if pending.is_done:
            self.finished.append(pending)
        if reward.status == "ok" and statuses <= {"ok"}:
            self.failures.record(())
            return
        place = f"prompt {pending.group.prompt.id}, completion {item.index}"
        failed = (_failure(*each, place) for each in zip(pending.functions, outcomes, strict=True))
        self.failures.record(tuple(failure for failure in failed if failure is not None))

    def _given(self, group: RemoteGroup, index: int) -> list[RewardPart]:
        """Return the parts that a completion's environment gave; 0 for one that it should have given and did not."""
        spec = self._environments.get(group.prompt.environment)
        declared = dict.fromkeys(spec.parts if spec is not None else (), 0.0)
        return [RewardPart(name, value) for name, value in {**declared, **group.completions[index].parts}.items()]

    def retry(self, items: Iterable[WorkItem]) -> None:
        """Queue again, first of all, what a worker had that died. Raises RewardFailure as ``settle`` does."""
        lost = Outcome("error", {}, "two workers in a row died while they had it")
        for item in reversed(list(items)):  # each goes to the front of the queue
            if item.may_retry:
                self.queue.appendleft(replace(item, may_retry=False))
            else:
                self.settle(item, [lost] * len(item.pending.functions))


def _failure(function: RewardFunction, outcome: Outcome, place: str) -> Failure | None:
    if outcome.status != "ok":
        return Failure(function.path, outcome.status, outcome.reason, place)
    broken = [part.name for part in parts_of(function, outcome) if part.status != "ok"]
    return Failure(function.path, "error", f"returned {dict(outcome.grades)}", place) if broken else None
