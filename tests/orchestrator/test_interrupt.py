"""Signals to the driver, really sent."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from orchestrator.config.recipe import load
from orchestrator.interrupt import Interrupt
from orchestrator.warm_start import WarmStart, warm_started_model


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_work_has_begun_the_first_signal_leaves_at_once(number) -> None:
    with Interrupt(Console(quiet=True)), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_that_the_first_asks_and_the_second_leaves(number) -> None:
    before = signal.getsignal(number)
    with Interrupt(Console(quiet=True)) as interrupt:
        interrupt.begin()
        os.kill(os.getpid(), number)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


class Signalled:
    """A learner group that gets a signal in each step."""

    def __init__(self) -> None:
        engine = SimpleNamespace(model_folder="base")
        config = load("countdown-tiny", ["warm_start.num_steps=3"])
        self.run = SimpleNamespace(config=config, learner=config.learner, engine=engine)

    def start(self, *_, **__) -> None: ...

    def persist(self, attempt, roll_back):
        return attempt()

    def supervised_update(self, step, examples):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"optim/loss": 1.0}


def test_a_warm_start_promises_no_checkpoint(tmp_path: Path) -> None:
    console, learner = Console(width=200), Signalled()
    examples = SimpleNamespace(take=range, state=dict, num_left_out=0)
    with console.capture() as shown, Interrupt(console) as interrupt:
        interrupt.begin()
        assert warm_started_model(learner.run, WarmStart(tmp_path / "w", examples), learner, console, interrupt) is None
    assert "nothing is saved: the same command begins it again" in shown.get() and "checkpoint" not in shown.get()
