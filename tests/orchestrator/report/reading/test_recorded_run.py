"""What a report reads of a run's log."""

import logging

import pytest

from orchestrator.config.recipe import load
from orchestrator.evaluate.evaluation import summarize
from orchestrator.records.health.monitor import Health
from orchestrator.records.run_directory import RunDirectory
from orchestrator.report.reading.recorded_run import read_run
from tests.support.groups import scored_group


@pytest.mark.parametrize(("right", "verdict"), [(4, "trainable"), (0, "too hard")])
def test_what_a_run_said_before_training_is_read_of_its_log(tmp_path, right: int, verdict: str) -> None:
    directory = RunDirectory(load("countdown-tiny", [f"runs_dir={tmp_path}", "name=one"])).open()
    before, level = logging.getLogger().handlers[:], logging.getLogger().level
    directory.log_to_file([])
    try:
        groups = [scored_group(str(number), [True] * right + [False] * (8 - right)) for number in range(20)]
        Health(load("countdown-tiny"), lambda sentence: None).judge(summarize(groups))
    finally:
        for handler in set(logging.getLogger().handlers) - set(before):
            logging.getLogger().removeHandler(handler)
            handler.close()
        logging.getLogger().setLevel(level)
    assert read_run(directory.path).outlook == verdict
