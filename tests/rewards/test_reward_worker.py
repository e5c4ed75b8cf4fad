from __future__ import annotations

import os

import pytest

from rewards.worker import ONE_THREAD, RewardWorker


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> RewardWorker:
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "8")
    return RewardWorker()


def test_outcomes_come_in_order_and_failures_stay_alone(worker: RewardWorker) -> None:
    assert worker.load(["hostile_rewards:act"]) == os.getpid()
    outcomes = worker.score("hostile_rewards:act", ["good", "raise", "good"], {})
    good = {"correctness": 1.0, "format": 1.0}
    assert outcomes[0] == outcomes[2] == good
    assert isinstance(outcomes[1], str)
    assert outcomes[1].startswith("ValueError: invalid literal")


def test_thread_settings_are_made(worker: RewardWorker) -> None:
    assert {os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"1"}


def test_loading_what_is_not_there(worker: RewardWorker) -> None:
    with pytest.raises(ImportError):
        worker.load(["no_such_module:score"])


def test_a_result_that_is_no_mapping_of_numbers_is_an_error(worker: RewardWorker) -> None:
    worker.load(["builtins:str", "builtins:dict"])
    (outcome,) = worker.score("builtins:str", ["text"], {})
    assert isinstance(outcome, str)
