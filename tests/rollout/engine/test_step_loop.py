"""The step loop: one thread touches the engine, and control calls land between decoding steps."""

import threading
import time
from dataclasses import dataclass, field

import pytest

from rollout.engine.step_loop import EngineStoppedError, StepLoop


@dataclass
class Done:
    request_id: str
    steps: int
    is_finished: bool = True


@dataclass
class CountingEngine:
    """Finishes a request after as many steps as its params say. Fails the test when two threads touch it."""

    step_s: float = 0.0
    fail_at_step: int | None = None
    steps: int = 0
    running: dict[str, int] = field(default_factory=dict)
    streams: bool = False
    aborted: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    batches: list[int] = field(default_factory=list)

    def add_request(self, request_id: str, prompt: object, params: int) -> None:
        self._touch()
        if params < 1:
            raise ValueError(f"request {request_id} asks for {params} steps")
        self.running[request_id] = params

    def abort_request(self, request_ids: list[str]) -> None:
        self._touch()
        self.aborted += request_ids
        for request_id in request_ids:
            self.running.pop(request_id, None)

    def has_unfinished_requests(self) -> bool:
        return bool(self.running)

    def step(self) -> list[Done]:
        self._touch()
        time.sleep(self.step_s)
        self.steps += 1
        if self.steps == self.fail_at_step:
            raise RuntimeError("out of memory")
        self.batches.append(len(self.running))
        self.running = {request_id: left - 1 for request_id, left in self.running.items()}
        outputs = [
            Done(request_id, self.steps, is_finished=left == 0)
            for request_id, left in self.running.items()
            if left == 0 or self.streams
        ]
        self.running = {request_id: left for request_id, left in self.running.items() if left}
        return outputs

    def _touch(self) -> None:
        self.threads.add(threading.get_ident())


@pytest.fixture
def loop():
    loops = []

    def start(engine):
        loops.append(StepLoop(lambda: engine))
        return loops[-1]

    yield start
    for started in loops:
        started.close()


def test_requests_come_back_as_they_finish_and_are_added_in_one_batch(loop) -> None:
    engine = CountingEngine()
    done = [
        result.request_id for result in loop(engine).stream([("slow", None, 9), ("fast", None, 2), ("mid", None, 5)])
    ]
    assert done == ["fast", "mid", "slow"]
    assert engine.batches[0] == 3


def test_a_streamed_request_comes_step_by_step_and_ends_with_its_last(loop) -> None:
    outputs = list(loop(CountingEngine(streams=True)).stream([("one", None, 3)]))
    assert [(output.steps, output.is_finished) for output in outputs] == [(1, False), (2, False), (3, True)]


def test_a_control_call_lands_while_requests_are_running(loop) -> None:
    engine = CountingEngine(step_s=0.001)
    started = loop(engine)
    stream = started.stream([("short", None, 1), ("long", None, 300)])
    next(stream)
    assert started.call(lambda engine: engine.has_unfinished_requests())
    assert next(stream).request_id == "long"


def test_calls_are_not_starved_by_a_busy_loop(loop) -> None:
    started = loop(CountingEngine(step_s=0.002))
    stream = started.stream([("first", None, 1), ("long", None, 400)])
    next(stream)
    before = started.call(lambda engine: engine.steps)
    after = started.call(lambda engine: engine.steps)
    assert after - before <= 2
    stream.close()


