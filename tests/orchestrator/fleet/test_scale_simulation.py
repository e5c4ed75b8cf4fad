"""The simulation that docs/scale.md measures with: the real loop over generators whose engines sleep."""

import pytest

from benchmarks.driver.simulated_run import config_of, run, simulation
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.records.run_directory import RunDirectory, read_records

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_more_generators_than_processes_train_on_every_prompt_once_and_in_order(tmp_path) -> None:
    """With sampling one step ahead of the weights, as the prompts' engines finish in whatever order."""
    num_steps, prompts_per_step, num_generators = 4, 12, 6
    settings = (f"num_steps={num_steps}", f"prompts_per_step={prompts_per_step}", "max_staleness=1")
    config = config_of(num_generators, str(tmp_path), *settings)
    with ray_cluster(num_cpus=8), simulation(config, engine_s=0.05, update_s=0.2) as (fleet, meter):
        run(config, fleet, meter)
        assert fleet.learner.trained_on == [f"train/{number:06d}" for number in range(num_steps * prompts_per_step)]
        assert [*fleet.generators.serving] == [f"generator-{index}" for index in range(num_generators)]
    run_directory = RunDirectory(config)
    for step in range(1, num_steps + 1):
        written = read_records(run_directory.rollouts_file(step))
        assert len(written) == prompts_per_step * config.group_size
        assert {version for row in written for version in row["policy_versions"]} <= {max(0, step - 2), step - 1}
        assert {row["reward"] for row in written} == {0.1, 1.0}


def test_turns_that_an_environment_answers_come_for_every_prompt_once(tmp_path) -> None:
    turns, prompts_per_step = 4, 32
    config = config_of(4, str(tmp_path), "num_steps=4", f"prompts_per_step={prompts_per_step}")
    with ray_cluster(num_cpus=8), simulation(config, num_turns=turns) as (fleet, meter):
        run(config, fleet, meter, "simulated")
        assert len(set(fleet.learner.trained_on)) == len(fleet.learner.trained_on) == 4 * prompts_per_step
    written = read_records(RunDirectory(config).rollouts_file(1))
    assert {(len(row["turns"]), row["finish_reason"]) for row in written} == {(turns, "stop")}
