"""The environments of completions, seen from a reward worker: each has its own process, and calls have deadlines."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rewards.environments.answering import Reply, decode_reply, failed, max_line_bytes
from rewards.environments.registry import EnvironmentSpec
from rewards.workers.children.channel import Channel
from rewards.workers.children.fork_server_handle import ForkServer, LoadError
from rewards.workers.children.grading import encode_message
from rewards.workers.children.kernel_counts import CallClock
from rollout.types.environments import EnvironmentAnswer, EnvironmentRequest

if TYPE_CHECKING:
    from rollout.types.prompts import Prompt
    from rollout.types.turns import SampledTurn

CHILD = "rewards.environments.answering"
CLOSE_S = 1.0
"""Seconds that `close` of an environment may take before its process is killed."""
TICK_S = 0.02
"""Seconds between two checks of a call that is past its wall-clock deadline, but may have waited for a CPU."""
MAX_BUSY = 16
"""Largest number of a worker's environments that compute at the same time; with more, each would be slower."""
SHOWN_CHARACTERS = 200

Key = tuple[str, int]


class EnvironmentProcess:
    """One completion's environment. It answers one call at a time."""

    def __init__(self, pid: int, connection: socket.socket, spec: EnvironmentSpec, end: Callable[[int], str]) -> None:
        """``end`` kills a process with the programs in its group, and returns how it ended."""
        self.pid = pid
        self.num_turns = 0
        """Number of turns that it has answered."""
        self._spec = spec
        self._end = end
        self._clock = CallClock(pid)
        self._pending: asyncio.Future[Reply] | None = None
        self._fate = ""
        """How the process ended; empty while it lives."""
        self._channel: Channel[Reply] = Channel(
            connection,
            partial(decode_reply, max_bytes=spec.max_bytes),
            self._replied,
            lambda why: self.kill(f"the environment's process {why or 'died'}"),
            max_line_bytes(spec.max_bytes),
        )

    async def make(self) -> Reply:
        """Make the environment without starting it, to check that this works."""
        return await self._call("make", self._spec.name)

    async def start(self, prompt: Prompt, seed: int) -> Reply:
        """Make the environment and call its `start`."""
        return await self._call("start", self._spec.name, prompt, seed)

    async def step(self, text: str) -> Reply:
        """Call its `step` with a turn of the policy."""
        self.num_turns += 1
        return await self._call("step", text)

    async def close(self) -> None:
        """Call its `close`, for at most CLOSE_S, and end its process."""
        if not self._fate and self._pending is None:
            await self._ask("close", (), CLOSE_S)
        self.kill("it was closed")

    def kill(self, why: str) -> None:
        """End the process at once. May be called twice."""
        if self._fate:
            return
        self._fate = why
        self._channel.close()
        self._fate = f"{why}: {self._end(self.pid)}"
        if self._pending is not None and not self._pending.done():
            self._pending.set_result(failed(self._fate))

    async def _call(self, what: str, *arguments: Any) -> Reply:
        reply = await self._ask(what, arguments, self._spec.deadline_s)
        if reply is None:
            reason = f"{what} did not answer within {self._spec.deadline_s:g} s"
            self.kill(reason)
            return failed(reason)._replace(status="timeout")
        return reply

    async def _ask(self, what: str, arguments: tuple[Any, ...], deadline_s: float) -> Reply | None:
        """Return its reply; None if it is late."""
        if self._fate:
            return failed(self._fate)
        self._pending = pending = asyncio.get_running_loop().create_future()
        self._clock.note_waiting()
        self._clock.begin()
        self._channel.send(encode_message((what, *arguments)))
        wait_s = deadline_s
        # Replies are read before the time is checked, so a reply in time counts even if it is read late.
        while not (await asyncio.wait([pending], timeout=wait_s))[0]:
            if self._clock.is_past(deadline_s):
                self._channel.read()  # it may have replied while the clock was read
                if not pending.done():
                    return None
            wait_s = TICK_S
        self._pending = None
        return pending.result()

    def _replied(self, reply: Reply) -> None:
        if self._pending is None or self._pending.done():
            self.kill("the environment's process wrote without a call")
        else:
            self._pending.set_result(reply)


