"""The calls for completions of several turns: to generators, which sample them, and to environments."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ray.exceptions import ObjectLostError

from orchestrator.config.resolve import ResolvedRun
from orchestrator.fleet.assignment import PromptRequest, group_by_sampling
from orchestrator.fleet.turns import TurnRouter
from rewards.workers.environment_calls import EnvironmentCalls
from rewards.workers.failures import MIN_COMPLETIONS, WINDOW, RewardFailure
from rollout.types.completions import FAILED
from rollout.types.turns import CompletionEnd, CompletionKey, TurnHeader

logger = logging.getLogger(__name__)

MAX_CALLS = 60
"""Calls of a generator that go on at a time, fewer than the threads it has for them. What is ready beyond them goes
with the next."""
SHOWN_CHARACTERS = 80
"""Characters of an observation in the log."""


class GroupCalls:
    """The calls for completions of one turn: each prompt's group is requested at once. Never waits."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, Sequence[PromptRequest]]] = []

    @property
    def num_asked(self) -> int:
        """Number of completions that wait for their environments."""
        return 0

    def num_startable(self, queue: Sequence[PromptRequest]) -> int:
        """Return how many prompts, from the start of the queue, may be assigned."""
        return len(queue)

    def begin(self, generator: str, requests: Sequence[PromptRequest]) -> None:
        """Have a generator sample groups; groups of a lost generator continue where they are."""
        self._begun.append((generator, requests))

    def lose(self, generator: str) -> None:
        """Take note that a generator samples no more of what it was given."""

    def took(self, header: TurnHeader, reference: Any) -> None:
        """Take note of a turn that was sampled."""

    def forget(self, prompt_id: str) -> None:
        """Drop a group: it has come, or its turns are lost and it begins again."""

    def forget_lost(self, error: Exception, prompt_ids: Iterable[str]) -> None:
        """Drop groups of a generator whose call failed, if their turns are lost with the node that had them."""

    def clear(self) -> None:
        """Drop everything, and close all environments."""

    def refs(self) -> list[Any]:
        """Return the references of which one is ready when an environment has answered."""
        return []

    def poll(self, ready: Iterable[Any]) -> int:
        """Take what environments have answered. Return how many did. Raises RewardFailure as EnvironmentCalls does."""
        return 0

    def send(self, serving: Mapping[str, Any], busy: Iterable[str]) -> Iterator[tuple[Any, str]]:
        """Make the calls that are due. Yield those of generators, which stream, each with whose it is.

        `busy`: the generator of each call that goes on.
        """
        begun, self._begun = self._begun, []
        for name, requests in begun:
            # One call for all of them: a batch that is added at once is computed in the same way every time.
            for request in group_by_sampling(requests):
                yield serving[name].generate.remote(request), name


class TurnCalls(GroupCalls):
    """Makes the calls that a TurnRouter requests, and passes it the results."""

    def __init__(self, router: TurnRouter, environments: EnvironmentCalls, max_failed_share: float) -> None:
        """`max_failed_share`: of completions whose environments fail; with more the run stops."""
        self._router = router
        self._environments = environments
        self._max_failed_share = max_failed_share
        self._endings: deque[bool] = deque(maxlen=WINDOW)
        """Whether each of the last completions failed."""
        self._last_failure = ""
        self._is_holding = False
        """Whether prompts wait until nothing is open."""

    @property
    def num_asked(self) -> int:
        return self._router.num_asked

    def num_startable(self, queue: Sequence[PromptRequest]) -> int:
        """Return how many prompts, the first of the queue, may be handed out: each environment open is a process.

        Where batches are to repeat, what does not fit waits until nothing is open, whenever that is.
        """
        router = self._router
        new = [bool(each.prompt.environment) and not router.knows(each) for each in queue]
        needs = [each.settings.group_size if is_new else 0 for each, is_new in zip(queue, new, strict=True)]
        room = self._environments.max_open - router.num_open
        if router.in_rounds and router.num_open and (self._is_holding or sum(needs) > room):
            room = 0
        count, taken = 0, 0
        for need in needs:
            taken += need
            is_alone = count == 0 and router.num_open == 0
            if need and taken > room and not is_alone:
                break
            count += 1
        self._is_holding = count < len(queue)
        return count

    def begin(self, generator: str, requests: Sequence[PromptRequest]) -> None:
        self._router.begin(generator, requests)

    def lose(self, generator: str) -> None:
        self._router.lose(generator)

    def took(self, header: TurnHeader, reference: Any) -> None:
        if header.end == "unreadable":
            said = self._router.said(header.key)[:SHOWN_CHARACTERS]
            self._warn(header.key, f"error: the model's tokenizer has no tokens for its observation: {said!r}")
        self._router.took(header, reference)

    def forget(self, prompt_id: str) -> None:
        self._router.forget(prompt_id)

    def forget_lost(self, error: Exception, prompt_ids: Iterable[str]) -> None:
        cause = error.__cause__
        if isinstance(cause, ObjectLostError) or isinstance(getattr(cause, "cause", None), ObjectLostError):
            for prompt_id in prompt_ids:
                self._router.forget(prompt_id)

    def clear(self) -> None:
        self._router.clear()
        self._environments.clear()

    def refs(self) -> list[Any]:
        return self._environments.refs()

    def poll(self, ready: Iterable[Any]) -> int:
        answers = self._environments.poll(ready)
        for answer in answers:
            if answer.status != "ok":
                self._warn(answer.key, f"{answer.status}: {answer.reason}")
            self._router.answered(answer)
        return len(answers)

    def send(self, serving: Mapping[str, Any], busy: Iterable[str]) -> Iterator[tuple[Any, str]]:
        """Make the calls that are due, as GroupCalls does. Raises RewardFailure when too many environments fail."""
        self._environments.close(self._router.to_close())
        self._environments.ask(self._router.to_ask())
        full = [name for name, count in Counter(busy).items() if count >= MAX_CALLS]
        for call in self._router.to_sample(full):
            yield serving[call.generator].sample_turns.remote(call.request, *call.past), call.generator
        for group in self._router.to_assemble():
            if group.request.prompt.environment:
                self._count(group.endings)
            assemble = serving[group.generator].assemble
            yield assemble.remote(group.request.prompt, group.endings, *group.turns), group.generator

    def _warn(self, key: CompletionKey, reason: str) -> None:
        self._last_failure = f"{reason} (prompt {key[0]}, completion {key[1]})"
        logger.warning("an environment failed, nothing is learned from its completion: %s", self._last_failure)

    def _count(self, endings: Sequence[CompletionEnd]) -> None:
        self._endings.extend(ending.finish_reason in FAILED for ending in endings)
        num_failed, total = sum(self._endings), len(self._endings)
        if total >= MIN_COMPLETIONS and num_failed > self._max_failed_share * total:
            raise RewardFailure(
                f"the environments of {num_failed} of the last {total} completions failed, more than "
                f"rewards.max_failed_share = {self._max_failed_share:g} allows; the last: {self._last_failure}. Fix "
                "the environment (it should answer a text that it cannot read, not raise an exception), raise "
                "environment.deadline_s, or raise rewards.max_failed_share"
            )


def turn_calls(run: ResolvedRun, environments: EnvironmentCalls) -> GroupCalls:
    """Return what makes a run's calls: TurnCalls where environments answer."""
    if run.engine.turns is None:
        return GroupCalls()
    repeats = run.layout.mode == "cpu" or run.fixes_kernels
    router = TurnRouter(run.engine.turns.max_turns, in_rounds=repeats)
    return TurnCalls(router, environments, run.config.rewards.max_failed_share)
