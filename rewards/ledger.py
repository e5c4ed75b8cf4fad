"""What is queued for marking, and what came of it. No Ray here: pool.py decides who marks, this file what it means."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.config import RewardsConfig
from rewards.registry import path_of
from rewards.score import failed, weigh
from rewards.worker import Outcome
from rollout.types import Group, PartStatus, Reward

logger = logging.getLogger(__name__)


class RewardFailure(RuntimeError):
    """Marking failed in a way that ends the run; the message says where, why, and what to do."""


@dataclass(eq=False)
class Ticket:
    """A group on its way through the pool."""

    group: Group
    path: str
    rewards: list[Reward | None]

    @property
    def is_done(self) -> bool:
        return None not in self.rewards

    def scored(self) -> Group:
        return self.group.scored(tuple(reward for reward in self.rewards if reward is not None))


@dataclass(frozen=True, eq=False)
class Job:
    """Completions of one group that a worker marks in one call."""

    ticket: Ticket
    indices: tuple[int, ...]
    may_retry: bool = True
    """Whether a worker that dies of it has it tried again."""

    @property
    def texts(self) -> list[str]:
        return [self.ticket.group.completions[index].text for index in self.indices]

    def one_by_one(self) -> list[Job]:
        return [Job(self.ticket, (index,), may_retry=False) for index in self.indices]


class Ledger:
    """Jobs in, rewards out; applies the recipe's choices about failures and counts them."""

    def __init__(self, config: RewardsConfig) -> None:
        self._config = config
        self.queue: deque[Job] = deque()
        self.finished: list[Ticket] = []
        self.num_pending = 0
        """Groups that were queued and not taken back yet."""
        self.timeouts = 0
        """Completions past their deadline."""
        self.errors = 0
        """Completions that could not be marked for another reason."""

    def enqueue(self, group: Group) -> Ticket:
        """Queues a group as one job. Raises UnknownTaskError when nothing marks its task."""
        ticket = Ticket(group, path_of(group.prompt.task, self._config.functions), [None] * len(group.completions))
        self.num_pending += 1
        if ticket.is_done:
            self.finished.append(ticket)
        else:
            self.queue.append(Job(ticket, tuple(range(len(group.completions)))))
        return ticket

    def take_finished(self) -> list[Group]:
        """The groups that are done, once."""
        return self.take(list(self.finished))

    def take(self, tickets: Sequence[Ticket]) -> list[Group]:
        """Those groups, which must be done, in that order."""
        taken = set(tickets)
        self.finished = [ticket for ticket in self.finished if ticket not in taken]
        self.num_pending -= len(tickets)
        return [ticket.scored() for ticket in tickets]

    def settle(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        """Takes what a worker returned. Raises RewardConfigError when weights and parts do not fit."""
        for index, outcome in zip(job.indices, outcomes, strict=True):
            if isinstance(outcome, str):
                self._fail(job.ticket, index, "error", outcome)
                continue
            reward = weigh(outcome, self._config.weights)
            self._record(job.ticket, index, reward, f"the reward function returned {outcome}")

    def late(self, job: Job) -> None:
        """A call passed its deadline: one completion is the culprit, of several it is not known which."""
        if len(job.indices) > 1:
            self.queue.extendleft(reversed(job.one_by_one()))
            return
        reason = f"not marked within rewards.deadline_s = {self._config.deadline_s:g} s"
        self._fail(job.ticket, job.indices[0], "timeout", reason)

    def died(self, job: Job) -> None:
        """A worker died by itself in the middle of a call."""
        if job.may_retry:
            self.queue.extendleft(reversed(job.one_by_one()))
            return
        for index in job.indices:
            self._fail(job.ticket, index, "error", "the worker's process died while marking it")

    def _fail(self, ticket: Ticket, index: int, status: PartStatus, reason: str) -> None:
        self._record(ticket, index, failed(self._config.weights, status), reason)

    def _record(self, ticket: Ticket, index: int, reward: Reward, reason: str) -> None:
        ticket.rewards[index] = reward
        if ticket.is_done:
            self.finished.append(ticket)
        if reward.status == "ok":
            return
        is_timeout = reward.status == "timeout"
        self.timeouts += is_timeout
        self.errors += not is_timeout
        key, choice = ("on_timeout", self._config.on_timeout) if is_timeout else ("on_error", self._config.on_error)
        parts = ", ".join(part.name for part in reward.parts if part.status != "ok")
        message = f"reward of prompt {ticket.group.prompt.id}, completion {index}, {parts}: {reward.status}: {reason}"
        if choice == "stop":
            raise RewardFailure(
                f'{message}. Fix the reward function {ticket.path}, or set rewards.{key} = "zero" to count such as 0'
            )
        logger.warning("%s; counts as 0", message)
