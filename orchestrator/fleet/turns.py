"""Who is to speak next in each completion: the policy or its environment. No Ray here; rollouts.py makes the calls.

    begin ──> asked to start ──> ready ──> sampled ──> asked to answer ──> ready ──> ...
                                              └───────────────┴──> ended ──> its group is assembled

What a completion is so far lives in the object store, so a generator that is lost costs the turn that it was sampling.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from orchestrator.fleet.assignment import PromptRequest
from orchestrator.fleet.open_completions import (
    BUSY,
    AssemblyCall,
    EnvironmentCall,
    OpenCompletion,
    OpenGroup,
    Stage,
    TurnCall,
    Wave,
    environment_call,
    turn_call,
)
from rollout.types.completions import FinishReason
from rollout.types.environments import EnvironmentAnswer
from rollout.types.turns import CompletionEnd, CompletionKey, TurnHeader


class TurnRouter:
    """Passes completions to and fro between generators and environments until each has ended, once."""

    def __init__(self, max_turns: int, *, in_rounds: bool) -> None:
        """`in_rounds`: whether all of a wave wait for the last of them, so that a run repeats the same batches."""
        self._max_turns = max_turns
        self.in_rounds = in_rounds
        self._groups: dict[str, OpenGroup] = {}
        self._waves: list[Wave] = []
        self._to_ask: list[OpenCompletion] = []
        self._to_close: list[CompletionKey] = []
        self._to_assemble: list[OpenGroup] = []
        self.num_open = 0
        """Completions that have an environment and have not ended."""

    @property
    def num_asked(self) -> int:
        """Completions whose environments are waited for."""
        return sum(each.stage == "asked" for group in self._groups.values() for each in group.completions)

    def knows(self, request: PromptRequest) -> bool:
        """Return whether the group of a prompt has begun."""
        return request.prompt.id in self._groups

    def said(self, key: CompletionKey) -> str:
        """Return what the environment of a completion has said last; nothing of one that is not known."""
        group = self._groups.get(key[0])
        return group.completions[key[1]].said if group else ""

    def begin(self, generator: str, requests: Sequence[PromptRequest]) -> None:
        """Have a generator sample groups; those that another has lost go on where they are."""
        wave = Wave(generator, len(requests))
        self._waves.append(wave)
        for position, request in enumerate(requests):
            group = self._groups.get(request.prompt.id) or self._new(request)
            group.wave, group.position = wave, position
            wave.num_busy += sum(each.stage == "asked" for each in group.completions)
            wave.ready += [each for each in group.completions if each.stage == "ready"]
            if group.is_done:
                self._to_assemble.append(group)

    def took(self, header: TurnHeader, reference: Any) -> None:
        """Take note of a turn that was sampled; `reference` is to all turns of its completion so far."""
        each = self._find(header.key, "sampled")
        if each is None:
            return
        each.turns, each.num_turns, each.num_tokens = reference, header.num_turns, header.num_tokens
        if each.ending is not None:
            self._end(each, each.ending.finish_reason, {})
        elif header.end == "unreadable":
            self._end(each, "error", {}, closes=True)
        elif header.end == "length":
            self._end(each, "length", closes=True)
        elif header.end == "stop" or not each.group.request.prompt.environment:
            self._end(each, "stop", closes=True)
        else:
            self._move(each, "asked")
            self._to_ask.append(each)

    def answered(self, answer: EnvironmentAnswer) -> None:
        """Take note of what an environment said."""
        each = self._find(answer.key, "asked")
        if each is None:
            return
        if each.num_turns == 0:
            status: FinishReason = "error" if answer.status == "ok" else answer.status
            has_failed = answer.status != "ok" or answer.is_over
            each.ending = CompletionEnd(status, {}) if has_failed else None
            each.said = "" if has_failed else answer.text
            self._move(each, "ready")
        elif answer.status != "ok":
            self._end(each, answer.status, {})
        elif answer.is_over:
            self._end(each, "stop", answer.parts)
        elif each.num_turns >= self._max_turns:
            self._end(each, "turns", answer.parts, closes=True)
        elif each.num_tokens >= each.group.request.settings.sampling.max_completion_tokens:
            self._end(each, "length", answer.parts, closes=True)
        else:
            each.said, each.parts = answer.text, answer.parts
            self._move(each, "ready")

    def lose(self, generator: str) -> None:
        """Take note that a generator samples no more of what it was given. Environments do not notice."""
        for wave in [wave for wave in self._waves if wave.generator == generator]:
            self._waves.remove(wave)
            for group in [group for group in self._groups.values() if group.wave is wave]:
                group.wave = None
                for each in group.completions:
                    each.stage = "ready" if each.stage == "sampled" else each.stage
        self._to_assemble = [group for group in self._to_assemble if group.wave is not None]

    def forget(self, prompt_id: str) -> None:
        """Drop a group: it was assembled, or its turns are lost and it begins again. Its environments are closed."""
        group = self._groups.pop(prompt_id)
        wave, group.wave = group.wave, None
        if wave is not None:
            wave.num_busy -= group.num_busy
            wave.ready = [each for each in wave.ready if each.group is not group]
            wave.num_groups -= 1
            if wave.num_groups == 0:
                self._waves.remove(wave)
        self._to_assemble = [other for other in self._to_assemble if other is not group]
        for each in group.completions:
            if each.stage != "ended":
                self._end(each, "error", closes=True)
                self._to_ask = [other for other in self._to_ask if other is not each]

    def clear(self) -> None:
        """Drop everything. Environments are not told."""
        for held in (self._groups, self._waves, self._to_ask, self._to_close, self._to_assemble):
            held.clear()
        self.num_open = 0

    def to_sample(self, full: Container[str] = ()) -> Iterator[TurnCall]:
        """Yield the turns that are to be sampled, each once, but those of generators that are `full`."""
        for wave in self._waves:
            if wave.ready and not (self.in_rounds and wave.num_busy) and wave.generator not in full:
                ready, wave.ready = sorted(wave.ready, key=attrgetter("place")), []
                for each in ready:
                    self._move(each, "sampled")
                for _, series in groupby(ready, key=lambda each: each.group.request.settings):
                    yield turn_call(wave.generator, list(series))

    def to_ask(self) -> list[EnvironmentCall]:
        """Return what environments are to do, each once."""
        asked, self._to_ask = self._to_ask, []
        return [environment_call(each) for each in asked]

    def to_close(self) -> list[CompletionKey]:
        """Return completions whose environments are not needed any more, each once."""
        closed, self._to_close = self._to_close, []
        return closed

    def to_assemble(self) -> Iterator[AssemblyCall]:
        """Yield groups whose completions have ended, each once."""
        done, self._to_assemble = self._to_assemble, []
        for group in done:
            assert group.wave is not None
            endings = [each.ending for each in group.completions if each.ending is not None]
            turns = [each.turns for each in group.completions]
            yield AssemblyCall(group.wave.generator, group.request, endings, turns)

    def _new(self, request: PromptRequest) -> OpenGroup:
        group = self._groups[request.prompt.id] = OpenGroup(request)
        group.completions = [OpenCompletion(group, index) for index in range(request.settings.group_size)]
        if request.prompt.environment:
            for each in group.completions:
                each.stage = "asked"
            self._to_ask += group.completions
            self.num_open += len(group.completions)
        return group

    def _find(self, key: CompletionKey, stage: str) -> OpenCompletion | None:
        """Return a completion that is at that stage; None for one of which something was heard too late."""
        group = self._groups.get(key[0])
        each = group.completions[key[1]] if group else None
        return each if each is not None and each.stage == stage else None

    def _move(self, each: OpenCompletion, stage: Stage) -> None:
        if (wave := each.group.wave) is not None:
            wave.num_busy += (stage in BUSY) - (each.stage in BUSY)
            if stage == "ready":
                wave.ready.append(each)
        each.stage = stage

    def _end(
        self,
        each: OpenCompletion,
        finish_reason: FinishReason,
        parts: Mapping[str, float] | None = None,
        *,
        closes: bool = False,
    ) -> None:
        """End a completion. `closes`: its environment does not know."""
        self._move(each, "ended")
        each.ending = CompletionEnd(finish_reason, each.parts if parts is None else parts)
        if each.group.request.prompt.environment:
            self.num_open -= 1
            if closes:
                self._to_close.append(each.key)
        if each.group.wave is not None and each.group.is_done:
            self._to_assemble.append(each.group)
