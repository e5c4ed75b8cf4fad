"""Prompts in, scored groups out: keeps the generators and the reward workers busy at the same time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from orchestrator.remote import RemoteCallError, result_of
from rewards.pool import RewardPool
from rollout.config import SamplingConfig
from rollout.types import Group, Prompt


class RolloutStream:
    """Hands prompts to generators and their groups to the reward pool, from one event loop without threads."""

    def __init__(
        self, generators: Mapping[str, Any], rewards: RewardPool, *, stall_timeout_s: float, seed: int
    ) -> None:
        self._generators = generators
        self._rewards = rewards
        self._stall_timeout_s = stall_timeout_s
        self._seed = seed
        self._reward_wait_s = self._sampling_s = 0.0
        self._sampled_tokens = 0

    def collect(self, prompts: Sequence[Prompt], sampling: SamplingConfig, group_size: int) -> list[Group]:
        """Sample and score `group_size` completions of each prompt; return the groups in the prompts' order.

        Raises RemoteCallError when a generator dies, or nothing finishes for `stall_timeout_s`.
        """
        streams = self._submit(prompts, sampling, group_size)
        scored: dict[str, Group] = {}
        start = last_progress = last_sampled = time.monotonic()
        while len(scored) < len(prompts):
            due = self._rewards.next_deadline()
            patience = last_progress + self._stall_timeout_s - time.monotonic()
            # A pool that is behind is given nothing more: finished groups wait with the generators.
            waiting = [*(() if self._rewards.is_full else streams), *self._rewards.refs()]
            ready, _ = ray.wait(
                waiting, num_returns=1, timeout=max(0.0, patience if due is None else min(due, patience))
            )
            for stream in [ref for ref in ready if ref in streams]:
                group = self._next_group(stream, streams)
                if group is None:
                    del streams[stream]
                else:
                    self._rewards.submit(group)
                    last_progress = last_sampled = time.monotonic()
            for group in self._rewards.poll():
                scored[group.prompt.id] = group
                last_progress = time.monotonic()
            if time.monotonic() - last_progress > self._stall_timeout_s:
                self._report_stall(len(prompts) - len(scored), streams)
        self._reward_wait_s = time.monotonic() - last_sampled
        self._sampling_s = last_sampled - start
        self._sampled_tokens = sum(group.num_completion_tokens for group in scored.values())
        return [scored[prompt.id] for prompt in prompts]

    def metrics(self) -> dict[str, float]:
        """Of the last `collect`: how fast it sampled, and how long rewards kept it waiting after the last completion."""
        return {
            "rollout/tokens_per_s": self._sampled_tokens / self._sampling_s if self._sampling_s else 0.0,
            "time/reward_wait_s": self._reward_wait_s,
        }

    def _submit(self, prompts: Sequence[Prompt], sampling: SamplingConfig, group_size: int) -> dict[Any, str]:
        """One call for each generator. Shares are fixed by position, so that a resumed run repeats every batch."""
        streams: dict[Any, str] = {}
        for index, (name, generator) in enumerate(self._generators.items()):
            share = prompts[index :: len(self._generators)]
            if share:
                streams[generator.generate.remote(share, sampling, group_size, self._seed)] = name
        return streams

    def _next_group(self, stream: Any, streams: Mapping[Any, str]) -> Group | None:
        """The group that the stream has ready, or None at its end."""
        try:
            ref = next(stream)
        except StopIteration:
            return None
        group: Group = result_of(ref, streams[stream], "generate")
        return group

    def _report_stall(self, num_missing: int, streams: Mapping[Any, str]) -> None:
        whom = ", ".join(sorted(streams.values())) or "the reward workers"
        raise RemoteCallError(
            f"no group finished for {self._stall_timeout_s:g} s; {num_missing} are missing, waiting for {whom}. Raise "
            "rollout.stall_timeout_s if completions really take that long; else look at the log of who is waited for"
        )
