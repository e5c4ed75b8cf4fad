"""The loop on a fake fleet: what is done, in which order, and how it resumes and stops."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from learner.backend.file_digests import file_digest
from learner.metrics import Update
from orchestrator.config.recipe import load
from orchestrator.interrupt import Interrupt
from orchestrator.records.checkpoints import Checkpoints
from orchestrator.records.health.monitor import Health
from orchestrator.train import train
from rollout.types.prompts import Prompt
from tests.support.groups import scored_group


class FakePrompts:
    """Counts instead of wording."""

    def __init__(self) -> None:
        self.position = 0
        self.observed: list[list[str]] = []

    def held_out(self, format=None):
        return ("held-out",)

    def observe(self, groups):
        self.observed.append([group.prompt.id for group in groups])

    def metrics(self):
        return {"curriculum/stage": 1.0}

    def take(self, count):
        self.position += count
        return [numbered(number) for number in range(self.position - count, self.position)]

    def state(self):
        return {"position": self.position}

    def restore(self, state):
        self.position = state["position"]


def numbered(number: int) -> Prompt:
    return Prompt(str(number), np.arange(4, dtype=np.int32), "question", "countdown", {})


class FakeFleet:
    """A learner that counts its updates, generators that note the version they would sample with."""

    def __init__(self, on_update=lambda step: None, without_spread=()) -> None:
        self.rollouts = self.learner = self
        self.events: list[tuple] = []
        self.trained: list[list[str]] = []
        self.version = None
        self.updates = 0
        self._on_update = on_update
        self._without_spread = without_spread
        self._phase = None
        self._versions: dict[str, int] = {}

    @contextmanager
    def generating(self):
        self._phase = "generating"
        yield

    @contextmanager
    def learning(self):
        self._phase = "learning"
        yield

    def publish(self, version):
        self.version = version
        self.events.append(("publish", version))

    def collect(self, request):
        assert self._phase == "generating" and request.prompts == ("held-out",)
        self.events.append(("evaluate", self.version))
        return [scored_group("held-out", [True] * request.group_size)]

    def submit(self, request):
        self.events.append(("submit", self.version, int(request.prompts[0].id)))
        self._versions |= {prompt.id: self.version for prompt in request.prompts}

    def gather(self, prompts):
        assert self._phase == "generating"
        return [
            scored_group(prompt.id, [True, int(prompt.id) in self._without_spread], version=self._versions[prompt.id])
            for prompt in prompts
        ]

    def metrics(self):
        return {}

    def update(self, step, groups):
        assert self._phase == "learning"
        self.updates += 1
        self.events.append(("update", step))
        self._on_update(step)
        self.trained.append([group.prompt.id for group in groups])
        return Update({"optim/loss": 0.0}, [[0.5, -0.5]] * len(groups))

    def score_again(self, update):
        assert self._phase == "learning"
        self.events.append(("score again", self.updates))
        return update

    def save(self, folder: Path):
        folder.mkdir()
        (folder / "updates").write_text(str(self.updates))
        return {"updates": file_digest(folder / "updates")}

    def load(self, folder: Path):
        self.updates = int((folder / "updates").read_text())


class ListTracker:
    def __init__(self, events) -> None:
        self.events = events
        self.steps: list[tuple[int, bool]] = []
        self.metrics: dict[int, dict[str, float]] = {}
        self.advantages: dict[int, list] = {}
        self.held_out: dict[int, int] = {}

    def log(self, step, metrics, groups=(), held_out=()):
        self.events.append(("log", step))
        self.steps.append((step, "eval/pass_at_1" in metrics))
        self.metrics[step] = metrics
        self.advantages[step] = [each.advantages for each in groups]
        self.held_out[step] = len(held_out)

    def flush(self):
        self.events.append(("flush", self.steps[-1][0]))

    def close(self):
        pass


@pytest.fixture
def start(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    said: list[str] = []

    def run(fleet, *overrides, interrupt=None):
        config = load(
            "countdown-tiny",
            ["num_steps=4", "prompts_per_step=3", "group_size=2", "evaluation.every_steps=0", *overrides],
        )
        tracker, prompts = ListTracker(fleet.events), FakePrompts()
        interrupt = interrupt or Interrupt(Console(quiet=True))
        last = train(config, prompts, fleet, Checkpoints(folder, 2), tracker, Health(config, said.append), interrupt)
        return last, tracker, prompts

    run.said = said
    return run


def test_every_step_samples_with_the_weights_of_the_step_before(start) -> None:
    fleet = FakeFleet()
    last, tracker, prompts = start(fleet)
    assert last == 4 and prompts.position == 12
    collected = [event for event in fleet.events if event[0] == "submit"]
    assert collected == [("submit", step, 3 * step) for step in range(4)]
    assert [event for event in fleet.events if event[0] == "publish"] == [("publish", step) for step in range(5)]
    assert tracker.steps == [(0, True), (1, False), (2, False), (3, False), (4, True)]


def test_the_next_prompts_are_asked_before_the_bookkeeping_and_after_an_evaluation(start) -> None:
    """What is evaluated must not share its batches with them, or its last bits would depend on the moment."""
    fleet = FakeFleet()
    start(fleet, "evaluation.every_steps=2", "checkpoint.every_steps=2")
    begin = fleet.events.index(("publish", 1))
    assert [event[:2] for event in fleet.events[begin:]] == [
        *[("publish", 1), ("submit", 1), ("log", 1)],
        *[("update", 2), ("score again", 2), ("publish", 2)],
        *[("evaluate", 2), ("evaluate", 2), ("submit", 2), ("log", 2), ("flush", 2)],
        *[("update", 3), ("publish", 3), ("submit", 3), ("log", 3)],
        *[("update", 4), ("score again", 4), ("publish", 4)],
        *[("evaluate", 4), ("evaluate", 4), ("log", 4), ("flush", 4)],
    ]


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [((), [4]), (("evaluation.every_steps=2", "tracking.save_rollouts=false"), [])],
)
def test_nothing_is_scored_again_where_nothing_is_evaluated_or_recorded(start, overrides, steps) -> None:
    fleet = FakeFleet()
    _, tracker, _ = start(fleet, *overrides)
    assert [event[1] for event in fleet.events if event[0] == "score again"] == steps
    assert [step for step, metrics in tracker.metrics.items() if "time/score_again_s" in metrics] == steps


def test_evaluations_come_before_between_and_after(start) -> None:
    _, tracker, _ = start(FakeFleet(), "evaluation.every_steps=2")
    assert [step for step, is_evaluated in tracker.steps if is_evaluated] == [0, 2, 4]


def test_a_run_that_dies_resumes_after_its_last_checkpoint_with_the_same_prompts(start) -> None:
    def die(step):
        if step == 4:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        start(FakeFleet(on_update=die), "checkpoint.every_steps=2")
    fleet = FakeFleet()
    last, tracker, _ = start(fleet, "checkpoint.every_steps=2")
    assert (last, fleet.updates) == (4, 4)
    assert fleet.events[0] == ("publish", 2)
    assert [event for event in fleet.events if event[0] == "submit"] == [("submit", 2, 6), ("submit", 3, 9)]
    assert [step for step, _ in tracker.steps] == [3, 4]


def test_a_signal_finishes_the_step_saves_and_leaves(start) -> None:
    interrupt = Interrupt(Console(quiet=True))

    def ask(step):
        interrupt.requested = step == 2

    last, _, _ = start(FakeFleet(on_update=ask), "checkpoint.every_steps=100", interrupt=interrupt)
    assert last == 2
    fleet = FakeFleet()
    assert start(fleet, "checkpoint.every_steps=100")[0] == 4
    assert fleet.events[0] == ("publish", 2)


def test_groups_without_spread_are_replaced_by_fresh_prompts(start) -> None:
    """Prompts 1, 3 and 4 teach nothing: 3 takes the place of 1, 4 that of 3, 5 that of 4."""
    fleet = FakeFleet(without_spread=(1, 3, 4))
    _, tracker, prompts = start(fleet, "learner.algorithm.resample_rounds=3")
    assert fleet.trained[:2] == [["0", "2", "5"], ["6", "7", "8"]]
    assert prompts.position == 12 + 3
    assert tracker.metrics[1]["rollout/replaced_groups"] == 3
    assert tracker.metrics[1]["rollout/resample_rounds"] == 3
    assert tracker.metrics[1]["rollout/groups_without_spread"] == pytest.approx(3 / 6)
    # What was sampled is recorded, replaced or not.
    assert tracker.advantages[1] == [[0.5, -0.5]] * 3 + [[0.0, 0.0]] * 3
    assert tracker.metrics[2]["rollout/replaced_groups"] == 0


def test_replacing_is_bounded_and_the_step_keeps_its_size(start) -> None:
    fleet = FakeFleet(without_spread=range(100))
    _, tracker, prompts = start(fleet, "learner.algorithm.resample_rounds=2")
    assert fleet.trained[0] == ["6", "7", "8"]
    assert prompts.position == 4 * 9
    assert tracker.metrics[1]["rollout/replaced_groups"] == 6


def test_a_hopeless_run_is_saved_and_left(start) -> None:
    fleet = FakeFleet(without_spread=range(100))
    last, tracker, _ = start(fleet, "health.stop_after=3", "num_steps=9", "checkpoint.every_steps=100")
    assert last == 3 and tracker.metrics[3]["health/alarms"] == 0.0
    resumed = FakeFleet(without_spread=range(100))
    start(resumed, "num_steps=4", "checkpoint.every_steps=100")
    assert resumed.events[0] == ("publish", 3)


def test_the_verdict_is_said_before_the_first_step_and_alarms_after_theirs(start) -> None:
    fleet = FakeFleet(without_spread=range(100))
    _, tracker, _ = start(fleet, "health.steps=2", "num_steps=3")
    assert start.said[0] == "before training: too easy"
    assert start.said[-1].startswith("health/no_spread after step 2: ")
    assert [tracker.metrics[step].get("health/no_spread") for step in (1, 2, 3)] == [None, 1.0, 1.0]


def test_a_finished_run_does_nothing_more(start) -> None:
    start(FakeFleet())
    fleet = FakeFleet()
    assert start(fleet)[0] == 4
    assert fleet.updates == 4 and not [event for event in fleet.events if event[0] in ("submit", "update")]
