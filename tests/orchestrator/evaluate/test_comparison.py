"""Models side by side: who is compared, the table, the JSON, and what is refused before anything starts."""

import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from orchestrator.base_model import PolicyError, check_context, max_positions
from orchestrator.config.recipe import ConfigError, load
from orchestrator.evaluate import comparison
from orchestrator.evaluate.comparison import ModelResult, compare, compare_pass_at_1, prompts_of, with_room_for
from orchestrator.evaluate.evaluation import summarize
from orchestrator.evaluate.models import NamedModel, config_for, config_for_all, named_models, tokenizer_of
from orchestrator.report.comparison_file import comparison_file, write_comparison
from orchestrator.report.tables import print_comparison
from tests.orchestrator.evaluate.test_evaluation import labelled, paid
from tests.support.groups import scored_group
from tests.support.paths import WARM_START


def evaluation(rights, greedy=True):
    """Of two kinds of prompts with four completions each, so many of which are right."""
    groups = [
        labelled(scored_group(str(i), [True] * right + [False] * (4 - right)), "2 numbers" if i % 2 else "10 numbers")
        for i, right in enumerate(rights)
    ]
    return summarize(groups, [scored_group(str(i), [right > 2]) for i, right in enumerate(rights)], (1, 4))


@pytest.fixture
def results():
    base, trained = evaluation([0, 1, 2, 1, 0, 4]), evaluation([2, 3, 3, 2, 1, 4])
    return [
        ModelResult(NamedModel("base", "org/base"), "zero_shot", base, None),
        ModelResult(NamedModel("trained", "runs/x/final"), "zero_shot", trained, compare_pass_at_1(trained, base)),
    ]


def printed(results, config) -> str:
    console = Console(record=True, width=160, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_comparison(results, config, console)
    return console.export_text()


def test_the_table_has_every_model_its_intervals_and_the_paired_difference(results) -> None:
    text = printed(results, load(None))
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for line in text.splitlines()
        if len(cells := line.split("│")) > 3
    }
    assert rows["pass@1 (sampled)"][0].startswith("33.3% [") and rows["pass@1 (sampled)"][1].startswith("62.5% [")
    assert rows["pass@4 (sampled)"][1].startswith("100.0% [")
    # 2 2 1 1 1 0 more right completions of 24; 2 of 32 choices of signs are as far from 0.
    assert rows["pass@1 minus base's, points"][1].startswith("+29.2 [")
    assert rows["p-value"] == ["", f"{2 / 32:.4f}"]
    assert {"pass@1 (greedy)", "well-formed answers", "right ones", "wrong ones", "shows verification"} <= set(rows)
    assert rows["2 numbers (3)"][0].startswith("50.0%") and rows["10 numbers (3)"][0].startswith("16.7%")
    assert text.index("2 numbers (3)") < text.index("10 numbers (3)")
    assert "pass@1 by source" not in text  # there is but one
    assert "Training base, zero_shot: trainable." in text and "This can be trained" in text


def test_a_right_and_a_wrong_completion_of_each_model_are_shown(results) -> None:
    text = printed(results, load(None))
    assert text.count("reward 1 ") == text.count("reward 0.1 ") == 2


def test_a_task_without_right_answers_has_neither_accuracy_nor_verdict() -> None:
    paying = summarize([paid("a", 1.0, 3.0), paid("b", 2.0, 2.0)])
    text = printed([ModelResult(NamedModel("one", "one"), "zero_shot", paying, None)], load("period-count-tiny"))
    assert "mean reward" in text and "pass@" not in text and "Training" not in text and "p-value" not in text


def test_escape_sequences_of_a_model_do_not_reach_the_terminal() -> None:
    hostile = summarize([scored_group("a", [True, False], text="\x1b]0;owned\x07 [red]no markup[/red]")])
    text = printed([ModelResult(NamedModel("one", "one"), "zero_shot", hostile, None)], load(None))
    assert "\x1b" not in text and "[red]no markup[/red]" in text


def test_the_json_holds_the_figures_and_what_they_were_computed_from(results, tmp_path) -> None:
    file = tmp_path / "new" / "comparison.json"
    write_comparison(results, load(None), comparison_file(str(file), load(None)))
    content = json.loads(file.read_text())
    assert content["models"] == {"base": "org/base", "trained": "runs/x/final"}
    trained = content["results"][1]
    rights = [[done["parts"]["correctness"] for done in prompt["completions"]] for prompt in trained["prompts"]]
    assert trained["figures"]["pass_at_1"]["mean"] == pytest.approx(sum(map(sum, rights)) / 24)
    assert trained["difference"]["mean"] == pytest.approx(7 / 24)
    assert trained["by_difficulty"]["2 numbers"]["num_prompts"] == 3
    assert trained["trainability"]["verdict"] == "trainable"
    assert content["config"]["group_size"] == 8


