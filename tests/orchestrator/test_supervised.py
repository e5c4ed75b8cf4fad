"""`rayzero sft`: the loop, what stops it before Ray starts, and whole runs as a user starts, kills and resumes them."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.artifacts import RunDirectoryError
from orchestrator.checkpoints import Checkpoint
from orchestrator.interrupt import Interrupt
from orchestrator.recipes import ConfigError, load
from orchestrator.sft import plan, refuse_other_command, run_supervised
from orchestrator.supervised import fit, warm_start_examples
from rollout.prompts.pairs import PairError

RECIPE = """
num_steps = 0
prompts_per_step = 1
group_size = 2

[model]
dtype = "float32"

[model.build]
hidden_size = 32
num_layers = 1
num_heads = 1
num_kv_heads = 1
intermediate_size = 64
max_position_embeddings = 24
max_integer = 20
words = [" + ", " = "]

[warm_start]
num_steps = 40
sequences_per_step = 5
learning_rate = 1e-2

[learner]
num_ranks = 1
max_tokens_per_microbatch = 32

[checkpoint]
every_steps = 4

[placement]
mode = "cpu"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "sums.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pairs(tmp_path)


def write_pairs(folder: Path) -> Path:
    """Sums up to 9 + 9: a hundred pairs."""
    file = folder / "pairs.jsonl"
    pairs = [{"prompt": f"{a} + {b} = ", "completion": f"{a + b}"} for a in range(10) for b in range(10)]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return file


def settings(recipe: Path, data: Path, *overrides: str):
    where = [f"runs_dir={recipe.parent / 'runs'}", f"warm_start.data={data}"]
    return load(str(recipe), [*where, *overrides], supervised_only=True)


class CountingLearner:
    """Notes what it is taught; asks to leave after a step."""

    def __init__(self, leave_after: int | None = None) -> None:
        self.interrupt = Interrupt(Console(quiet=True))
        self.taught: list = []
        self._leave_after = leave_after

    def supervised_update(self, step, examples):
        self.taught += examples
        self.interrupt.requested = step == self._leave_after
        return {"optim/loss": 1.0}


class Count:
    """The numbers from 0."""

    def __init__(self) -> None:
        self.position = 0

    def take(self, count):
        self.position += count
        return list(range(self.position - count, self.position))


def test_the_loop_teaches_every_example_once_and_says_when_it_leaves(recipe, data) -> None:
    warm = settings(recipe, data, "warm_start.num_steps=3").warm_start
    learner, steps = CountingLearner(), []
    last = fit(learner, Count(), warm, learner.interrupt, lambda step, metrics, leaving: steps.append((step, leaving)))
    assert last == 3 and learner.taught == list(range(15))
    assert steps == [(1, False), (2, False), (3, True)]


def test_an_interrupted_loop_finishes_its_step_and_a_resumed_one_goes_on_after_it(recipe, data) -> None:
    warm = settings(recipe, data, "warm_start.num_steps=3").warm_start
    learner, steps, examples = CountingLearner(leave_after=2), [], Count()

    def note(step, metrics, leaving):
        steps.append((step, leaving))

    assert fit(learner, examples, warm, learner.interrupt, note) == 2
    learner = CountingLearner()
    assert fit(learner, examples, warm, learner.interrupt, note, last_step=2) == 3
    assert steps == [(1, False), (2, True), (3, True)] and learner.taught == list(range(10, 15))