def test_only_the_loop_builds_and_touches_the_engine() -> None:
    engine = CountingEngine()

    def build() -> CountingEngine:
        engine.threads.add(threading.get_ident())
        return engine

    started = StepLoop(build)
    readers = [
        threading.Thread(target=lambda index=index: list(started.stream([(f"r{index}", None, 3)])))
        for index in range(5)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    started.close()
    assert len(engine.threads) == 1 and threading.get_ident() not in engine.threads


def test_a_refused_request_raises_for_its_caller_only(loop) -> None:
    started = loop(CountingEngine())
    with pytest.raises(ValueError, match="bad asks for 0"):
        list(started.stream([("bad", None, 0)]))
    assert [done.request_id for done in started.stream([("good", None, 1)])] == ["good"]


def test_an_engine_that_fails_tells_everybody_why(loop) -> None:
    started = loop(CountingEngine(fail_at_step=2))
    with pytest.raises(EngineStoppedError, match="RuntimeError: out of memory"):
        list(started.stream([("one", None, 5)]))
    with pytest.raises(EngineStoppedError, match="out of memory"):
        started.call(lambda engine: None)


def test_a_reader_that_leaves_aborts_what_it_has_not_read(loop) -> None:
    engine = CountingEngine(step_s=0.001)
    started = loop(engine)
    stream = started.stream([("short", None, 1), ("long", None, 10_000)])
    next(stream)
    stream.close()
    assert engine.aborted == ["long"]
    assert not started.call(lambda engine: engine.has_unfinished_requests())


def test_abandoned_requests_end_their_streams_and_may_be_asked_again(loop) -> None:
    engine = CountingEngine(step_s=0.001)
    started = loop(engine)
    first = started.stream([("short", None, 1), ("long", None, 10_000)])
    second = started.stream([("other", None, 10_000)])
    assert next(first).request_id == "short"
    others: list[Done] = []
    reader = threading.Thread(target=lambda: others.extend(second))
    reader.start()
    while started.num_unfinished < 2:
        time.sleep(0.001)
    assert started.abandon() == 2
    reader.join(timeout=10)
    assert list(first) == others == []
    assert sorted(engine.aborted) == ["long", "other"] and started.num_unfinished == 0
    assert [done.request_id for done in started.stream([("long", None, 3)])] == ["long"]


def test_what_was_abandoned_and_asked_again_survives_its_former_reader(loop) -> None:
    started = loop(CountingEngine(step_s=0.001))
    former = started.stream([("short", None, 1), ("long", None, 10_000)])
    next(former)
    started.abandon()
    again = started.stream([("first", None, 1), ("long", None, 50)])
    next(again)
    former.close()  # it has not seen yet that its requests were abandoned
    assert [done.request_id for done in again] == ["long"]


def test_a_pulse_tells_an_engine_that_hangs_from_one_that_is_slow(loop) -> None:
    """The counters are read while the loop is stuck within a decoding step."""
    stuck = threading.Event()

    class Sticking(CountingEngine):
        def step(self):
            if self.steps == 3:
                stuck.wait(timeout=10)
            return super().step()

    started = loop(Sticking())
    reader = threading.Thread(target=lambda: list(started.stream([("one", None, 5)])))
    reader.start()
    while started.decoding_steps < 3:
        time.sleep(0.001)
    caller = threading.Thread(target=lambda: started.call(lambda engine: None))
    caller.start()
    while started._calls.empty():
        time.sleep(0.001)
    assert (started.num_unfinished, started.decoding_steps) == (1, 3)
    stuck.set()
    reader.join(timeout=10)
    caller.join(timeout=10)
    assert (started.num_unfinished, started._calls.qsize(), started.decoding_steps) == (0, 0, 5)


def test_closing_ends_a_reader_that_waits() -> None:
    started = StepLoop(lambda: CountingEngine(step_s=0.001))
    errors: list[Exception] = []

    def read() -> None:
        try:
            list(started.stream([("long", None, 100_000)]))
        except EngineStoppedError as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    started.close()
    reader.join(timeout=10)
    assert len(errors) == 1


def test_the_thread_that_steps_an_engine_has_built_it() -> None:
    built_by = []

    def build() -> CountingEngine:
        built_by.append(threading.get_ident())
        return CountingEngine()

    started = StepLoop(build)
    assert [done.request_id for done in started.stream([("a", None, 2)])] == ["a"]
    assert {*built_by} == started.engine.threads and threading.get_ident() not in built_by
    started.close()


def test_an_engine_that_cannot_be_built_says_so_to_whoever_wants_it() -> None:
    def build() -> CountingEngine:
        raise MemoryError("no room for the cache")

    with pytest.raises(MemoryError, match="no room for the cache"):
        StepLoop(build)
