"""One thread owns an engine. Everybody else asks it, and it answers between two decoding steps.

An engine may be touched by one thread only, and a lock would starve whoever waits beside a busy loop
(each step retakes it at once). So callers queue what they want, and the loop empties the queue first.
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
    """What an engine returns for a request: once, finished; or, where it is streamed, step by step."""

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
    """The engine failed or was closed; what was asked of it will not come."""


E = TypeVar("E", bound=SteppableEngine)
T = TypeVar("T")


class StepLoop(Generic[E]):
    """Steps an engine while it has requests, and runs queued calls between the steps."""

    def __init__(self, engine: E) -> None:
        self._engine = engine
        self._calls: SimpleQueue[tuple[Callable[[E], Any], Future[Any]] | None] = SimpleQueue()  # None: stop
        self._readers: dict[str, SimpleQueue[Any]] = {}  # by request id; touched by the loop's thread only
        self._stop_reason: str | None = None
        self._lock = threading.Lock()  # orders `call` against the end of the loop; never held while stepping
        self._thread = threading.Thread(target=self._run, name="engine-step-loop", daemon=True)
        self._thread.start()

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
        A reader that goes away (closes the iterator) aborts what it has not read.
        """
        reader: SimpleQueue[Any] = SimpleQueue()
        waiting = {request_id for request_id, _, _ in requests}

        def add(engine: E) -> None:
            for request_id, prompt, params in requests:
                engine.add_request(request_id, prompt, params)
                self._readers[request_id] = reader

        def abort(engine: E) -> None:
            engine.abort_request(sorted(waiting))
            for request_id in waiting:
                self._readers.pop(request_id, None)

        self.call(add)
        try:
            while waiting:
                output = reader.get()
                if isinstance(output, EngineStoppedError):
                    raise output
                if output.is_finished:
                    waiting.discard(output.request_id)
                yield output
        finally:
            if waiting and self._stop_reason is None:
                self.call(abort)

    def close(self) -> None:
        """Stop the loop; readers and callers still waiting get EngineStoppedError."""
        self._calls.put(None)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        reason = "the engine was closed"
        try:
            while self._answer_calls():
                for output in self._engine.step():
                    reader = self._readers[output.request_id]
                    if output.is_finished:
                        del self._readers[output.request_id]
                    reader.put(output)
        except Exception as error:  # every reader and caller is told, and raises it where somebody sees it
            logger.exception("the engine failed in a decoding step")
            reason = f"the engine failed in a decoding step: {type(error).__name__}: {error}"
        finally:
            self._stop(reason)

    def _answer_calls(self) -> bool:
        """Run what is queued; with nothing to decode, wait for it. False when asked to stop."""
        while not self._calls.empty() or not self._engine.has_unfinished_requests():
            call = self._calls.get()
            if call is None:
                return False
            action, future = call
            try:
                future.set_result(action(self._engine))
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