@pytest.fixture
def no_ray(monkeypatch, tmp_path):
    """Wrong input must be told before a cluster is started."""

    def refuse(config):
        raise AssertionError("Ray was started")

    monkeypatch.setattr("orchestrator.sft.ray_cluster", refuse)
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("overrides", "lines", "message"),
    [
        (["warm_start.data=nowhere.jsonl"], [], r"'nowhere\.jsonl': no such file"),
        ([], ['{"prompt": "1 + 1 = ", "completion": "2"', ""], r"line 1 is not JSON"),
        ([], ['{"promt": "1 + 1 = ", "completion": "2"}'], r"line 1 has no 'prompt', but 'promt'"),
        (["learner.max_tokens_per_microbatch=5"], [], r"line 1 has 6 tokens, above learner\.max_tokens_per_microbatch = 5"),
        (["model.build.max_position_embeddings=5"], [], r"line 1 .*model\.build\.max_position_embeddings = 5: raise it"),
        (["model.build.max_integer=17"], [], r"line 100.*cannot encode '18'.*model\.build\.max_integer"),
    ],
)  # fmt: skip
def test_wrong_pairs_are_told_before_ray_starts(recipe, data, tmp_path, no_ray, overrides, lines, message) -> None:
    if lines:
        data.write_text("\n".join(lines))
    with pytest.raises((PairError, ValueError), match=message):
        run_supervised(settings(recipe, data, *overrides), Console(quiet=True))
    assert not (tmp_path / "runs").exists()  # the next attempt, with the key raised, is not one of other settings


def test_a_pair_longer_than_a_loaded_models_context_is_refused(tiny_model, recipe, tmp_path, no_ray) -> None:
    text = RECIPE[: RECIPE.index("[model.build]")] + RECIPE[RECIPE.index("[warm_start]") :]
    (tmp_path / "loaded.toml").write_text(text.replace("[model]", f'[model]\npath = "{tiny_model}"'))
    data = tmp_path / "long.jsonl"
    data.write_text(json.dumps({"prompt": "<think>" * 300, "completion": "1" + " 1" * 300}))
    config = settings(tmp_path / "loaded.toml", data, "learner.max_tokens_per_microbatch=4096")
    with pytest.raises(
        PairError, match=r"line 1 has 902 tokens, above the model's max_position_embeddings = 512: shorten"
    ):
        run_supervised(config, Console(quiet=True))


def test_nothing_to_train_is_said(recipe, data, no_ray) -> None:
    with pytest.raises(ConfigError, match=r"warm_start\.num_steps = 0"):
        run_supervised(settings(recipe, data, "warm_start.num_steps=0"), Console(quiet=True))


def test_sampling_limits_do_not_stop_a_training_that_samples_nothing(recipe, data) -> None:
    overrides = [f"warm_start.data={data}", "prompts.chat=true"]
    assert load(str(recipe), overrides, supervised_only=True).learner.max_tokens_per_microbatch == 32
    with pytest.raises(ConfigError, match="max_completion_tokens"):
        load(str(recipe), overrides)


def test_a_loaded_model_is_warm_started_on_data_only() -> None:
    loaded = ["warm_start.num_steps=3"]
    with pytest.raises(ConfigError, match=r"with model\.path.*set warm_start\.data to a JSONL file"):
        load("countdown-4090", loaded)
    assert load("countdown-4090", [*loaded, "warm_start.data=pairs.jsonl"]).warm_start.data == "pairs.jsonl"


def test_a_warm_start_is_cached_by_what_its_data_holds(recipe, data, tmp_path, monkeypatch) -> None:
    from orchestrator.policy import base_model, load_tokenizer, warm_start_folder

    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    config = settings(recipe, data)
    base = base_model(config)
    tokenizer = load_tokenizer(base)
    assert len(warm_start_examples(config, base, tokenizer)) == 100
    folder = warm_start_folder(config)
    folder.mkdir()
    assert warm_start_examples(config, base, tokenizer) is None
    moved = data.rename(tmp_path / "moved.jsonl")
    assert warm_start_folder(settings(recipe, moved)) == folder
    moved.write_text(moved.read_text().replace("18", "17"))
    assert warm_start_folder(settings(recipe, moved)) != folder


def test_train_and_sft_do_not_resume_each_others_runs(recipe, data) -> None:
    config = settings(recipe, data, "name=shared")
    refuse_other_command(config, None, "sft")
    supervised = Checkpoint(4, Path("step_000004"), {"supervised": {"position": 20}})
    trained = Checkpoint(4, Path("step_000004"), {"position": 20})
    refuse_other_command(config, supervised, "sft")
    refuse_other_command(config, trained, "train")
    with pytest.raises(RunDirectoryError, match=r"one of `rayzero train`: choose another name \(name=shared-sft\)"):
        refuse_other_command(config, trained, "sft")
    with pytest.raises(RunDirectoryError, match="one of `rayzero sft`"):
        refuse_other_command(config, supervised, "train")


