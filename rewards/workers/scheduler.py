"""What is queued for marking, and what came of it. No Ray here: pool.py decides who marks, this file what it means."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rewards.config import RewardsConfig
from rewards.function import Outcome, RewardFunction
from rewards.registry import functions_of
from rewards.score import compose, parts_of
from rewards.workers.failures import Failure, Failures
from rewards.workers.pace import Pace
from rollout.types.completions import Group, Reward

AHEAD_S = 0.2
"""Seconds of work that a worker may have before it: enough to be busy until it is given more, and so little that slow
work is shared among all."""
MAX_AHEAD = 512
"""The same in completions."""


@dataclass(eq=False)
class Ticket:
    """A group on its way through the pool."""

    group: Group
    functions: tuple[RewardFunction, ...]
    rewards: dict[int, Reward] = field(default_factory=dict)
    """By the completion's index."""

    @property
    def is_done(self) -> bool:
        return len(self.rewards) == len(self.group.completions)

    def scored(self) -> Group:
        return self.group.scored(tuple(self.rewards[index] for index in range(len(self.rewards))))


@dataclass(frozen=True, eq=False)
class Job:
    """Completions of one group that one worker marks."""

    ticket: Ticket
    indices: tuple[int, ...]
    may_retry: bool = True
    """Whether a worker that dies with it has it given to another."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The assistant's whole turns."""
        prefix, completions = self.ticket.group.prompt.assistant_prefix, self.ticket.group.completions
        return tuple(prefix + completions[index].text for index in self.indices)

    @property
    def task(self) -> str:
        return self.ticket.group.prompt.grader


class Ledger:
    """Jobs in, rewards out. Each completion of a group gets exactly one reward."""

    def __init__(self, config: RewardsConfig) -> None:
        self._config = config
        self._functions: dict[str, tuple[RewardFunction, ...]] = {}
        self._pace = Pace()
        self.failures = Failures(config)
        self.queue: deque[Job] = deque()
        self.finished: list[Ticket] = []
        self.num_pending = 0
        """Groups that were queued and not taken back yet."""

    def enqueue(self, group: Group) -> Ticket:
        """Queues a group as one job. Raises RewardConfigError when the settings cannot mark its task."""
        ticket = Ticket(group, self.functions_of(group.prompt.grader))
        self.num_pending += 1
        if ticket.is_done:
            self.finished.append(ticket)
        else:
            self.queue.append(Job(ticket, tuple(range(len(group.completions)))))
        return ticket

    def functions_of(self, task: str) -> tuple[RewardFunction, ...]:
        """What marks the completions of ``task``."""
        if task not in self._functions:
            self._functions[task] = functions_of(task, self._config)
        return self._functions[task]

    def next_jobs(self, num_open: int) -> list[Job]:
        """Takes off the queue what a worker gets that has ``num_open`` completions before it.

        That is AHEAD_S of work by the pace so far, groups being split where it takes that; nothing, unless there is
        room for half of it.
        """
        jobs: list[Job] = []
        while self.queue:
            target = self._pace.how_many(self.queue[0].task, AHEAD_S, MAX_AHEAD)
            room = target - num_open
            if room <= 0 or (not jobs and 2 * room < target):
                break
            jobs.append(self._next_job(room))
            num_open += len(jobs[-1].indices)
        return jobs

    def take_finished(self) -> list[Group]:
        """The groups that are done, once."""
        return self.take(list(self.finished))

    def take(self, tickets: Sequence[Ticket]) -> list[Group]:
        """Those groups, which must be done, in that order."""
        taken = set(tickets)
        self.finished = [ticket for ticket in self.finished if ticket not in taken]
        self.num_pending -= len(tickets)
        return [ticket.scored() for ticket in tickets]

    def settle(self, job: Job, outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Takes what the functions made of each completion of a job.

        Raises RewardConfigError when they did not return what the settings weigh, and RewardFailure when the settings
        want the run to stop.
        """
        for index, made in zip(job.indices, outcomes, strict=True):
            if all(outcome.status != "timeout" for outcome in made):
                self._pace.record(job.task, sum(outcome.seconds for outcome in made))
            self._record(job.ticket, index, made)

    def died(self, job: Job) -> None:
        """A worker died with a job. Raises RewardFailure as ``settle`` does."""
        if job.may_retry:
            self.queue.appendleft(replace(job, may_retry=False))
            return
        lost = Outcome("error", {}, "two workers in a row died while they had it")
        self.settle(job, [[lost] * len(job.ticket.functions)] * len(job.indices))

    def _next_job(self, at_most: int) -> Job:
        job = self.queue.popleft()
        if len(job.indices) > at_most:
            self.queue.appendleft(replace(job, indices=job.indices[at_most:]))
        return replace(job, indices=job.indices[:at_most])

    def _record(self, ticket: Ticket, index: int, outcomes: Sequence[Outcome]) -> None:
        assert index not in ticket.rewards, "a completion was marked twice"
        ticket.rewards[index] = compose(ticket.functions, outcomes, self._config)
        if ticket.is_done:
            self.finished.append(ticket)
        place = f"prompt {ticket.group.prompt.id}, completion {index}"
        failed = (_failure(*each, place) for each in zip(ticket.functions, outcomes, strict=True))
        self.failures.record(tuple(failure for failure in failed if failure is not None))


def _failure(function: RewardFunction, outcome: Outcome, place: str) -> Failure | None:
    if outcome.status != "ok":
        return Failure(function.path, outcome.status, outcome.reason, place)
    broken = [part.name for part in parts_of(function, outcome) if part.status != "ok"]
    return Failure(function.path, "error", f"returned {dict(outcome.marks)}", place) if broken else None