def test_what_is_not_known_is_null_in_the_json(tmp_path) -> None:
    one = summarize([paid("a", 1.0)])
    file = tmp_path / "one.json"
    write_comparison([ModelResult(NamedModel("one", "one"), "zero_shot", one, None)], load(None), file)
    figures = json.loads(file.read_text(), parse_constant=pytest.fail)["results"][0]["figures"]
    assert figures["reward"] == {"mean": 1.0, "low": None, "high": None}
    assert figures["format_rate"] is None


def test_models_are_called_as_given_else_as_their_run_or_repository() -> None:
    given = ["base:Qwen/Qwen2.5-0.5B", "runs/countdown/final", "Qwen/Qwen3-1.7B"]
    assert named_models(given) == [
        NamedModel("base", "Qwen/Qwen2.5-0.5B"),
        NamedModel("countdown", "runs/countdown/final"),
        NamedModel("Qwen3-1.7B", "Qwen/Qwen3-1.7B"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a:x", "a:y"], "2 models would be called 'a': write name:path"),
        (["a/final", "a/final"], "2 models would be called 'a'"),
        ([":x"], "write name:path"),
        (["a:"], "write name:path"),
    ],
)
def test_models_that_cannot_be_told_apart_are_refused(given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        named_models(given)


def run_folder(folder: Path, *overrides: str) -> str:
    (folder / "final").mkdir(parents=True)
    (folder / "config.json").write_text(load(None, [f"name={folder.name}", *overrides]).model_dump_json())
    return str(folder / "final")


def test_a_model_is_asked_as_its_own_run_asked_it(tmp_path) -> None:
    final = run_folder(tmp_path / "mine", "sampling.temperature=0.9")
    found = config_for(final, None, ["prompts.num_held_out=16"])
    assert (found.name, found.sampling.temperature, found.prompts.num_held_out) == ("mine", 0.9, 16)
    assert config_for(final, "countdown-tiny", []).sampling.temperature == 1.0


def test_a_base_model_is_asked_as_the_trained_ones_run_asked(tmp_path) -> None:
    final = run_folder(tmp_path / "mine", "prompts.num_held_out=7")
    models = [NamedModel("base", "Qwen/Qwen2.5-0.5B"), NamedModel("trained", final)]
    assert config_for_all(models, None, []).prompts.num_held_out == 7
    assert config_for_all(models, "countdown-tiny", []).prompts.num_held_out == 256


def test_runs_that_asked_differently_need_a_recipe(tmp_path) -> None:
    models = [
        NamedModel("one", run_folder(tmp_path / "one", "learner.learning_rate=1e-3")),
        NamedModel("two", run_folder(tmp_path / "two")),
        NamedModel("three", run_folder(tmp_path / "three", "prompts.num_held_out=9")),
    ]
    assert config_for_all(models[:2], None, []).name == "one"
    with pytest.raises(ConfigError, match=r"one and three come from runs whose \[prompts\] settings differ.*--recipe"):
        config_for_all(models, None, [])
    assert config_for_all(models, None, ["prompts.num_held_out=5"]).prompts.num_held_out == 5


def test_a_model_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(PolicyError, match="does not exist"):
        tokenizer_of(str(tmp_path / "nothing"))
    with pytest.raises(PolicyError, match=r"has no config\.json"):
        tokenizer_of(str(tmp_path))
    with pytest.raises(PolicyError, match="'org/not-here' is no folder here, and its tokenizer cannot be loaded"):
        tokenizer_of("org/not-here")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['prompts.natural_template="Make {target} of {numbers}, please"'], "in the format natural: .* cannot encode"),
        (["evaluation.num_prompts=999"], "999, but 256 problems are held out"),
    ],
)
def test_a_format_that_the_model_cannot_read_is_refused_before_anything_starts(overrides, message) -> None:
    formats = 'evaluation.formats=["zero_shot", "one_shot", "natural"]'
    with pytest.raises(ConfigError, match=message):
        prompts_of(NamedModel("warm", str(WARM_START)), load(None, [formats, *overrides]))


def test_every_format_asks_the_same_problems_in_its_own_words() -> None:
    config = load(None, ['evaluation.formats=["natural", "one_shot"]', "evaluation.num_prompts=4"])
    found = prompts_of(NamedModel("warm", str(WARM_START)), config)
    assert list(found) == ["natural", "one_shot"]
    assert [prompt.key for prompt in found["natural"]] == [prompt.key for prompt in found["one_shot"]]
    assert found["one_shot"][0].text.endswith(found["natural"][0].text + "<think>")


