"""One GPU for a generator and a learner rank: who sleeps while who works, without the GPU."""

import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from rich.console import Console

from orchestrator import run
from orchestrator.command import Ending
from orchestrator.config.recipe import load
from orchestrator.fleet.fleet import RayFleet
from orchestrator.fleet.learner_group import LearnerLostError
from orchestrator.fleet.transports import NcclTransport
from orchestrator.interrupt import Interrupt
from orchestrator.records.health.monitor import Health
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
    made._config = load(None)

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
    made._config = load(None, ["rollout.start_timeout_s=0.05"])
    monkeypatch.setattr("orchestrator.fleet.fleet.ready_of", lambda refs, timeout_s: time.sleep(0.01))
    with made.learning():
        events.append("learning")
    assert events == ["sleep generator-0", "learning"]


def test_a_learner_that_is_lost_in_the_export_is_built_anew_and_exports(monkeypatch, tmp_path) -> None:
    fleet, exports = Losing(lost_in_restarts=False), []
    config = load(None)

    def export(learner, folder) -> None:
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
    )
    health, interrupt = Health(config), Interrupt(Console(quiet=True))
    assert run.train_and_export(config, kept, fleet, None, kept, kept, None, health, interrupt) is Ending.COMPLETE
    assert exports == [tmp_path, tmp_path] and fleet.learner.restarts == 1


@pytest.mark.parametrize(
    ("last_step", "num_wrong", "ending"), [(2, 2, Ending.HOPELESS), (2, 1, Ending.INTERRUPTED), (4, 2, Ending.COMPLETE)]
)
def test_a_run_that_is_stopped_as_hopeless_is_exported_and_one_that_is_interrupted_is_not(
    monkeypatch, tmp_path, last_step, num_wrong, ending
) -> None:
    config = load(None, ["health.stop_after=2", "num_steps=4"])
    rows = [{"step": step, "reward/total": 0.0, "rollout/groups_without_spread": 1.0} for step in range(num_wrong)]
    exports = []
    monkeypatch.setattr(run, "train", lambda *_: last_step)
    monkeypatch.setattr(run, "export_whole", lambda learner, folder: exports.append(folder))
    kept = SimpleNamespace(state=dict, metrics=lambda: rows, final=tmp_path, learner=None)
    found = run.train_and_export(config, kept, kept, None, kept, kept, None, Health(config), None)
    assert found is ending and exports == ([] if ending is Ending.INTERRUPTED else [tmp_path])


def test_after_a_restart_of_the_learner_generators_join_a_new_group_with_it(events) -> None:
    made = fleet(events, shares_gpu=False)
    made.rollouts = SimpleNamespace(abandon=lambda: events.append("abandon"))
    made.learner = SimpleNamespace(restart=lambda: events.append("restart"))
    made.run = SimpleNamespace(engine=EngineSpec("", "bfloat16", 64, load_weights=False, transport="nccl"))
    made._transport = NcclTransport(1)
    made._transport._members = {"generator-0": "as before"}
    made.restart_learner(lambda learner: events.append("start"))
    assert events == ["abandon", "restart", "start"] and not made._transport._members


class Losing:
    """A fleet whose learner is lost in every attempt, in training or while it is built anew."""

    def __init__(self, lost_in_restarts: bool) -> None:
        self.learner = SimpleNamespace(restarts=0)
        self.trainings = 0
        self._lost_in_restarts = lost_in_restarts

    @contextmanager
    def learning(self):
        yield

    def restart_learner(self, start) -> None:
        self.learner.restarts += 1
        if self._lost_in_restarts:
            raise LearnerLostError("learner-1 died during start")


@pytest.mark.parametrize(("lost_in_restarts", "num_trainings"), [(False, 4), (True, 1)])
def test_a_learner_is_built_anew_so_often_and_no_more(monkeypatch, lost_in_restarts, num_trainings) -> None:
    fleet = Losing(lost_in_restarts)

    def train(config, prompts, fleet, *_):
        fleet.trainings += 1
        raise LearnerLostError("learner-0 died during update")

    monkeypatch.setattr(run, "train", train)
    kept = SimpleNamespace(
        state=dict,
        restore=lambda state: None,
        truncate_after=lambda step: None,
        verify_latest=lambda: None,
        metrics=list,
    )
    config = load(None, ["placement.max_learner_restarts=3"])
    with pytest.raises(LearnerLostError, match=r"died during (start|update)"):
        run.train_and_export(
            config, kept, fleet, None, kept, kept, None, Health(config), Interrupt(Console(quiet=True))
        )
    assert (fleet.learner.restarts, fleet.trainings) == (3, num_trainings)