class OpenEnvironments:
    """The environments of a worker, by completion. Lives in an event loop."""

    def __init__(self, memory_gib: float | None) -> None:
        """``memory_gib``: GiB that each environment's process may allocate; None: no limit."""
        self._memory_gib = memory_gib
        self._server: ForkServer | None = None
        self._specs: dict[str, EnvironmentSpec] = {}
        self._open: dict[Key, EnvironmentProcess] = {}
        self._asked: dict[Key, object] = {}
        """A mark for each pending answer, until it arrives or its completion is closed."""
        self._busy = asyncio.Semaphore(MAX_BUSY)
        self._closing: dict[EnvironmentProcess, asyncio.Task[None]] = {}

    @property
    def pids(self) -> list[int]:
        """The ids of the living processes: the fork server's, then the environments'."""
        server = [self._server.pid] if self._server is not None else []
        return [*server, *(process.pid for process in self._open.values())]

    async def load(self, specs: Iterable[EnvironmentSpec]) -> None:
        """Import environments' classes before they are needed, and make one object of each. Raises LoadError."""
        new = [spec for spec in specs if self._specs.get(spec.name) != spec]
        if not new:
            return
        if self._server is None:
            self._server = ForkServer(self._memory_gib, CHILD)
        self._server.load(new)
        for spec in new:
            process = EnvironmentProcess(*self._server.fork(), spec, self._server.end)
            if (reply := await process.make()).status != "ok":
                raise LoadError(f"environment {spec.name} with {dict(spec.parameters)} cannot be made: {reply.reason}")
            await process.close()
        self._specs |= {spec.name: spec for spec in new}

    async def answer(self, request: EnvironmentRequest, turns: Sequence[SampledTurn]) -> EnvironmentAnswer:
        """Start a completion's environment, or let it answer the last of ``turns``, which are all turns so far.

        If no process has answered the turns before, because its worker died, a new one is started and answers all of
        them again. It is an error if the observations then differ.
        """
        key = request.key
        mark = self._asked[key] = object()
        async with self._busy:
            if self._asked.get(key) is not mark:  # nobody would close a process that starts now
                return EnvironmentAnswer(key, is_over=True, status="error", reason="it was closed before it started")
            process = self._open.get(key)
            if turns and process is not None and process.num_turns == len(turns) - 1:
                reply = await process.step(turns[-1].heard)
            else:
                process, reply = await self._begin(request, turns)
        if self._asked.get(key) is mark:
            del self._asked[key]
        if turns and reply.status == "ok" and reply.is_over:
            reply = _complete(reply, self._specs[request.prompt.environment])
        if reply.is_over and process is not None and self._open.get(key) is process:
            del self._open[key]
            self._close(process)
        return EnvironmentAnswer(key, reply.text, reply.is_over, reply.parts, reply.status, reply.reason, reply.seconds)

    def close(self, keys: Iterable[Key] | None = None) -> None:
        """Close the environments of these completions, or all; kill those that are too slow."""
        for key in [*self._open, *self._asked] if keys is None else keys:
            self._asked.pop(key, None)
            if (process := self._open.pop(key, None)) is not None:
                self._close(process)

    def end(self) -> None:
        """End all processes at once."""
        for process in [*self._open.values(), *self._closing]:
            process.kill("its worker ended")
        self._open.clear()
        self._asked.clear()
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _begin(
        self, request: EnvironmentRequest, turns: Sequence[SampledTurn]
    ) -> tuple[EnvironmentProcess | None, Reply]:
        if (left := self._open.pop(request.key, None)) is not None:
            self._close(left)
        assert self._server is not None, "its class was not loaded"
        try:
            pid, connection = self._server.fork()
        except (OSError, LoadError) as error:
            return None, failed(f"no process could be started for it: {error}")
        spec = self._specs[request.prompt.environment]
        process = self._open[request.key] = EnvironmentProcess(pid, connection, spec, self._server.end)
        reply = await process.start(request.prompt, request.seed)
        for turn in turns:
            if (reply.status, reply.text, reply.is_over) != ("ok", turn.said, False):
                return process, _differs(reply, turn.said, process.num_turns)
            reply = await process.step(turn.heard)
        return process, reply

    def _close(self, process: EnvironmentProcess) -> None:
        task = self._closing[process] = asyncio.get_running_loop().create_task(process.close())
        task.add_done_callback(lambda _: self._closing.pop(process))


def _complete(reply: Reply, spec: EnvironmentSpec) -> Reply:
    """Return the last reply of a completion; a failure if it lacks parts that its class declares."""
    missing = sorted({*spec.parts} - reply.parts.keys())
    if not missing:
        return reply
    return failed(
        f"{spec.name} ended the completion without its part {', '.join(missing)}: its class declares parts = "
        f"{spec.parts}, and its last observation gave {', '.join(sorted(reply.parts)) or 'none'}"
    )


def _differs(reply: Reply, said: str, num_turns: int) -> Reply:
    now = reply.reason if reply.status != "ok" else reply.text
    return failed(
        f"its worker died, and it was started again with the same seed and turns: after turn {num_turns} it said "
        f"{now[:SHOWN_CHARACTERS]!r}{' and ended' if reply.is_over else ''}, where it had said "
        f"{said[:SHOWN_CHARACTERS]!r}. An environment may depend on nothing but its prompt, its seed and its turns"
    )
