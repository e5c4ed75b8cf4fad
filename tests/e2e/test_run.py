"""Whole runs on real Ray, vLLM and DeepSpeed, as a user starts, kills and resumes them."""

import json
import os
import signal
import time

import pytest
import zstandard

from benchmarks.real_runs.observed import REWARD, processes
from tests.support.browser import assert_report_shows
from tests.support.commands import Workplace, rayzero_here
from tests.support.run_directories import data_of
from tests.support.small import SMALL

pytestmark = pytest.mark.slow

FOUR_STEPS = [
    *SMALL,
    "num_steps=4",
    "checkpoint.every_steps=2",
    "warm_start.num_steps=40",
    "warm_start.warmup_steps=5",
    # Two of each are in test_hosts.py and test_publish.py.
    "rollout.num_generators=1",
    "learner.num_ranks=1",
]
TIMING = ("time/", "rollout/tokens_per_s", "system/")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Workplace:
    """A folder for runs and one for the cache of warm starts, shared by the tests of this file."""
    return Workplace(
        tmp_path_factory.mktemp("workplace"),
        "train",
        "countdown-tiny",
        *FOUR_STEPS,
        environment={"WANDB_MODE": "offline"},
    )


def untimed(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if not key.startswith(TIMING)} for line in lines]


@pytest.fixture(scope="module")
def whole(workplace: Workplace) -> str:
    """What a run printed that nobody disturbs."""
    return workplace.succeed("whole", "tracking.wandb=true")


def test_a_run_leaves_a_model_a_curve_and_its_completions(workplace, whole) -> None:
    run = workplace.run("whole")
    assert [line["step"] for line in workplace.metrics("whole")] == [0, 1, 2, 3, 4]
    assert (run / "curve.png").stat().st_size > 10_000
    assert sorted(path.name for path in (run / "rollouts").iterdir()) == [
        f"step_{n:06d}.jsonl.zst" for n in (1, 2, 3, 4)
    ]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step_000002", "step_000004"]
    assert "held-out problems" in whole and "change" in whole
    assert "rayzero solve" in whole
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


def test_every_page_of_its_report_opens_and_tokens_have_the_logprobs_that_were_sampled(workplace, whole) -> None:
    run = workplace.run("whole")
    written = zstandard.decompress((run / "rollouts" / "step_000004.jsonl.zst").read_bytes()).splitlines()
    assert_report_shows(run / "report.html", [json.loads(line) for line in written])


def test_sampler_and_learner_agree_at_every_step(workplace, whole) -> None:
    gaps = [line["rollout/logprob_gap"] for line in workplace.metrics("whole")[1:]]
    assert max(gaps) < 1e-5


def test_the_trained_model_loads_in_transformers_and_differs_from_the_start(workplace, whole) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    final = workplace.run("whole") / "final"
    model = AutoModelForCausalLM.from_pretrained(final)
    tokenizer = AutoTokenizer.from_pretrained(final)
    text = "Numbers: 3 7 9\nTarget: 33\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert model(input_ids=torch.tensor([tokenizer.encode(text)])).logits.isfinite().all()
    warm = next((workplace.folder / "cache").glob("warm-*"))
    assert (warm / "model.safetensors").read_bytes() != (final / "model.safetensors").read_bytes()


def test_solve_loads_it_in_vllm(workplace, whole) -> None:
    final = str(workplace.run("whole") / "final")
    question = "Using the numbers [4, 7, 3], create an equation that equals 25"
    solved = rayzero_here("solve", final, question, "--attempts", "3")
    assert "Numbers: 4 7 3\nTarget: 25" in solved.stdout
    assert solved.stdout.count("right") + solved.stdout.count("wrong:") + solved.stdout.count("no answer:") >= 3
    assert solved.returncode in (0, 1), solved.stderr


