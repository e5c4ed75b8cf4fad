"""The run directory: what it holds, whose it is, and who may write into it."""

import io
import json
import logging
import os
import subprocess
import sys
from math import isnan
from pathlib import Path

import pytest

from orchestrator.config.recipe import ConfigError, load
from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.models import config_for
from orchestrator.records.files.log_file import LogFile, kept_log
from orchestrator.records.run_directory import RunDirectory, RunDirectoryError, read_records
from orchestrator.records.trackers.files import FileTracker
from tests.support.full_disk import files_below, full_disk
from tests.support.groups import scored_group


@pytest.fixture
def config(tmp_path: Path):
    return load("countdown-tiny", [f"runs_dir={tmp_path}", "name=one"])


def test_metrics_and_rollouts_survive_and_a_torn_line_is_left_out(config) -> None:
    directory = RunDirectory(config).open()
    for step in range(4):
        directory.log_metrics(step, {"reward/total": step / 10})
        directory.write_rollouts(step, [(scored_group(f"p{step}", [True, False]), [0.7, -0.7])])
        directory.write_held_out(step, [scored_group(f"h{step}", [True])])
    with (directory.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "reward/to')
    assert [line["step"] for line in directory.metrics()] == [0, 1, 2, 3]
    own = [directory.rollouts / f"step_{name}.jsonl.zst" for name in ("000009 copy", "mine")]
    for file in own:
        file.write_text("a person's own")
    directory.truncate_after(2)
    assert [line["step"] for line in directory.metrics()] == [0, 1, 2]
    assert all(file.exists() for file in own)
    written = {*directory.rollouts.iterdir()} - {*own}
    assert max(path.name for path in written) == "step_000002.jsonl.zst"
    assert [path.name for path in directory.evaluated()] == [f"step_{step:06d}.jsonl.zst" for step in (0, 1, 2)]
    (asked,) = read_records(directory.evaluated()[-1])
    assert asked["prompt_id"] == "h2" and "advantage" not in asked
    record = read_records(directory.rollouts_file(2))[0]
    assert (record["prompt_id"], record["reward"], record["advantage"]) == ("p2", 1.0, 0.7)
    assert record["parts"]["correctness"] == {"value": 1.0, "status": "ok"}


def test_a_checkpoint_is_sealed_when_the_metrics_before_it_are_on_the_disk(config, monkeypatch) -> None:
    """After a power failure the run would resume there, with a hole in its metrics."""
    directory, synced = RunDirectory(config).open(), []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink().name))
    tracker = FileTracker(directory, config)
    tracker.flush()  # before the first step
    tracker.log(1, {"reward/total": 0.5})
    synced.clear()
    tracker.flush()
    assert synced == ["metrics.jsonl"]


def test_the_same_name_with_other_settings_is_refused_and_says_which(config, tmp_path) -> None:
    RunDirectory(config).open().log_metrics(0, {})
    changed = load("countdown-tiny", [f"runs_dir={tmp_path}", "name=one", "learner.learning_rate=0.5", "num_steps=99"])
    with pytest.raises(RunDirectoryError, match=r"learner\.learning_rate was 0\.0004, now 0\.5") as caught:
        RunDirectory(changed).open()
    assert "num_steps" not in str(caught.value)


def test_what_a_run_needs_of_a_machine_may_change_when_it_is_resumed(config, tmp_path) -> None:
    RunDirectory(config).open().log_metrics(0, {})
    elsewhere = ["rollout.num_generators=1", "rollout.cpus_per_generator=0.1", "rewards.num_workers=3"]
    elsewhere += ["rollout.max_batched_tokens=4096", "rollout.cpu_kv_cache_gib=2", "rollout.threads_per_generator=2"]
    elsewhere += ["learner.threads_per_rank=2", "rewards.memory_gib=2.0", "rewards.max_pending_groups=64"]
    RunDirectory(load("countdown-tiny", [f"runs_dir={tmp_path}", "name=one", *elsewhere])).open()
    with pytest.raises(RunDirectoryError, match=r"learner\.updates_per_step was 1, now 2"):
        RunDirectory(load("countdown-tiny", [f"runs_dir={tmp_path}", "name=one", "learner.updates_per_step=2"])).open()


def test_a_resumed_run_is_evaluated_on_the_same_problems_at_the_same_temperature(config, tmp_path) -> None:
    RunDirectory(config).open().log_metrics(0, {})
    same = [f"runs_dir={tmp_path}", "name=one"]
    RunDirectory(load("countdown-tiny", [*same, "evaluation.every_steps=3", "evaluation.pass_at=[1,2]"])).open()
    for setting in ("num_prompts=20", "temperature=0.5", "seed=1"):
        with pytest.raises(RunDirectoryError, match=rf"evaluation\.{setting.partition('=')[0]} was .*, now"):
            RunDirectory(load("countdown-tiny", [*same, f"evaluation.{setting}"])).open()


