"""One GPU for a generator and a learner rank: who sleeps while who works, without the GPU."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from orchestrator import run
from orchestrator.command import Ending
from orchestrator.config.recipe import load
from orchestrator.fleet.fleet import RayFleet
from orchestrator.fleet.learner_group import LearnerGroup, LearnerLostError
from orchestrator.fleet.transports import NcclTransport
from orchestrator.interrupt import Interrupt
from orchestrator.records.health.monitor import Health
from orchestrator.warm_start import WarmStart, warm_started_model
from rollout.types.sampling import EngineSpec


@pytest.fixture
def events() -> list[str]:
    return []


def fleet(events: list[str], shares_gpu: bool) -> RayFleet:
    """A real one, but for its actors."""
    made = RayFleet.__new__(RayFleet)
    made._shares_gpu, made._generators_awake = shares_gpu, True
    made.learner = SimpleNamespace(release_memory=lambda: events.append("release_memory"))
    made.generators = SimpleNamespace(names=["generator-0"], refs=list)
    made._config = load("countdown-tiny")

    def call(method: str, but=()):
        events.append(method)
        return {"generator-0": None}

    made._call_generators = call
    return made


def work(fleet: RayFleet, events: list[str]) -> None:
    for phase in (fleet.generating, fleet.learning, fleet.generating, fleet.generating, fleet.learning):
        with phase():
            events.append(phase.__name__)


def test_generators_sleep_while_the_learner_works_and_it_frees_its_cache_before_they_wake(events) -> None:
    work(fleet(events, shares_gpu=True), events)
    assert events == [
        *("generating", "sleep", "learning"),
        *("release_memory", "wake", "generating", "generating"),
        *("sleep", "learning"),
    ]


def test_with_devices_of_their_own_nobody_sleeps(events) -> None:
    work(fleet(events, shares_gpu=False), events)
    assert not {"sleep", "wake", "release_memory"} & {*events}


class Starting:
    """Two generators; the second dies in the call that should put it to sleep, and its successor needs two looks."""

    names = ("generator-0", "generator-1")

    def __init__(self, events: list[str]) -> None:
        self._events = events
        self._looks_left = 2

    def refs(self) -> list[str]:
        return ["start"] if self._looks_left else []

    def look(self, refs, timeout_s) -> None:
        self._looks_left -= 1

    def call(self, method: str, but=()) -> dict[str, None]:
        there = [name for name in self.names if name not in but and (name == "generator-0" or not self._looks_left)]
        self._events += [f"{method} {name}" for name in there]
        return dict.fromkeys(there)


def test_a_generator_that_is_started_again_sleeps_too_before_the_learner_works(events, monkeypatch) -> None:
    made = fleet(events, shares_gpu=True)
    made.generators = starting = Starting(events)
    made._call_generators = starting.call
    monkeypatch.setattr("orchestrator.fleet.fleet.ready_of", starting.look)
    with made.learning():
        events.append("learning")
    assert events == ["sleep generator-0", "sleep generator-1", "learning"]


def test_a_start_that_never_ends_does_not_keep_the_learner_waiting_for_ever(events, monkeypatch) -> None:
    made = fleet(events, shares_gpu=True)
    made.generators = starting = Starting(events)
    made._call_generators = starting.call
    made._config = load("countdown-tiny", ["rollout.start_timeout_s=0.05"])
    monkeypatch.setattr("orchestrator.fleet.fleet.ready_of", lambda refs, timeout_s: time.sleep(0.01))
    with made.learning():
        events.append("learning")
    assert events == ["sleep generator-0", "learning"]


def test_for_other_ranks_what_is_in_flight_is_dropped_and_generators_sleep_and_join_a_new_group(events) -> None:
    made = fleet(events, shares_gpu=True)
    made.rollouts = SimpleNamespace(abandon=lambda: events.append("abandon"))
    made.run = SimpleNamespace(engine=EngineSpec("", "bfloat16", 64, load_weights=False, transport="nccl"))
    made._transport = NcclTransport(1)
    made._transport._members = {"generator-0": "as before"}
    made.forget_learner()
    assert events == ["abandon", "sleep"] and not made._transport._members


class Losing(LearnerGroup):
    """A real group, but for its ranks; so many of its first starts lose one."""

    def __init__(self, events: list[str], lost_starts: int = 0) -> None:
        self._events, self._lost_starts = events, lost_starts
        config = load("countdown-tiny", ["placement.max_learner_restarts=3"])
        run = SimpleNamespace(config=config, model=config.model)
        super().__init__(run, placement=None)

    def _boot(self) -> None:
        self._events.append("boot")

    def _start(self, *_) -> None:
        self._events.append("start")
        self._lost_starts -= 1
        if self._lost_starts >= 0:
            raise LearnerLostError("learner-1 died during start")

    def close(self) -> None:
        self._events.append("close")

    def begin(self) -> None:
        self.start("", None, 1, 1.0)
        self._events.clear()


AGAIN = ["close", "boot", "start"]


def test_a_rank_lost_in_a_start_is_replaced(events, caplog) -> None:
    Losing(events, lost_starts=2).start("folder", None, 1, 1.0)
    assert events == ["boot", "start", *AGAIN, *AGAIN]
    assert "lost: learner-1 died during start. It is started again (restart 2 of at most 3)" in caplog.text


def test_a_rank_that_is_lost_in_every_start_ends_the_command_after_so_many(events) -> None:
    with pytest.raises(LearnerLostError, match="died during start"):
        Losing(events, lost_starts=9).start("folder", None, 1, 1.0)
    assert events == ["boot", "start", *3 * AGAIN]


def test_a_learner_that_is_lost_at_work_and_while_it_is_built_anew_begins_again(events) -> None:
    learner = Losing(events)
    learner.begin()
    learner._lost_starts = 1

    def attempt() -> int:
        events.append("attempt")
        if events.count("attempt") == 1:
            raise LearnerLostError("learner-0 died during update")
        return 7

    assert learner.persist(attempt, lambda: events.append("begin again")) == 7
    assert events == ["attempt", "begin again", *AGAIN, "begin again", *AGAIN, "attempt"] and learner.restarts == 2


def test_a_learner_that_is_lost_in_the_export_is_built_anew_and_exports(events, monkeypatch, tmp_path) -> None:
    learner, exports, config = Losing(events), [], load("countdown-tiny")
    learner.begin()

    def export(learner, folder, step) -> None:
        exports.append(folder)
        if len(exports) == 1:
            raise LearnerLostError("learner-0 died during export")

    monkeypatch.setattr(run, "train", lambda *_: config.num_steps)
    monkeypatch.setattr(run, "export_whole", export)
    kept = SimpleNamespace(
        state=dict,
        restore=lambda state: None,
        truncate_after=lambda step: None,
        verify_latest=lambda: None,
        metrics=list,
        final=tmp_path,
        flush=lambda: events.append("flush"),
    )
    health, interrupt = Health(config), Interrupt(Console(quiet=True))
    fleet = SimpleNamespace(learner=learner, forget_learner=lambda: events.append("forget"))
    assert run.train_and_export(config, kept, fleet, kept, kept, kept, health, interrupt) is Ending.COMPLETE
    assert exports == [tmp_path, tmp_path] and events == ["flush", "forget", *AGAIN]


@pytest.mark.parametrize(
    ("last_step", "num_wrong", "ending"), [(2, 2, Ending.HOPELESS), (2, 1, Ending.INTERRUPTED), (4, 2, Ending.COMPLETE)]
)
def test_a_run_that_is_stopped_as_hopeless_is_exported_and_one_that_is_interrupted_is_not(
    monkeypatch, tmp_path, last_step, num_wrong, ending
) -> None:
    config = load("countdown-tiny", ["health.stop_after=2", "num_steps=4"])
    rows = [{"step": step, "reward/total": 0.0, "rollout/groups_without_spread": 1.0} for step in range(num_wrong)]
    exports = []
    monkeypatch.setattr(run, "train", lambda *_: last_step)
    monkeypatch.setattr(run, "export_whole", lambda learner, folder, step: exports.append(folder))
    kept = SimpleNamespace(state=dict, metrics=lambda: rows, final=tmp_path, learner=Losing([]))
    found = run.train_and_export(config, kept, kept, kept, kept, None, Health(config), None)
    assert found is ending and exports == ([] if ending is Ending.INTERRUPTED else [tmp_path])


class Count:
    """The numbers from 0, as examples."""

    num_left_out = 0

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> list[int]:
        self._next += count
        return list(range(self._next - count, self._next))

    def state(self) -> dict[str, int]:
        return {"position": self._next}

    def restore(self, state: dict[str, int]) -> None:
        self._next = state["position"]


def test_a_warm_start_whose_learner_is_lost_teaches_the_same_examples_from_the_first_on(events, tmp_path) -> None:
    learner, taught = Losing(events), []
    config = load("countdown-tiny", ["warm_start.num_steps=3", "warm_start.sequences_per_step=2"])
    learner.run = SimpleNamespace(
        config=config, learner=config.learner, engine=EngineSpec("base", "float32", 64, load_weights=False)
    )

    def teach(step, examples):
        taught.append(examples)
        if len(taught) == 2:
            raise LearnerLostError("learner-0 died during supervised_update")
        return {"optim/loss": 1.0}

    learner.supervised_update = teach
    learner.export = lambda folder: folder.mkdir(parents=True)
    console, warm_start = Console(quiet=True), WarmStart(tmp_path / "warm", Count())
    folder = warm_started_model(learner.run, warm_start, learner, console, Interrupt(console))
    assert Path(folder).is_dir() and learner.restarts == 1
    assert taught == [[0, 1], [2, 3], [0, 1], [2, 3], [4, 5]]
