"""Every problem is looked at before a run starts; what cannot be used is named, or left out on request."""

import json
import logging
import re
from pathlib import Path

import pytest

from orchestrator import inspection
from orchestrator.base_model import load_tokenizer
from orchestrator.config.recipe import ConfigError, load
from orchestrator.inspection import BadRowsError, Inspection, leave_out_bad_rows, record_left_out
from rollout.prompts.config import PromptsConfig
from rollout.prompts.mixture import Mixture
from rollout.prompts.stream import PromptStream
from tests.support.byte_tokenizer import Bytes
from tests.support.chatml_tokenizer import tokenizer

GOOD = [{"question": f"How many is {n} and 1?", "answer": str(n + 1)} for n in range(20)]
BAD = {
    3: ({"question": "How many?", "answer": ""}, "column 'answer' is empty"),
    5: ({"question": "Why?", "answer": "because"}, "must be one number"),
    8: ({"question": "How many is " + "1 and " * 100 + "1?", "answer": "101"}, "above prompts.max_prompt_tokens = 150"),
    12: ({"answer": "7"}, "no column 'question'"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(tmp_path: Path, rows: list[dict], **changes: str):
    file, recipe = tmp_path / "rows.jsonl", tmp_path / "recipe.toml"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe.write_text(
        'name = "bad"\nnum_steps = 1\nprompts_per_step = 4\ngroup_size = 2\n[model]\npath = "none"\n'
        '[prompts]\ntask = "jsonl"\nchat = false\nnum_held_out = 4\nmax_prompt_tokens = 150\n'
        f'template = "{{question}} Say <answer>."\n[prompts.jsonl]\nsource = "{file}"\nreward = "gsm8k"\n'
    )
    return load(str(recipe), [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])


def with_bad_rows() -> list[dict]:
    rows = [*GOOD]
    for position, (row, _) in BAD.items():
        rows[position] = row
    return rows


def test_one_report_names_every_bad_row_and_nothing_starts(tmp_path) -> None:
    config = recipe(tmp_path, with_bad_rows())
    with pytest.raises(BadRowsError) as raised:
        leave_out_bad_rows(config, Mixture(config.prompts), Bytes())
    said = str(raised.value)
    assert "4 rows of jsonl cannot be used" in said and "prompts.on_bad_rows=drop" in said
    for position, (_, reason) in BAD.items():
        (line,) = [line for line in said.splitlines() if f"rows.jsonl, line {position + 1}:" in line]
        assert reason in line


def test_dropped_rows_are_counted_recorded_and_never_asked(tmp_path, caplog) -> None:
    config = recipe(tmp_path, with_bad_rows(), prompts__on_bad_rows="drop")
    problems = Mixture(config.prompts)
    found = leave_out_bad_rows(config, problems, Bytes())
    assert len(found) == 4 and "4 rows of jsonl cannot be used" in caplog.text
    stream = PromptStream(config.prompts, Bytes(), problems)
    asked = [prompt.answer["answer"] for prompt in stream.take(60)] + [p.answer["answer"] for p in stream.held_out()]
    assert {int(answer) for answer in asked} == {n + 1 for n in range(20) if n not in BAD}

    file = tmp_path / "left_out_rows.jsonl"
    record_left_out(found, file)
    assert len(file.read_text().splitlines()) == 4


def test_a_resume_that_drops_other_rows_says_so(tmp_path, caplog) -> None:
    file = tmp_path / "left_out_rows.jsonl"
    record_left_out([], file)
    assert not file.exists()
    for limit in ("150", "1000", "1000"):
        config = recipe(tmp_path, with_bad_rows(), prompts__on_bad_rows="drop", prompts__max_prompt_tokens=limit)
        caplog.clear()
        record_left_out(leave_out_bad_rows(config, Mixture(config.prompts), Bytes()), file)
        changed = "left out than before: 0 that were used before, while 1 that were left out are used again"
        assert (changed in caplog.text) == (file.with_suffix(".seen").exists() is False and limit == "1000")
        if limit == "1000":
            file.with_suffix(".seen").touch()
    assert len(file.read_text().splitlines()) == 3


def test_good_rows_are_all_asked_and_nothing_is_said(tmp_path, caplog) -> None:
    config = recipe(tmp_path, GOOD)
    with caplog.at_level(logging.WARNING):
        assert leave_out_bad_rows(config, Mixture(config.prompts), Bytes()) == []
    assert not caplog.text


@pytest.mark.parametrize("chat", ["true", "false"])
def test_rows_in_the_words_of_a_chat_template_are_warned_of_where_it_is_written_again(tmp_path, caplog, chat) -> None:
    rows = [{"question": f"<|im_start|>user\n{n}?<|im_end|>", "answer": "1"} if n > 7 else GOOD[n] for n in range(20)]
    config = recipe(tmp_path, rows, prompts__chat=chat)
    assert leave_out_bad_rows(config, Mixture(config.prompts), tokenizer()) == []
    said = r"jsonl: 12 rows hold special tokens, such as <\|im_start\|> in .*rows\.jsonl, line 9, and .*chat = false if"
    assert bool(re.search(said, caplog.text)) == (chat == "true") == bool(caplog.text)


def test_a_rubric_that_shows_what_no_answer_has_is_refused_by_its_key_before_anything_starts(tmp_path) -> None:
    judge = 'rewards__judges={"clear" = {"model" = "m", "rubric" = "Like %s?"}}'
    config = recipe(tmp_path, GOOD, **dict([(judge % "{nothing}").split("=", 1)]))
    says = r"rewards\.judges\.clear\.rubric shows \{nothing\}, which no answer of jsonl has: it has answer\. Show"
    with pytest.raises(ConfigError, match=says):
        leave_out_bad_rows(config, Mixture(config.prompts), Bytes())
    config = recipe(tmp_path, GOOD, **dict([(judge % "{answer}").split("=", 1)]))
    assert leave_out_bad_rows(config, Mixture(config.prompts), Bytes()) == []


def test_where_every_row_is_bad_nothing_is_left_to_drop(tmp_path) -> None:
    config = recipe(tmp_path, GOOD, prompts__on_bad_rows="drop", prompts__max_prompt_tokens="10")
    with pytest.raises(BadRowsError, match=r"and 10 more\nNo problem of jsonl is left to train on"):
        leave_out_bad_rows(config, Mixture(config.prompts), Bytes())


def test_a_drawn_problem_whose_reference_cannot_be_matched_is_drawn_again() -> None:
    config = PromptsConfig(task="word_problems", chat=False, max_prompt_tokens=1000, num_held_out=4)
    plain = PromptStream(config, Bytes()).take(40)
    refused = {prompt.key for prompt in plain[::2]}

    def check(answer):
        return "no" if any(p.answer == dict(answer) for p in plain[::2]) else None

    checked = PromptStream(config, Bytes(), checks={config.name: check}).take(40)
    assert refused and not refused & {prompt.key for prompt in checked}
    assert plain[1].key == checked[0].key


def test_what_was_found_is_kept_and_found_again_only_for_the_same_rows_and_settings(
    tmp_path, cache, monkeypatch, tiny_model, caplog
) -> None:
    monkeypatch.setattr(inspection, "MIN_CACHED", 1)
    rows = [{"question": f"Numbers: {n}\n", "answer": str(n)} for n in range(1, 15)]
    looks: list[int] = []
    listed = Inspection._listed
    monkeypatch.setattr(
        Inspection,
        "_listed",
        lambda self, entry, problems, formats: looks.append(1) or listed(self, entry, problems, formats),
    )

    def look(rows: list[dict], **changes: str) -> int:
        looks.clear()
        config = recipe(tmp_path, rows, prompts__on_bad_rows="drop", prompts__template="{question}", **changes)
        found = leave_out_bad_rows(config, Mixture(config.prompts), load_tokenizer(str(tiny_model)))
        assert len(found) == (rows[0]["answer"] == "none")
        return len(looks)

    cache.write_text("in the way of the folder")
    assert look(rows) == look(rows) == 2
    assert "cannot be written to" in caplog.text
    cache.unlink()
    assert look(rows) == 2 and look(rows) == 0
    assert look(rows, prompts__max_prompt_tokens="140") == 2
    assert look([rows[0] | {"answer": "none"}, *rows[1:]]) == 2
    assert look([rows[0] | {"answer": "none"}, *rows[1:]]) == 0
