"""The queue of completions to be graded, and their rewards. No Ray here: pool.py decides which worker grades.

The forms of a completion on its way: a RemoteGroup is submitted and becomes a PendingGroup; each of its completions,
and the whole for functions of groups, is a WorkItem here, a GradeRequest on its way to a worker, a GradeTask there
(processes.py), an Outcome of each function (rewards/function.py), and in the end a Reward (rewards/score.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rewards.config import RewardsConfig
from rewards.environments.given_parts import GivenParts
from rewards.environments.registry import EnvironmentSpec
from rewards.function import Outcome, RewardFunction
from rewards.registry import functions_of
from rewards.score import compose, parts_of
from rewards.signature import Kind
from rewards.workers.failures import Failure, Failures
from rewards.workers.running_means import RunningMeans
from rollout.types.completions import RemoteGroup, Reward

AHEAD_S = 0.2
"""Seconds of queued work for a worker: enough to be busy until it gets more, and so little that slow work is shared
among all workers."""
MAX_AHEAD = 512
"""The same limit in completions."""


@dataclass(eq=False)
class PendingGroup:
    """A group that is being graded."""

    group: RemoteGroup
    functions: tuple[RewardFunction, ...]
    rewards: dict[int, Reward] = field(default_factory=dict)
    """Rewards by the completion's index."""
    found: dict[int | None, dict[str, Outcome]] = field(default_factory=dict)
    """What functions made of a completion, by its index, and of the whole group; by the functions' names."""

    @property
    def is_done(self) -> bool:
        return len(self.rewards) == len(self.group.completions)

    def scored(self) -> RemoteGroup:
        """Return the group with its rewards. It must be done."""
        return self.group.scored(tuple(self.rewards[index] for index in range(len(self.rewards))))


@dataclass(frozen=True, eq=False)
class WorkItem:
    """One completion of a pending group, or the group as a whole, to be graded by one worker."""

    pending: PendingGroup
    index: int | None
    """Index of the completion; None: the whole group."""
    functions: tuple[RewardFunction, ...]
    """What is called. Until a worker has imported them, nobody knows which are for whole groups: all of them."""
    may_retry: bool = True
    """Whether it is given to another worker if its worker dies."""

    @property
    def work(self) -> str:
        """Key of items that take about as long."""
        grader = self.pending.group.prompt.grader
        return grader if self.index is not None else f"groups of {grader}"