def test_a_setting_that_an_older_version_did_not_know_had_its_default(config, tmp_path) -> None:
    directory = RunDirectory(config).open()
    directory.log_metrics(0, {})
    file = directory.path / "config.json"
    settings = json.loads(file.read_text())
    del settings["traces"]["max_lines"], settings["learner"]["optimizer"]
    file.write_text(json.dumps(settings))
    RunDirectory(config).open()
    file.write_text(json.dumps(settings))
    changed = load("countdown-tiny", [f"runs_dir={tmp_path}", "name=one", "traces.max_lines=5"])
    with pytest.raises(RunDirectoryError, match=r"traces\.max_lines was 9, now 5"):
        RunDirectory(changed).open()
    file.write_text(json.dumps(settings | {"a_setting_that_is_gone": 1}))
    with pytest.raises(RunDirectoryError, match=r"a_setting_that_is_gone was 1, now None"):
        RunDirectory(config).open()


@pytest.mark.parametrize(
    "setting",
    [
        *("learner.max_logprob_gap=0.1", "learner.max_tokens_per_microbatch=4096", "rewards.max_failed_share=0.5"),
        "prompts.max_prompt_tokens=60",
    ],
)
def test_what_an_error_says_to_change_may_change(config, tmp_path, setting) -> None:
    RunDirectory(config).open().log_metrics(0, {})
    RunDirectory(load("countdown-tiny", [f"runs_dir={tmp_path}", "name=one", setting])).open()


def test_a_limit_that_is_infinite_does_not_keep_a_run_from_being_resumed(tmp_path) -> None:
    settings = [f"runs_dir={tmp_path}", "name=one", "learner.max_grad_norm=inf"]
    RunDirectory(load("countdown-tiny", settings)).open().log_metrics(0, {})
    RunDirectory(load("countdown-tiny", settings)).open()
    asked = config_for(str(tmp_path / "one" / "final"), None, ())
    assert asked.learner.max_grad_norm == float("inf")


