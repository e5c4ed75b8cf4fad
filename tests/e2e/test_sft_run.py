"""`rayzero sft` on real Ray and DeepSpeed, as a user starts, kills and resumes it."""

import os
import signal
import subprocess
import time

import pytest

from benchmarks.real_runs.observed import LEARNER, processes
from tests.support.commands import Workplace
from tests.support.run_directories import data_of
from tests.support.sums import RECIPE, write_pairs

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, shared_cluster) -> Workplace:
    folder = tmp_path_factory.mktemp("workplace")
    recipe = folder / "sums.toml"
    recipe.write_text(RECIPE)
    data = f"warm_start.data={write_pairs(folder)}"
    return Workplace(folder, "sft", str(recipe), data, environment=shared_cluster)


def metrics(workplace: Workplace, name: str) -> list[dict]:
    lines = workplace.metrics(name)
    return [{key: value for key, value in line.items() if not key.startswith(("time/", "system/"))} for line in lines]


def summary(workplace: Workplace, name: str) -> dict:
    """What the first page of a run's report says."""
    return data_of(workplace.run(name) / "report.html")["runs"][0]["summary"]


@pytest.fixture(scope="module")
def whole(workplace: Workplace) -> str:
    """What a run printed that nobody disturbs."""
    return workplace.succeed("whole")


def test_a_run_learns_its_pairs_and_leaves_what_the_readme_says(workplace, whole) -> None:
    run = workplace.run("whole")
    lines = metrics(workplace, "whole")
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert lines[-1]["optim/loss"] < 0.8 * lines[0]["optim/loss"]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step_000036", "step_000040"]
    assert (run / "config.json").exists() and (run / "log.txt").exists()
    assert "100 pairs" in whole and "sft 40/40  loss" in whole
    shown = summary(workplace, "whole")
    assert (shown["command"], shown["state"], shown["steps"]) == ("sft", "complete", [40, 40])
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(run / "final").config.vocab_size == 25


def test_a_run_resumes_bit_for_bit_after_a_sigterm_and_a_sigkill(workplace, whole) -> None:
    assert workplace.stop_after("disturbed", 6, signal.SIGTERM, "checkpoint.every_steps=1000") == 130
    assert "left cleanly" in workplace.output("disturbed")
    done = len(metrics(workplace, "disturbed"))
    assert done < 40 and summary(workplace, "disturbed")["steps"] == [done, 40]
    assert workplace.stop_after("disturbed", 20, signal.SIGKILL) == -signal.SIGKILL
    assert "resuming run 'disturbed' after step" in workplace.succeed("disturbed")
    assert metrics(workplace, "disturbed") == metrics(workplace, "whole")
    assert workplace.weights_digest("disturbed") == workplace.weights_digest("whole")


def rank_in(method: str, command: subprocess.Popen) -> int:
    """Return the process of the learner rank, once it runs that method; Ray writes it into the process's title."""
    deadline = time.monotonic() + 120
    while command.poll() is None and time.monotonic() < deadline:
        for pid, title in processes(os.getpid()):
            if title.startswith("ray::") and LEARNER in title and method in title:
                return pid
        time.sleep(0.01)
    raise AssertionError(f"no rank in {method!r}")


def test_a_rank_that_dies_in_its_start_or_at_work_is_replaced_and_the_figures_are_the_same(workplace, whole) -> None:
    command = workplace.start("bereft")
    os.kill(rank_in("start", command), signal.SIGKILL)
    workplace.wait_for_step("bereft", 1, command)
    rank = rank_in("", command)
    workplace.wait_for_step("bereft", 6, command)
    os.kill(rank, signal.SIGKILL)
    assert command.wait(timeout=120) == 0, workplace.output("bereft")
    log = (workplace.run("bereft") / "log.txt").read_text()
    assert "learner-0 died during start" in log and "It is started again (restart 1 of at most 3)" in log
    assert "It is started again (restart 2 of at most 3)" in log and "training goes on after step" in log
    assert metrics(workplace, "bereft") == metrics(workplace, "whole")
    assert workplace.weights_digest("bereft") == workplace.weights_digest("whole")


def test_a_finished_run_is_left_alone_and_says_how_to_train_on(workplace, whole) -> None:
    before = workplace.weights_digest("whole")
    again = workplace.refuse("whole")
    assert "is complete at step 40" in again.stdout and "name=whole-2" in again.stdout
    assert workplace.weights_digest("whole") == before