class Scheduler:
    """Groups in, rewards out. Each completion of a group gets exactly one reward."""

    def __init__(self, config: RewardsConfig, environments: Mapping[str, EnvironmentSpec] | None = None) -> None:
        """``environments`` are those that answer completions, by ``Prompt.environment``."""
        self._config = config
        self._given = GivenParts(environments or {})
        self._functions: dict[str, tuple[RewardFunction, ...]] = {}
        self._means = RunningMeans()
        self._whole: frozenset[str] = frozenset()
        self._waiting: frozenset[str] = frozenset()
        self.failures = Failures(config)
        self.queue: deque[WorkItem] = deque()
        self.finished: list[PendingGroup] = []
        self.num_pending = 0
        """Number of groups that were queued and not returned yet."""

    def enqueue(self, group: RemoteGroup) -> PendingGroup:
        """Queue a group. Raises RewardConfigError when the settings cannot grade its task."""
        pending = PendingGroup(group, self.functions_of(group.prompt.grader))
        self.num_pending += 1
        indices: list[int | None] = [*range(len(group.completions))]
        if self._config.functions and indices:
            indices.append(None)  # for nothing, unless one of these turns out to be for whole groups
        self.queue.extend(WorkItem(pending, index, pending.functions) for index in indices)
        if pending.is_done:  # a group without completions
            self.finished.append(pending)
        return pending

    def functions_of(self, task: str) -> tuple[RewardFunction, ...]:
        """Return the functions that grade ``task``. Raises RewardConfigError if the settings cannot grade it."""
        if task not in self._functions:
            self._functions[task] = functions_of(task, self._config, self._given.names)
        return self._functions[task]

    def learn(self, kinds: Mapping[str, Kind]) -> None:
        """Record how functions are called, by name. A worker reports it after it has imported them."""
        self._whole = frozenset(name for name, kind in kinds.items() if kind.is_whole)
        self._waiting = frozenset(name for name, kind in kinds.items() if kind.is_async)

    def next_items(self, num_open: int) -> list[WorkItem]:
        """Take from the queue what a worker with ``num_open`` unfinished completions gets.

        That is AHEAD_S of work by the means so far; nothing, unless there is room for half of it.
        """
        items: list[WorkItem] = []
        while self.queue:
            item = self._narrowed(self.queue[0])
            if not item.functions:
                self.queue.popleft()
                self.record(item, ())
                continue
            target = self._target(item)
            room = target - num_open
            if room <= 0 or (not items and 2 * room < target):
                break
            self.queue.popleft()
            items.append(item)
            num_open += 1
        return items

    def _narrowed(self, item: WorkItem) -> WorkItem:
        """Return the item with the functions that are called for it: those of one completion, or of whole groups."""
        if not self._whole and item.index is not None:
            return item
        functions = tuple(each for each in item.functions if (each.name in self._whole) == (item.index is None))
        return replace(item, functions=functions)

    def _target(self, item: WorkItem) -> int:
        """Return how many such items a worker may have queued."""
        target = self._means.count_within(item.work, AHEAD_S, MAX_AHEAD)
        if not any(each.name in self._waiting for each in item.functions):
            return target
        most = 2 * self._config.max_in_flight
        return most if self._means.mean(item.work) is None else min(target, most)

    def take_finished(self) -> list[RemoteGroup]:
        """Return the groups that are done, each once."""
        return self.take(list(self.finished))

    def take(self, groups: Sequence[PendingGroup]) -> list[RemoteGroup]:
        """Return those groups, which must be done, in that order."""
        taken = set(groups)
        self.finished = [pending for pending in self.finished if pending not in taken]
        self.num_pending -= len(groups)
        return [pending.scored() for pending in groups]

    def record(self, item: WorkItem, outcomes: Sequence[Outcome]) -> None:
        """Give a completion its reward by its functions' outcomes.

        Raises RewardConfigError when they did not return what the settings weigh, and RewardFailure when the settings
        want the run to stop.
        """
        pending = item.pending
        assert item.index not in pending.found, "a completion was graded twice"
        found = {function.name: outcome for function, outcome in zip(item.functions, outcomes, strict=True)}
        pending.found[item.index] = found
        if "timeout" not in [outcome.status for outcome in outcomes]:
            # While a function waits, its worker goes on with others.
            busy = [outcome.seconds for name, outcome in found.items() if name not in self._waiting]
            self._means.record(item.work, sum(busy))
        if item.index is None:
            for index in [index for index in pending.found if index is not None]:
                self._reward(pending, index)
        elif None in pending.found or not self._config.functions:
            self._reward(pending, item.index)

    def _reward(self, pending: PendingGroup, index: int) -> None:
        """Give a completion its reward, when all outcomes are known."""
        found, group = pending.found[index], pending.group
        if whole := pending.found.get(None):
            size = len(group.completions)
            found = found | {name: each.of_completion(name, index, size) for name, each in whole.items()}
        outcomes = [found[function.name] for function in pending.functions]
        given = self._given.of(group.prompt.environment, group.completions[index].parts)
        reward = pending.rewards[index] = compose(pending.functions, outcomes, self._config, given)
        if pending.is_done:
            self.finished.append(pending)
        if reward.status == "ok" and all(outcome.status == "ok" for outcome in outcomes):
            self.failures.record(())
            return
        place = f"prompt {pending.group.prompt.id}, completion {index}"
        failed = [_failure(*each, place) for each in zip(pending.functions, outcomes, strict=True)]
        nobody = Failure("rewards.weights", "error", "every part that is weighed is None for it", place)
        self.failures.record(tuple(failure for failure in failed if failure is not None) or (nobody,))

    def retry(self, items: Iterable[WorkItem]) -> None:
        """Queue again, at the front, the items of a worker that died. Raises RewardFailure as ``record`` does."""
        lost = Outcome("error", {}, "two workers in a row died while they had it")
        for item in reversed(list(items)):  # each goes to the front of the queue
            if item.may_retry:
                self.queue.appendleft(replace(item, may_retry=False))
            else:
                self.record(item, [lost] * len(item.functions))


def _failure(function: RewardFunction, outcome: Outcome, place: str) -> Failure | None:
    if outcome.status != "ok":
        return Failure(function.path, outcome.status, outcome.reason, place)
    broken = [part.name for part in parts_of(function, outcome) if part.status != "ok"]
    return Failure(function.path, "error", f"returned {dict(outcome.grades)}", place) if broken else None