def test_the_plan_says_what_is_trained_on_what(recipe, data) -> None:
    rows = dict(plan(settings(recipe, data)))
    assert rows["examples"] == str(data) and "40 optimizer steps × 5 examples" in rows["batch"]
    assert rows["trains"] == "all the weights"
    assert "rank 4" in dict(plan(settings(recipe, data, "model.lora={rank = 4}")))["trains"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "sums.toml").write_text(RECIPE)
    write_pairs(folder)
    return folder


def start(workplace: Path, name: str, *overrides: str) -> subprocess.Popen:
    where = [f"runs_dir={workplace / 'runs'}", f"name={name}", f"warm_start.data={workplace / 'pairs.jsonl'}"]
    command = [sys.executable, "-m", "orchestrator.cli", "sft", str(workplace / "sums.toml"), *where, *overrides]
    environment = os.environ | {"RAYZERO_CACHE": str(workplace / "cache")}
    with (workplace / f"{name}.out").open("w") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)


def finish(workplace: Path, name: str, *overrides: str) -> str:
    process = start(workplace, name, *overrides)
    assert process.wait(timeout=300) == 0, (workplace / f"{name}.out").read_text()
    return (workplace / f"{name}.out").read_text()


def metrics(workplace: Path, name: str) -> list[dict]:
    file = workplace / "runs" / name / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.exists() else []
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


def stop_after(workplace: Path, name: str, step: int, number: signal.Signals, *overrides: str) -> int:
    process = start(workplace, name, *overrides)
    deadline = time.monotonic() + 240
    while not any(line["step"] >= step for line in metrics(workplace, name)):
        assert process.poll() is None and time.monotonic() < deadline, (workplace / f"{name}.out").read_text()
        time.sleep(0.01)
    process.send_signal(number)
    return process.wait(timeout=120)


def weights_digest(workplace: Path, name: str) -> str:
    return hashlib.sha256((workplace / "runs" / name / "final" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(workplace: Path) -> str:
    """A run that nobody disturbs."""
    return finish(workplace, "whole")


@pytest.mark.slow
def test_a_run_learns_its_pairs_and_leaves_what_the_readme_says(workplace, whole) -> None:
    run = workplace / "runs" / "whole"
    lines = metrics(workplace, "whole")
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert lines[-1]["optim/loss"] < 0.8 * lines[0]["optim/loss"]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step_000036", "step_000040"]
    assert (run / "config.json").exists() and (run / "log.txt").exists()
    assert "100 pairs" in whole and "sft 40/40  loss" in whole
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(run / "final").config.vocab_size == 25


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(workplace, whole) -> None:
    assert stop_after(workplace, "killed", 10, signal.SIGKILL) == -signal.SIGKILL
    assert "resuming run 'killed' after step" in finish(workplace, "killed")
    assert metrics(workplace, "killed") == metrics(workplace, "whole")
    assert weights_digest(workplace, "killed") == weights_digest(workplace, "whole")


@pytest.mark.slow
def test_sigterm_saves_leaves_and_resumes_bit_for_bit(workplace, whole) -> None:
    assert stop_after(workplace, "asked", 6, signal.SIGTERM, "checkpoint.every_steps=1000") == 130
    assert "left cleanly" in (workplace / "asked.out").read_text()
    assert len(metrics(workplace, "asked")) < 40
    finish(workplace, "asked", "checkpoint.every_steps=1000")
    assert metrics(workplace, "asked") == metrics(workplace, "whole")
    assert weights_digest(workplace, "asked") == weights_digest(workplace, "whole")


@pytest.mark.slow
def test_a_finished_run_is_left_alone_and_says_how_to_train_on(workplace, whole) -> None:
    before = weights_digest(workplace, "whole")
    again = finish(workplace, "whole")
    assert "is complete at step 40" in again and "name=whole-2" in again
    assert weights_digest(workplace, "whole") == before