def test_a_run_resumes_bit_for_bit_after_reward_workers_and_a_sigkill(workplace, whole) -> None:
    process = workplace.start("killed")
    workplace.wait_for_step("killed", 0, process)
    killed = [pid for pid, title in processes(process.pid) if title.startswith("ray::") and REWARD in title]
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    workplace.wait_for_step("killed", 3, process)
    time.sleep(0.3)  # well into step 4, which ends no sooner than this
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (workplace.run("killed") / "final").exists()
    assert_finishes_like_whole(workplace, "killed", last_step=2)


@pytest.mark.long
def test_a_run_resumes_bit_for_bit_after_a_sigterm(workplace, whole) -> None:
    assert workplace.stop_after("left", 1, signal.SIGTERM) == 130
    assert "left cleanly" in workplace.output("left")
    last_step = workplace.metrics("left")[-1]["step"]
    assert (workplace.run("left") / "checkpoints" / f"step_{last_step:06d}").exists()
    assert data_of(workplace.run("left") / "report.html")["runs"][0]["summary"]["steps"] == [last_step, 4]
    assert_finishes_like_whole(workplace, "left", last_step)


def assert_finishes_like_whole(workplace: Workplace, name: str, last_step: int) -> None:
    """Resume a run after its last checkpoint, and compare what it leaves with the run that nobody disturbed."""
    assert f"resuming run '{name}' after step {last_step}" in workplace.succeed(name)
    assert untimed(workplace.metrics(name)) == untimed(workplace.metrics("whole"))
    assert workplace.weights_digest(name) == workplace.weights_digest("whole")


def test_a_finished_run_is_left_alone(workplace, whole) -> None:
    before = workplace.weights_digest("whole")
    again = workplace.refuse("whole")
    assert again.returncode == 0 and "complete at step 4" in again.stdout
    assert workplace.weights_digest("whole") == before


def test_changed_settings_do_not_resume_somebody_elses_run(workplace, whole) -> None:
    refused = workplace.refuse("whole", "learner.learning_rate=0.1")
    assert refused.returncode == 1
    assert "learner.learning_rate was 0.0004, now 0.1" in refused.stderr


def test_a_damaged_checkpoint_is_not_resumed_from(workplace, whole) -> None:
    """Both checkpoints of a finished run are damaged, and its final model removed: the run must not start over."""
    import shutil

    runs = workplace.folder / "runs"
    shutil.copytree(runs / "whole", runs / "damaged")
    settings = json.loads((runs / "damaged" / "config.json").read_text()) | {"name": "damaged"}
    (runs / "damaged" / "config.json").write_text(json.dumps(settings))
    for manifest in (runs / "damaged" / "checkpoints").glob("*/manifest.json"):
        manifest.write_text("{")
    refused = workplace.refuse("damaged")
    assert refused.returncode == 1
    assert "is damaged" in refused.stderr and "restore one from a backup" in refused.stderr
    assert len(workplace.metrics("damaged")) == 5


@pytest.mark.long
def test_a_run_that_waits_for_resources_is_left_at_once(workplace, whole) -> None:
    process = workplace.start("waiting", "rollout.cpus_per_generator=50", "placement.wait_for_resources_s=3600")
    log, deadline = workplace.run("waiting") / "log.txt", time.monotonic() + 120
    while not (log.exists() and "waiting for nodes" in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, workplace.output("waiting")
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert "the same command resumes" in workplace.output("waiting")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.path=/nowhere/model"], "path and build"),
        (["prompts.max_prompt_tokens=4"], "above prompts.max_prompt_tokens = 4"),
        (["prompts.countdown.source=/nowhere.jsonl", "warm_start.num_steps=0"], "no such file"),
    ],
)
def test_wrong_input_ends_a_run_with_a_clear_error(workplace, whole, overrides, message) -> None:
    refused = workplace.refuse("wrong-" + overrides[0].split("=")[0], *overrides)
    assert refused.returncode in (1, 2)
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr


def test_eval_of_a_folder_that_is_no_model(workplace) -> None:
    refused = rayzero_here("eval", str(workplace.folder))
    assert refused.returncode == 1 and "is not a model: it has no config.json" in refused.stderr
