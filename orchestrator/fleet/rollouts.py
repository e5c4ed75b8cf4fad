"""Prompts in, graded groups out: keep the generators and the reward workers busy at the same time.

    submit ──> queue ──> a generator ──> its group ──> the reward pool ──> gather
                 ^           │ it died, or hangs
                 └───────────┘   the same prompts, under the same ids

Finished groups are never sampled again, so no group is lost and none comes twice. With an environment a group takes
many calls instead of one (turns.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import ray
from ray.exceptions import RayError

from orchestrator.cluster.calls import gather_calls, pause_s, ready_of
from orchestrator.cluster.results import RemoteCallError, result_of, results_at_once
from orchestrator.cluster.watchdog import Watchdog
from orchestrator.fleet.assignment import PromptRequest, Throughput, assign_requests, waited_for
from orchestrator.fleet.generators import Generators
from orchestrator.fleet.heartbeats import EVERY_S, Heartbeats
from orchestrator.fleet.turn_calls import GroupCalls
from rewards.workers.pool import RewardPool
from rollout.config import RolloutConfig
from rollout.engine.step_loop import EngineStoppedError
from rollout.types.completions import Group, RemoteGroup
from rollout.types.packed import PackedGroup
from rollout.types.prompts import Prompt
from rollout.types.sampling import SamplingRequest
from rollout.weights.staging import UnpublishedError

ABANDON_TIMEOUT_S = 60.0
"""Deadline for a generator to drop its prompts, seconds; it does so between two decoding steps."""


class RolloutStream:
    """Gives prompts to generators and their groups to the reward pool, in one loop without threads."""

    def __init__(
        self,
        generators: Generators,
        rewards: RewardPool,
        config: RolloutConfig,
        *,
        serve_restarted: Callable[[], None],
        calls: GroupCalls | None = None,
    ) -> None:
        """`serve_restarted` gives ready generators the current weights; it is called when no generator samples.

        `calls` are TurnCalls if there are environments.
        """
        self._generators = generators
        self._rewards = rewards
        self._config = config
        self._serve_restarted = serve_restarted
        self._calls = calls or GroupCalls()
        self._heartbeats = Heartbeats(config.hang_timeout_s)
        self._queue: list[PromptRequest] = []
        self._in_flight: dict[str, dict[str, PromptRequest]] = {}
        """By generator, then by prompt id."""
        self._streams: dict[Any, str] = {}
        """Calls that stream groups back, and whose they are."""
        self._sampled: dict[str, tuple[float, float]] = {}
        """When each group that is not gathered yet was requested, and when it had been sampled, by prompt id."""
        self._scored: dict[str, RemoteGroup] = {}
        self._throughput = Throughput()
        self._watchdog = Watchdog(self._describe_pending)

    def collect(self, request: SamplingRequest) -> list[Group]:
        """Submit, gather, and fetch tokens and texts."""
        self.submit(request)
        # An evaluation is not part of a step's sampling.
        before, gathered = self._throughput, self.gather(request.prompts)
        self._throughput = before
        packed: list[PackedGroup] = ray.get([group.reference for group in gathered])
        return [each.unpack().scored(group.rewards) for each, group in zip(packed, gathered, strict=True)]

    def submit(self, request: SamplingRequest) -> None:
        """Have a group of completions of each prompt sampled and graded from now on. Returns at once."""
        settings, now = replace(request, prompts=()), time.monotonic()
        self._queue += [PromptRequest(prompt, settings, now) for prompt in request.prompts]
        self._hand_out()

    def gather(self, prompts: Sequence[Prompt]) -> list[RemoteGroup]:
        """Wait for the groups of submitted prompts, and return their headers in the prompts' order.

        A generator that dies or hangs is replaced, and its prompts are sampled by others. Raises RemoteCallError when
        that happens too often, or nothing is finished for `rollout.stall_timeout_s`.
        """
        self._watchdog.moved()
        asked, missing = time.monotonic(), {prompt.id for prompt in prompts}
        while missing := missing - self._scored.keys():
            if not self._generators.serving and not missing <= self._sampled.keys():
                self._wait_for_a_generator()
            due = self._rewards.next_deadline()
            self.advance(ready_of(self.refs(), EVERY_S if due is None else min(due, EVERY_S), pause_s(len(missing))))
            self._watchdog.look()
            if self._watchdog.quiet_for_s > self._config.stall_timeout_s:
                self._report_stall(missing)
        groups = [self._scored.pop(prompt.id) for prompt in prompts]
        self._throughput = self._throughput.after(groups, [self._sampled.pop(each.id) for each in prompts], asked)
        return groups

    def refs(self) -> list[Any]:
        """Return the references to wait for; one is ready when there is something to do."""
        # A pool that is behind is given nothing more: finished groups wait with the generators.
        streams = [] if self._rewards.is_full else list(self._streams)
        return [*streams, *self._calls.refs(), *self._rewards.refs(), *self._generators.refs()]

    def advance(self, ready: Sequence[Any]) -> None:
        """Handle what is `ready`, and look after the generators. Never waits."""
        streams = [(stream, self._streams[stream]) for stream in ready if stream in self._streams]
        if streams:
            self._take([(name, reference) for stream, name in streams for reference in self._arrived(stream)])
        if self._calls.poll(ready):
            self._watchdog.moved()
        for group in self._rewards.poll():
            self._scored[group.prompt.id] = group
            self._watchdog.moved()
        busy = {name: self._generators.serving[name] for name, requests in self._in_flight.items() if requests}
        for name, reason in self._heartbeats.hanging(busy).items():
            self.lose(name, reason)
        self._generators.collect_started()
        self._hand_out()

    def lose(self, name: str, reason: str) -> None:
        """Replace a generator that is dead or hangs; what it had not finished is sampled by others."""
        count = self.requeue(name)
        again = f"; {count} unfinished prompts are sampled again" if count else ""
        self._generators.lose(name, reason + again)
        self._watchdog.moved()
        self._hand_out()

    def requeue(self, name: str) -> int:
        """Put what a generator has not finished back into the queue, ahead of all else. Return how many prompts."""
        requests = self._in_flight.pop(name, {})
        self._calls.lose(name)
        self._streams = {stream: whose for stream, whose in self._streams.items() if whose != name}
        self._queue = [*requests.values(), *self._queue]
        return len(requests)

    def abandon(self) -> None:
        """Drop everything that was submitted and not gathered: the same prompts may be submitted again."""
        busy = [name for name, requests in self._in_flight.items() if requests]
        for name in list(self._in_flight):
            self.requeue(name)
        self._queue.clear()
        self._calls.clear()
        calls = {name: self._generators.serving[name].abandon.remote() for name in busy}
        outcomes = gather_calls(calls, "abandon", ABANDON_TIMEOUT_S)
        for name, reason in (outcomes.failed | outcomes.died).items():
            self.lose(name, reason)
        while self._rewards.num_pending:  # bounded by the rewards' own deadlines
            ready_of(self._rewards.refs(), self._rewards.next_deadline() or EVERY_S)
            self._rewards.poll()
        self._sampled.clear()
        self._scored.clear()

    def metrics(self) -> dict[str, float]:
        """Return how fast groups came since the last call, how long rewards were waited for, and what is there now."""
        throughput, self._throughput = self._throughput, self._throughput.next_step()
        peaks = {"generator": self._heartbeats.peak_gib, "reward_worker": self._rewards.peak_gib}
        return {
            "rollout/tokens_per_s": throughput.tokens_per_s,
            "time/reward_wait_s": throughput.reward_wait_s,
            "system/in_flight_groups": float(len(self._queue) + sum(map(len, self._in_flight.values()))),
            "system/generators": float(len(self._generators.serving)),
            "system/generator_restarts": float(self._generators.restarts),
            "system/reward_queue": float(self._rewards.num_pending),
            "system/reward_worker_restarts": float(self._rewards.restarts),
            **{f"system/{actor}_peak_gib": gib for actor, gib in peaks.items() if gib},  # what nobody told is left out
        }

    def _hand_out(self) -> None:
        serving = self._generators.serving
        if self._queue and serving:
            count = self._calls.num_startable(self._queue)
            queue, self._queue = self._queue[:count], self._queue[count:]
            shares = assign_requests(queue, {name: len(self._in_flight.get(name, ())) for name in serving})
            for name, share in shares.items():
                self._calls.begin(name, share)
                self._in_flight.setdefault(name, {}).update({request.prompt.id: request for request in share})
        self._streams.update(self._calls.send(serving, self._streams.values()))

    def _arrived(self, stream: Any) -> list[Any]:
        """Return references to everything that a ready stream has. Forget a stream that has ended."""
        references: list[Any] = []
        try:
            references.append(next(stream))
            while stream.next_ready():
                references.append(next(stream))
        except StopIteration:
            del self._streams[stream]
        return references

    def _take(self, arrived: Sequence[tuple[str, Any]]) -> None:
        """Pass groups on to the rewards, given by generator and reference. A generator that has failed is lost."""
        groups = results_at_once([reference for _, reference in arrived])
        failed: set[str] = set()
        sampled: list[RemoteGroup] = []
        for name, reference in arrived:
            if name in failed:  # its prompts are in the queue again
                continue
            try:
                group = groups.get(reference) or result_of(reference, name, "generate")
            except UnpublishedError:
                # A commit failed half way and dropped them; if it fails again the publish loses the generator.
                failed.add(name)
                self.requeue(name)
            except (RemoteCallError, EngineStoppedError, RayError) as error:
                failed.add(name)
                self._calls.forget_lost(error, [*self._in_flight.get(name, ())])
                self.lose(name, str(error))
            else:
                self._watchdog.moved()
                if isinstance(group, PackedGroup):
                    request = self._in_flight[name].pop(group.prompt_id)
                    self._calls.forget(group.prompt_id)
                    self._sampled[group.prompt_id] = (request.submitted, time.monotonic())
                    sampled.append(group.remote(request.prompt, reference))
                else:
                    self._calls.took(group.header, reference)
        self._rewards.submit(*sampled)

    def _wait_for_a_generator(self) -> None:
        """Wait until a generator samples again. Bounded by the deadlines of starting one."""
        self._generators.wait_for_any(self._watchdog.look)
        if not self._generators.serving:
            self._serve_restarted()
        self._watchdog.moved()
        self._hand_out()

    def _describe_pending(self) -> str:
        """Return in words what is still pending."""
        return waited_for(self._in_flight, self._calls.num_asked, self._rewards.num_pending, len(self._queue))

    def _report_stall(self, missing: set[str]) -> NoReturn:
        raise RemoteCallError(
            f"no group finished for {self._config.stall_timeout_s:g} s; {len(missing)} are missing, waiting for "
            f"{self._describe_pending()}. Raise rollout.stall_timeout_s if completions really take that long; else "
            "look at the logs of these actors"
        )
