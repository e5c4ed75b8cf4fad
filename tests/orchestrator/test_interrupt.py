"""Signals to the driver, really sent."""

import os
import signal

import pytest
from rich.console import Console

from orchestrator.interrupt import Interrupt


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
