"""The queue of completions to be graded, and their rewards. No Ray here: pool.py decides which worker grades.

The forms of a group on its way: a RemoteGroup is submitted and becomes a PendingGroup; some or all of its completions
are a WorkItem here, a GradeRequest on their way to a worker (requests.py), a GradeTask each there (processes.py), an
Outcome of each function (rewards/function.py), and in the end a Reward each (rewards/score.py), which comes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rewards.config import RewardsConfig
from rewards.environments.given_parts import GivenParts
from rewards.environments.registry import EnvironmentSpec
from rewards.function import Outcome, RewardFunction
from rewards.registry import functions_of
from rewards.score import Given
from rewards.signature import Kind
from rewards.workers.failures import Failures
from rewards.workers.requests import GradedCompletion, GradeRequest, graded
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
    given: tuple[Given, ...] = ()
    """Each completion's parts from its environment; empty: no environment gave any."""
    rewards: dict[int, Reward] = field(default_factory=dict)
    """Rewards by the completion's index."""

    @property
    def is_done(self) -> bool:
        return len(self.rewards) == len(self.group.completions)

    def scored(self) -> RemoteGroup:
        """Return the group with its rewards. It must be done."""
        return self.group.scored(tuple(self.rewards[index] for index in range(len(self.rewards))))


class WorkItem(NamedTuple):
    """Completions of a pending group, to be graded by one worker."""

    pending: PendingGroup
    completions: tuple[int, ...]
    """Their positions in the group."""
    may_retry: bool = True
    """Whether they are given to another worker if their worker dies."""

    @property
    def work(self) -> str:
        """Key of completions that take about as long."""
        return self.pending.group.prompt.grader

    @property
    def ungraded(self) -> tuple[int, ...]:
        return tuple(index for index in self.completions if index not in self.pending.rewards)

    def request(self, place: int) -> GradeRequest:
        """Return what a worker is asked; ``place`` is the group's position among those that it is given."""
        pending, completions = self.pending, self.completions
        given = tuple(pending.given[index] for index in completions) if pending.given else ()
        return GradeRequest(pending.functions, place, completions, given)


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
        prompt = group.prompt
        given = self._given.of_group(prompt.environment, [completion.parts for completion in group.completions])
        pending = PendingGroup(group, self.functions_of(prompt.grader), given)
        self.num_pending += 1
        if group.completions:
            self.queue.append(WorkItem(pending, tuple(range(len(group.completions)))))
        else:
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

        That is AHEAD_S of work by the means so far; nothing, unless there is room for half of it. A group is shared
        among workers, unless a function is for whole groups.
        """
        items: list[WorkItem] = []
        while self.queue:
            item = self.queue[0]
            target = self._target(item)
            room = target - num_open
            if room <= 0 or (not items and 2 * room < target):
                break
            self.queue.popleft()
            if len(item.completions) > room and not self._calls_any(item, self._whole):
                self.queue.appendleft(item._replace(completions=item.completions[room:]))
                item = item._replace(completions=item.completions[:room])
            items.append(item)
            num_open += len(item.completions)
        return items

    def _target(self, item: WorkItem) -> int:
        """Return how many such completions a worker may have queued."""
        target = self._means.count_within(item.work, AHEAD_S, MAX_AHEAD)
        if not self._calls_any(item, self._waiting):
            return target
        most = 2 * self._config.max_in_flight
        return most if self._means.mean(item.work) is None else min(target, most)

    def _calls_any(self, item: WorkItem, names: Collection[str]) -> bool:
        return bool(names) and any(function.name in names for function in item.pending.functions)

    def take_finished(self) -> list[RemoteGroup]:
        """Return the groups that are done, each once."""
        return self.take(list(self.finished))

    def take(self, groups: Sequence[PendingGroup]) -> list[RemoteGroup]:
        """Return those groups, which must be done, in that order."""
        taken = set(groups)
        self.finished = [pending for pending in self.finished if pending not in taken]
        self.num_pending -= len(groups)
        return [pending.scored() for pending in groups]

    def record(self, item: WorkItem, found: Iterable[GradedCompletion]) -> None:
        """Give completions of an item their rewards. Raises RewardFailure when the settings want the run to stop."""
        pending, work = item.pending, item.work
        for index, reward, failures in found:
            assert index not in pending.rewards, "a completion was graded twice"
            pending.rewards[index] = reward
            if not failures or all(failure.status != "timeout" for failure in failures):
                # While a function waits, its worker goes on with others.
                busy = [seconds for name, seconds in reward.seconds.items() if name not in self._waiting]
                self._means.record(work, sum(busy))
            self.failures.record(failures)
        if pending.is_done:
            self.finished.append(pending)

    def retry(self, items: Iterable[WorkItem]) -> None:
        """Queue again, at the front, the items of a worker that died. Raises RewardFailure as ``record`` does."""
        for item in reversed(list(items)):  # each goes to the front of the queue
            if not item.ungraded:
                continue
            if item.may_retry:
                self.queue.appendleft(WorkItem(item.pending, item.ungraded, may_retry=False))
            else:
                self.record(item, [self._lost(item.pending, index) for index in item.ungraded])

    def _lost(self, pending: PendingGroup, index: int) -> GradedCompletion:
        outcomes = [Outcome("error", {}, "two workers in a row died while they had it")] * len(pending.functions)
        given = pending.given[index] if pending.given else Given()
        return graded(pending.functions, outcomes, self._config, given, pending.group.prompt.id, index)
