"""What the tokenizer of a real model brings: tokens that cut characters, a template with a system text, its ends."""

import json
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from learner.model.gguf import TEXT
from orchestrator.config.recipe import load
from orchestrator.records.files.strict_json import to_json
from rewards.parts.format import strict
from rewards.tasks.reasoning_gym import score
from rollout.engine.increments import REPLACEMENT, increments
from rollout.prompts.chat import assistant_opening
from rollout.prompts.config import PromptsConfig
from rollout.prompts.decoding import check_tags, completion_decoder, end_tokens
from rollout.prompts.stream import PromptStream
from rollout.prompts.template import Template
from rollout.supervised.pairs import Pair, encode_pairs
from rollout.tasks.base import Problem
from rollout.types.prompts import Prompt, PromptFormat
from tests.support.pretrained import END, END_ID, PADDING, PADDING_ID, gguf_file

CUT = "7 − 5 ≠ 3, 日本語 🦜 naïve ✓ <answer>2</answer>"
BUILT_IN = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
QUESTION = Problem(fields={"question": "Calculate 4 + 9."}, answer={"answer": "13"}, key="")
CHAT = {"task": "reasoning_gym", "template": "{question}", "natural_template": "{question}", "assistant_prefix": ""}


@pytest.fixture(scope="module")
def of() -> PreTrainedTokenizerBase:
    file = gguf_file()
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def tokens(of: PreTrainedTokenizerBase, text: str) -> list[int]:
    return of.encode(text, add_special_tokens=False)


def test_some_tokens_are_parts_of_characters(of) -> None:
    """Without such tokens the tests below would show nothing."""
    parts = [token for token in tokens(of, CUT) if REPLACEMENT in of.decode([token])]
    assert len(parts) >= 8 and of.decode(tokens(of, CUT)) == CUT and of.decode(tokens(of, TEXT)) == TEXT


def pieces(of: PreTrainedTokenizerBase, batches: Sequence[Sequence[int]]) -> list[str]:
    return list(increments(iter(batches), completion_decoder(of)))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_streamed_completion_shows_whole_characters_alone(of, size: int) -> None:
    ids = tokens(of, CUT)
    shown = pieces(of, [ids[start : start + size] for start in range(0, len(ids), size)])
    assert "".join(shown) == CUT and not [piece for piece in shown if REPLACEMENT in piece]


def test_a_completion_that_is_cut_within_a_character_is_graded_and_recorded(of) -> None:
    """At every length it may be cut off at: the text streamed is the text graded, and JSON keeps it."""
    decode, ids = completion_decoder(of), tokens(of, CUT)
    entry = {"answer": "2", "dataset": "basic_arithmetic", "settings": {}, "metadata": {}}
    broken = 0
    for length in range(1, len(ids) + 1):
        text = decode(np.array(ids[:length], dtype=np.int32))
        assert "".join(pieces(of, [[token] for token in ids[:length]])) == text
        assert json.loads(to_json({"completion": text}))["completion"] == text
        assert score(text, entry)["correctness"] == float(length == len(ids)) and strict(text, entry) == 0.0
        broken += text.endswith(REPLACEMENT)
    assert broken >= 8


def asked(of: PreTrainedTokenizerBase, format: PromptFormat = "zero_shot", **settings: object) -> Prompt:
    return Template(PromptsConfig(**{**CHAT, **settings}), of).prompt("train/000000", QUESTION, format)


@pytest.mark.parametrize(("given", "system"), [("", BUILT_IN), ("Be brief.", "Be brief.")])
def test_the_templates_system_text_is_there_once_and_gives_way_to_the_recipes(of, given: str, system: str) -> None:
    prompt = asked(of, system=given)
    assert prompt.text == (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nCalculate 4 + 9.<|im_end|>\n<|im_start|>assistant\n"
    )
    starts = [of.convert_ids_to_tokens(int(token)) for token in prompt.token_ids].count("<|im_start|>")
    assert starts == 3 and of.decode(prompt.token_ids) == prompt.text
    assert assistant_opening(of, given) == "" and prompt.assistant_prefix == ""


@pytest.mark.parametrize("format", ["zero_shot", "one_shot", "natural"])
def test_prompts_are_as_long_as_rows_are_said_to_be(of, format: PromptFormat) -> None:
    """The built-in system text counts: rows are looked at by their lengths before a run."""
    length = len(asked(of, format, max_prompt_tokens=1_000).token_ids)
    faults = [
        next(Template(PromptsConfig(**CHAT, max_prompt_tokens=limit), of).faults([QUESTION], format))
        for limit in (length, length - 1)
    ]
    assert faults[0] is None and f"has {length} tokens in the format {format}" in (faults[1] or "")


def test_tags_survive_and_ends_do_not(of) -> None:
    check_tags(of)
    text = "<think>4 + 9 = 13</think>\n<answer>13</answer>"
    decode = completion_decoder(of)
    ended = tokens(of, text + END + END)
    assert ended[-2:] == [END_ID, END_ID] and decode(np.array(ended, dtype=np.int32)) == text
    assert strict(decode(np.array(ended, dtype=np.int32)), {}) == 1.0


def test_a_padding_token_that_is_no_end_is_left_out_too(of) -> None:
    """The file pads with its end token; many models do not."""
    written = np.array(tokens(of, f"13{PADDING}{END}"), dtype=np.int32)
    assert list(written[-2:]) == [PADDING_ID, END_ID]
    assert of.pad_token == of.eos_token == END and end_tokens(of) == {END_ID}
    assert completion_decoder(of)(written) == f"13{PADDING}"  # the policy wrote it, and nothing stopped it there
    other = deepcopy(of)
    other.pad_token = PADDING
    assert end_tokens(other) == {END_ID, PADDING_ID}
    assert completion_decoder(other)(written) == "13"


def test_pairs_end_with_its_end_and_begin_where_the_prompt_ended(of) -> None:
    (bare, chat) = encode_pairs(
        [
            Pair("Question: Calculate 4 + 9.\nAnswer:", " 4 + 9 = 13", "line 1"),
            Pair([{"role": "user", "content": "Calculate 4 + 9."}], "13", "line 2"),
        ],
        of,
        [],
    )
    assert bare.completion_ids[-1] == chat.completion_ids[-1] == END_ID
    whole = np.concatenate([bare.prompt_ids, bare.completion_ids[:-1]])
    assert list(whole) == tokens(of, "Question: Calculate 4 + 9.\nAnswer: 4 + 9 = 13")
    assert BUILT_IN in of.decode(chat.prompt_ids) and of.decode(chat.completion_ids) == f"13{END}"


def test_the_recipes_prompts_are_as_long_as_it_says(of) -> None:
    """Its limit and its block of 32 tokens rest on that."""
    config = load("smollm2-135m")
    prompts = PromptStream(config.prompts, of).held_out()
    lengths = {len(prompt.token_ids) for prompt in prompts}
    assert len(prompts) == 128 and min(lengths) > 64 and max(lengths) <= config.prompts.max_prompt_tokens
    assert all(prompt.text.endswith("\nAnswer:") for prompt in prompts)