def test_engines_have_room_for_the_longest_prompt_of_any_format() -> None:
    """A run reserves what its own format needs; the worked example of another is longer."""
    config = load(None, ['evaluation.formats=["natural", "one_shot"]', "prompts.max_prompt_tokens=20"])
    asked = {"warm": prompts_of(NamedModel("warm", str(WARM_START)), config)}
    longest = max(len(prompt.token_ids) for prompt in asked["warm"]["one_shot"])
    assert longest > 20
    assert with_room_for(asked, config).max_model_len == longest + config.sampling.max_completion_tokens
    assert longest < load(None).prompts.max_prompt_tokens
    assert with_room_for(asked, load(None)) == load(None)


def test_what_the_model_has_no_positions_for_is_refused_before_a_cluster_is_started(monkeypatch) -> None:
    monkeypatch.setattr(comparison, "ray_cluster", lambda **_: pytest.fail("a cluster was started"))
    config = load(None, ["prompts.num_held_out=4", "evaluation.num_prompts=4"])
    warm = NamedModel("warm", str(WARM_START))
    asked = {"warm": prompts_of(warm, config)}
    too_long = config.sampling.model_copy(update={"max_completion_tokens": 500})
    config = config.model_copy(update={"sampling": too_long})
    refused = r"countdown-warm-start.*512 tokens.*sampling.max_completion_tokens = 500 take 564: lower sampling"
    with pytest.raises(PolicyError, match=refused):
        compare([warm], asked, config, Console(quiet=True))
    with pytest.raises(PolicyError, match=refused):
        check_context(config, str(WARM_START))
    check_context(load(None), str(WARM_START))


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("rope", "positions"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, 512),
        ({"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}, 2048),
        (LLAMA3, 512),
    ],
)
def test_positions_that_a_scaling_adds_count(tmp_path, rope, positions) -> None:
    settings = json.loads((WARM_START / "config.json").read_text())
    settings["rope_parameters"] = rope
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert max_positions(str(tmp_path)) == positions


def test_models_share_one_cluster_and_the_engines_of_one_end_before_the_next_begin(monkeypatch) -> None:
    events: list[str] = []

    class Fleet:
        rollouts = SimpleNamespace(
            collect=lambda request: [scored_group(prompt.id, [True] * request.group_size) for prompt in request.prompts]
        )

        def __init__(self, run, placement) -> None:
            self._model = Path(run.engine.model_folder).name
            events.append(f"start {self._model}")

        def wait_until_ready(self) -> None:
            events.append(f"ready {self._model}")

        def close(self) -> None:
            events.append(f"close {self._model}")

    @contextmanager
    def noted(name: str):
        events.append(f"enter {name}")
        yield SimpleNamespace(layout=SimpleNamespace(mode="cpu", generators=(0,), ranks=()), gpu_gib=None)
        events.append(f"leave {name}")

    monkeypatch.setattr(comparison, "check_context", lambda *_: None)  # there are no such models
    monkeypatch.setattr(comparison, "ray_cluster", lambda **_: noted("cluster"))
    monkeypatch.setattr(comparison.Placement, "of", lambda *_: noted("placement"))
    monkeypatch.setattr(comparison, "RolloutFleet", Fleet)
    models = [NamedModel("base", "/models/a"), NamedModel("trained", "/models/b")]
    config = load(None, ['evaluation.formats=["zero_shot", "natural"]', "evaluation.num_prompts=2"])
    warm = prompts_of(NamedModel("warm", str(WARM_START)), config)
    results = comparison.compare(models, dict.fromkeys(("base", "trained"), warm), config, Console(quiet=True))
    assert [(result.model.name, result.format) for result in results] == [
        (name, format) for name in ("base", "trained") for format in ("zero_shot", "natural")
    ]
    of_each = [
        ["enter placement", f"start {name}", f"ready {name}", f"close {name}", "leave placement"] for name in "ab"
    ]
    assert events == ["enter cluster", *of_each[0], *of_each[1], "leave cluster"]


def test_completions_that_got_no_mark_are_counted_and_shown_only_then(results) -> None:
    assert "could not be graded" not in printed(results, load(None))
    late = summarize([scored_group("a", [True, False], status="timeout"), scored_group("b", [True, False])])
    assert late.metrics()["eval/unmarked"] == 0.5
    shown = printed([ModelResult(NamedModel("late", "org/late"), "zero_shot", late, None)], load(None))
    (line,) = [line for line in shown.splitlines() if "could not be graded" in line]
    assert "50.0%" in line


def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written .*; name another file"):
        comparison_file(str(tmp_path / "file" / "x.json"), load(None))
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        comparison_file(str(tmp_path), load(None))
    config = replace_runs(load(None), tmp_path)
    assert comparison_file(None, config).parent == tmp_path / "evaluations"


def replace_runs(config, folder: Path):
    return config.model_copy(update={"runs_dir": str(folder)})


def test_the_baseline_is_compared_only_in_the_same_format(results) -> None:
    assert results[0].difference is None
    unmarked = summarize([paid("a", 1.0)])
    assert compare_pass_at_1(unmarked, unmarked) is None