def strict(text: str) -> object:
    """What a reader makes of it that knows JSON and no more."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_written_as_json_that_every_program_reads(tmp_path) -> None:
    config = load("countdown-tiny", [f"runs_dir={tmp_path}", "learner.max_grad_norm=inf"])
    directory = RunDirectory(config).open()
    directory.log_metrics(1, {"optim/grad_norm": float("inf"), "reward/total": float("nan"), "optim/loss": 0.5})
    directory.truncate_after(1)
    for line in (directory.path / "metrics.jsonl").read_text().splitlines():
        assert strict(line) == {"step": 1, "optim/grad_norm": None, "reward/total": None, "optim/loss": 0.5}
    (line,) = directory.metrics()
    assert isnan(line["optim/grad_norm"]) and line["optim/loss"] == 0.5
    group = scored_group("a", [True])
    group.completions[0].rollout_logprobs[0] = -float("inf")
    directory.write_rollouts(1, [(group, [float("nan")])])
    (record,) = read_records(directory.rollouts_file(1))
    assert record["rollout_logprobs"][0] is None and record["advantage"] is None
    assert strict((directory.path / "config.json").read_text())["learner"]["max_grad_norm"] == "inf"
    RunDirectory(config).check_settings()
    assert config_for(str(directory.final), None, ()).learner.max_grad_norm == float("inf")
    # As earlier versions wrote it.
    file = directory.path / "config.json"
    file.write_text(file.read_text().replace('"inf"', "Infinity"))
    RunDirectory(config).check_settings()


def test_what_was_logged_before_the_directory_was_open_comes_first(config, caplog) -> None:
    with kept_log() as earlier:
        logging.getLogger("rollout").info("12 rows, 3 different problems")
    directory = RunDirectory(config).open()
    before = logging.getLogger().handlers[:]
    try:
        directory.log_to_file(earlier)
        logging.getLogger("rollout").info("later")
    finally:
        for handler in set(logging.getLogger().handlers) - set(before):
            logging.getLogger().removeHandler(handler)
            handler.close()
    first, second = (directory.path / "log.txt").read_text().splitlines()
    assert first.endswith("INFO 12 rows, 3 different problems") and second.endswith("INFO later")


def test_a_second_command_for_the_same_run_is_refused_until_the_first_ends(config) -> None:
    first, second = RunDirectory(config).open(), RunDirectory(config).open()
    refused = rf"another command \(process {os.getpid()} on .*choose another name"
    with first.lock(), pytest.raises(RunDirectoryError, match=refused), second.lock():
        pass
    before = (first.path / "config.json").read_text()
    with first.lock(), pytest.raises(RunDirectoryError, match=refused):
        RunDirectory(config.model_copy(update={"num_steps": 99})).open()
    assert (first.path / "config.json").read_text() == before
    with second.lock():
        pass


def test_a_lock_ends_with_the_process_that_held_it(config) -> None:
    directory = RunDirectory(config).open()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); "
         "print('held', flush=True); time.sleep(60)", str(directory.path / ".lock")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(RunDirectoryError), directory.lock():
        pass
    holder.kill()
    holder.wait()
    with directory.lock():
        pass


def test_a_lock_that_cannot_be_made_says_where(config) -> None:
    directory = RunDirectory(config).open()
    (directory.path / ".lock").unlink()
    (directory.path / ".lock").mkdir()
    with pytest.raises(RunDirectoryError, match=r"cannot write the run directory .*Is a directory"), directory.lock():
        pass


def test_a_start_that_failed_before_its_first_figure_binds_nobody(config, tmp_path) -> None:
    RunDirectory(config).open().truncate_after(-1)  # as every start does
    mended = load("countdown-tiny", [f"runs_dir={tmp_path}", "name=one", "learner.learning_rate=0.5"])
    directory = RunDirectory(mended).open()
    assert '"learning_rate": 0.5' in (directory.path / "config.json").read_text()


def test_a_run_directory_that_cannot_be_written_says_why(tmp_path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(RunDirectoryError, match=r"cannot write the run directory .*Not a directory.*set runs_dir"):
        RunDirectory(load("countdown-tiny", [f"runs_dir={blocker}", "name=one"])).open()


def test_a_disk_that_fills_up_during_the_run_says_how_to_go_on(config) -> None:
    directory = RunDirectory(config).open()
    (directory.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunDirectoryError, match=r"No space left on device.*resumes from the last checkpoint"):
        directory.log_metrics(1, {"reward/total": 1.0})


SCORED = [(scored_group("p", [True, False]), [0.7, -0.7])]


@pytest.mark.parametrize(
    ("write", "limit"),
    [
        (lambda directory: directory.open(), 0),
        (lambda directory: directory.open(), 100),
        (lambda directory: directory.write_rollouts(2, SCORED), 0),
        (lambda directory: directory.write_rollouts(2, SCORED), 100),
        (lambda directory: directory.log_metrics(2, {"reward/total": 1.0}), 0),
        (lambda directory: directory.log_metrics(2, {"reward/total": 1.0}), 45),  # in the midst of the second line
        (lambda directory: directory.truncate_after(1), 0),
        (lambda directory: directory.truncate_after(1), 20),
    ],
)
def test_whatever_is_written_to_a_full_disk_leaves_what_there_was_and_nothing_torn(config, write, limit) -> None:
    directory = RunDirectory(config).open()
    directory.write_rollouts(1, SCORED)
    directory.log_metrics(1, {"reward/total": 0.5})
    before = files_below(directory.path)
    with full_disk(limit), pytest.raises(RunDirectoryError, match=r"File too large.*Free space"):
        write(directory)
    assert files_below(directory.path) == before
    assert directory.metrics() == [{"step": 1, "reward/total": 0.5}] and read_records(directory.rollouts_file(1))
    directory.open().truncate_after(1)  # as the next command does
    write(directory)


def test_a_log_on_a_full_disk_is_not_told_of_at_every_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())  # pytest's own is a file of this process
    logger, handler = logging.Logger("rayzero"), LogFile(tmp_path / "log.txt")
    logger.addHandler(handler)
    with full_disk():
        for number in range(3):
            logger.warning("line %d", number)
    logger.warning("line 3")
    handler.close()
    assert shown.getvalue() == f"{tmp_path / 'log.txt'} cannot be written: File too large\n"
    assert "line 3" in (tmp_path / "log.txt").read_text()


def test_a_config_that_is_not_json_says_what_to_remove(config) -> None:
    RunDirectory(config).open().log_metrics(0, {})
    (config.directory / "config.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="is not JSON"):
        RunDirectory(config).open()


def test_config_json_is_the_whole_resolved_run(config) -> None:
    written = json.loads((RunDirectory(config).open().path / "config.json").read_text())
    assert RunConfig.model_validate(written) == config


def test_asking_a_finished_run_leaves_its_settings_as_they_were(config) -> None:
    directory = RunDirectory(config).open()
    directory.log_metrics(0, {})
    directory.final.mkdir()
    before = (directory.path / "config.json").read_bytes()
    asked = RunDirectory(config.model_copy(update={"num_steps": 1}))
    asked.check_settings()
    assert asked.final.exists() and asked.metrics() == [{"step": 0}]
    assert (directory.path / "config.json").read_bytes() == before


def test_asking_about_a_run_that_does_not_exist_creates_nothing(config, tmp_path) -> None:
    directory = RunDirectory(config)
    directory.check_settings()
    assert directory.metrics() == [] and not directory.final.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_that_is_asked_for_other_settings_is_refused(config) -> None:
    directory = RunDirectory(config).open()
    directory.final.mkdir()
    with pytest.raises(RunDirectoryError, match="group_size was 8, now 4"):
        RunDirectory(config.model_copy(update={"group_size": 4})).check_settings()


def test_the_home_folder_is_meant_by_its_sign(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("countdown-tiny", ["runs_dir=~/runs", "name=one"]).directory == tmp_path / "runs" / "one"


def test_a_home_folder_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"runs_dir.*home folder of ~nosuchuser is not known; give the whole path"):
        load("countdown-tiny", ["runs_dir=~nosuchuser/runs"])
