"""One thread builds an engine, steps it, and answers everybody else between two decoding steps.

An engine may be used by one thread only, and with a lock a busy loop would starve all other threads (each step retakes
it at once). So callers queue their requests, and the loop empties the queue first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)


class Output(Protocol):
    """Returned by an engine for a request: once, finished; or, where it is streamed, step by step."""

    @property
    def request_id(self) -> str: ...
    @property
    def is_finished(self) -> bool: ...


class SteppableEngine(Protocol):
    """The part of an engine that the loop drives."""

    def add_request(self, request_id: str, prompt: Any, params: Any) -> Any: ...
    def abort_request(self, request_ids: list[str]) -> Any: ...
    def has_unfinished_requests(self) -> bool: ...
    def step(self) -> Sequence[Output]:
        """Decode one token of every running request; return what there is to hand to their readers."""
        ...


class EngineStoppedError(RuntimeError):
    """The engine failed or was closed; pending requests will not be answered."""


class Abandoned:
    """Tells a reader that its requests were abandoned."""


E = TypeVar("E", bound=SteppableEngine)
T = TypeVar("T")


class StepLoop(Generic[E]):
    """Steps an engine while it has requests, and runs queued calls between the steps."""

    def __init__(self, build: Callable[[], E]) -> None:
        """Return when `build` has made the engine. Raises what `build` raises."""
        self._calls: SimpleQueue[tuple[Callable[[E], Any], Future[Any]] | None] = SimpleQueue()  # None: stop
        self._readers: dict[str, SimpleQueue[Any]] = {}  # by request id; touched by the loop's thread only
        self._stop_reason: str | None = None
        self._lock = threading.Lock()  # orders `call` against the end of the loop; never held while stepping
        self._decoding_steps = 0
        built: Future[E] = Future()
        self._thread = threading.Thread(target=self._run, args=(build, built), name="engine-step-loop", daemon=True)
        self._thread.start()
        self._engine = built.result()

    @property
    def engine(self) -> E:
        """The engine itself, for reading plain attributes; everything else goes through `call`."""
        return self._engine

    @property
    def decoding_steps(self) -> int:
        """Number of steps so far. This property and the next are read without waiting for the loop."""
        return self._decoding_steps

    @property
    def num_unfinished(self) -> int:
        """Number of requests whose reader still waits."""
        return len(self._readers)

    def call(self, action: Callable[[E], T]) -> T:
        """Run `action(engine)` between two decoding steps and return its result.

        Raises what `action` raises, and EngineStoppedError when the engine has failed or was closed.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._stop_reason is not None:
                raise EngineStoppedError(self._stop_reason)
            self._calls.put((action, future))
        return future.result()

    def stream(self, requests: Sequence[tuple[str, Any, Any]]) -> Iterator[Any]:
        """Add (id, prompt, params) requests between two steps, all at once; yield their outputs as they come.

        Adding them in one go makes the batches, and so every last bit of their arithmetic, repeatable.
        A reader that goes away (closes the iterator) aborts what it has not read. A stream whose requests are abandoned
        ends early, after the outputs that came before.
        """
        reader: SimpleQueue[Any] = SimpleQueue()
        waiting = {request_id for request_id, _, _ in requests}

        def add(engine: E) -> None:
            for request_id, prompt, params in requests:
                engine.add_request(request_id, prompt, params)
                self._readers[request_id] = reader

        def abort(engine: E) -> None:
            # Not what was abandoned meanwhile: another reader may have asked for it again, under the same id.
            mine = sorted(request_id for request_id in waiting if self._readers.get(request_id) is reader)
            engine.abort_request(mine)
            for request_id in mine:
                del self._readers[request_id]

        self.call(add)
        try:
            while waiting:
                output = reader.get()
                if isinstance(output, Exception):
                    raise output
                if isinstance(output, Abandoned):
                    waiting.clear()
                    return
                if output.is_finished:
                    waiting.discard(output.request_id)
                yield output
        finally:
            if waiting and self._stop_reason is None:
                self.call(abort)

    def abandon(self, error: Exception | None = None) -> int:
        """Abort every unfinished request between two steps, and end their streams, with `error` if there is one.

        Returns the number of requests. Afterwards the same ids can be asked again at once.
        """

        def drop(engine: E) -> int:
            count = len(self._readers)
            engine.abort_request(sorted(self._readers))
            for reader in set(self._readers.values()):
                reader.put(error or Abandoned())
            self._readers.clear()
            return count

        return self.call(drop)

    def close(self) -> None:
        """Stop the loop; readers and callers still waiting get EngineStoppedError."""
        self._calls.put(None)
        self._thread.join(timeout=30)

    def _run(self, build: Callable[[], E], built: Future[E]) -> None:
        try:
            engine = build()
        except BaseException as error:  # noqa: BLE001  the constructor waits for it, and raises it there
            built.set_exception(error)
            return
        built.set_result(engine)
        reason = "the engine was closed"
        try:
            while self._answer_calls(engine):
                outputs = engine.step()
                self._decoding_steps += 1
                for output in outputs:
                    reader = self._readers[output.request_id]
                    if output.is_finished:
                        del self._readers[output.request_id]
                    reader.put(output)
        except Exception as error:  # every reader and caller is told, and raises it where somebody sees it
            logger.exception("the engine failed in a decoding step")
            reason = f"the engine failed in a decoding step: {type(error).__name__}: {error}"
        finally:
            self._stop(reason)

    def _answer_calls(self, engine: E) -> bool:
        """Run what is queued; with nothing to decode, wait for it. Return False when asked to stop."""
        while not self._calls.empty() or not engine.has_unfinished_requests():
            call = self._calls.get()
            if call is None:
                return False
            action, future = call
            try:
                future.set_result(action(engine))
            except Exception as error:  # noqa: BLE001  the caller's to handle: the loop outlives a refused request
                future.set_exception(error)
        return True

    def _stop(self, reason: str) -> None:
        with self._lock:
            self._stop_reason = reason
        while not self._calls.empty():
            call = self._calls.get()
            if call is not None:
                call[1].set_exception(EngineStoppedError(reason))
        for reader in self._readers.values():
            reader.put(EngineStoppedError(reason))
