"""Supervised training: the loop, its plan and cache, and what stops it before Ray starts."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.command import refuse_other_command
from orchestrator.config.recipe import ConfigError, load
from orchestrator.interrupt import Interrupt
from orchestrator.records.checkpoints import Checkpoint
from orchestrator.records.run_directory import RunDirectoryError
from orchestrator.sft import SupervisedCommand, plan, run_supervised
from orchestrator.warm_start import fit, prepare_warm_start
from rollout.supervised.pairs import PairError, digest_of_file
from tests.support.run_directories import data_of
from tests.support.sums import RECIPE, write_pairs


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "sums.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pairs(tmp_path)


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

    num_left_out = 0

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

    def refuse(**_):
        raise AssertionError("Ray was started")

    monkeypatch.setattr("orchestrator.command.ray_cluster", refuse)
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("overrides", "lines", "message"),
    [
        (["warm_start.data=nowhere.jsonl"], [], r"'nowhere\.jsonl': no such file"),
        ([], ['{"prompt": "1 + 1 = ", "completion": "2"', ""], r"line 1 is not JSON"),
        ([], ['{"promt": "1 + 1 = ", "completion": "2"}'], r"line 1 has no 'prompt', but 'promt'"),
        (["learner.max_tokens_per_microbatch=5"], [], r"line 1 has 6 tokens, above learner\.max_tokens_per.* = 5"),
        (["model.build.max_position_embeddings=5"], [], r"line 1 .*model\.build\.max_position_embeddings = 5: raise"),
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


def test_missing_data_is_told_before_a_model_is_looked_for(recipe, data, no_ray) -> None:
    """Which may have to come from the hub."""
    data.unlink()
    config = load("sft", [f"warm_start.data={data}", f"runs_dir={data.parent / 'runs'}"], supervised_only=True)
    with pytest.raises(PairError, match="no such file"):
        run_supervised(config, Console(quiet=True))


def test_nothing_to_train_is_said(recipe, data, no_ray) -> None:
    with pytest.raises(ConfigError, match=r"warm_start\.num_steps = 0"):
        run_supervised(settings(recipe, data, "warm_start.num_steps=0"), Console(quiet=True))


def test_sampling_limits_do_not_stop_a_training_that_samples_nothing(recipe, data) -> None:
    overrides = [f"warm_start.data={data}", "prompts.chat=true"]
    assert load(str(recipe), overrides, supervised_only=True).learner.max_tokens_per_microbatch == 32
    with pytest.raises(ConfigError, match="max_completion_tokens"):
        load(str(recipe), overrides)


def test_settings_for_a_policy_from_nothing_teach_no_pretrained_one_by_accident() -> None:
    loaded = ["warm_start.num_steps=3"]
    with pytest.raises(ConfigError, match=r"with model\.path.*set warm_start\.data to a JSONL file"):
        load("countdown-4090", loaded)
    assert load("countdown-4090", [*loaded, "warm_start.data=pairs.jsonl"]).warm_start.data == "pairs.jsonl"
    traces = ["prompts.countdown.source=generated", "prompts.countdown.numbers_per_problem=3"]
    assert load("countdown-4090", [*loaded, *traces, "warm_start.pretrained=true"]).warm_start.data is None


def test_a_warm_start_is_cached_by_what_its_data_holds(recipe, data, tmp_path, monkeypatch) -> None:
    from orchestrator.base_model import base_model, load_tokenizer, warm_start_folder
    from rollout.prompts.mixture import Mixture

    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    config = settings(recipe, data)
    base = base_model(config)
    tokenizer = load_tokenizer(base)
    questions = Mixture(config.prompts).questions
    warm_start = prepare_warm_start(config, base, tokenizer, questions)
    assert len(warm_start.examples.take(100)) == 100
    folder = warm_start_folder(config)
    assert warm_start.folder == folder
    folder.mkdir()
    assert prepare_warm_start(config, base, tokenizer, questions).examples is None
    moved = data.rename(tmp_path / "moved.jsonl")
    assert warm_start_folder(settings(recipe, moved)) == folder
    moved.write_text(moved.read_text().replace("18", "17"))
    assert warm_start_folder(settings(recipe, moved)) != folder


def test_a_warm_start_that_leaves_out_other_pairs_is_another(recipe, tmp_path, monkeypatch) -> None:
    from orchestrator.base_model import base_model, load_tokenizer
    from rollout.prompts.mixture import Mixture

    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "sums.jsonl"
    rows = [{"question": f"{n} + {n} = ", "answer": f"{2 * n}"} for n in range(9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"prompt": row["question"], "completion": row["answer"]}) + "\n" for row in rows)
    )
    asked = ["prompts.task=jsonl", f"prompts.jsonl.source={file}", "prompts.jsonl.reward=gsm8k"]

    def warm_start(*overrides):
        config = settings(recipe, pairs, *asked, *overrides)
        base = base_model(config)
        return prepare_warm_start(config, base, load_tokenizer(base), Mixture(config.prompts).questions)

    found = [warm_start("prompts.num_held_out=4", f"prompts.seed={seed}") for seed in (0, 1)]
    assert [each.examples.num_left_out for each in found] == [4, 4] and found[0].folder != found[1].folder


def test_sft_leaves_out_what_the_recipe_holds_out(recipe, data, tmp_path, caplog) -> None:
    from orchestrator.sft import held_out_problems, state_format

    assert held_out_problems(load("sft", [], supervised_only=True)) is None  # it asks nothing
    assert len(held_out_problems(load("countdown-tiny")).held_out) == 256
    assert state_format(None) == 2
    assert state_format(Checkpoint(4, Path("step_000004"), {"supervised": {"position": 20}})) == 1


def test_pairs_that_changed_are_not_resumed_from_unless_told(recipe, data, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))

    def prepared(latest: Checkpoint | None, *overrides: str) -> SupervisedCommand:
        command = SupervisedCommand(settings(recipe, data, "name=one", *overrides), Console(quiet=True))
        command.prepare(latest)
        return command

    first = prepared(None)
    first.fingerprints.write(first.directory.open().path)
    resumed = Checkpoint(4, tmp_path, {"supervised": {"format": 1, "position": 20}}, first.fingerprints.summary())
    prepared(resumed)
    old = Checkpoint(4, tmp_path, {"supervised": {"position": 20, "data": digest_of_file(str(data))}})
    prepared(old)
    lines = data.read_text().splitlines(keepends=True)
    data.write_text("".join(lines[1:]))
    with pytest.raises(RunDirectoryError, match=r"warm_start\.data .* had 100 rows and has 99: 1 removed"):
        prepared(resumed)
    with pytest.raises(RunDirectoryError, match=r"(?s)other pairs than it was started with.*warm_start\.data"):
        prepared(old)
    for latest in (resumed, old):
        prepared(latest, "checkpoint.allow_changes=true")


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


def test_a_run_writes_its_report_at_its_end(recipe, data, capsys) -> None:
    command = SupervisedCommand(settings(recipe, data, "name=reported"), Console(width=200))
    directory = command.directory.open()
    for step in range(1, 41):
        directory.log_metrics(step, {"optim/loss": 1 / step, "time/step_s": 1.0})
    directory.final.mkdir()
    command.report(seconds=40.0)
    assert "next to report.html, metrics.jsonl and log.txt" in capsys.readouterr().out
    summary = data_of(directory.path / "report.html")["runs"][0]["summary"]
    assert (summary["command"], summary["state"], summary["steps"]) == ("sft", "complete", [40, 40])
