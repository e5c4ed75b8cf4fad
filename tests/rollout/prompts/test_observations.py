"""Observations as tokens, against the chat template's own rendering of the whole conversation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rollout.prompts.observations import ObservationEncoder
from rollout.types.environments import CUT
from tests.support.chatml_tokenizer import CHATML, FORGETFUL, ONE_TURN_ONLY, tokenizer
from tests.support.pretrained import gguf_file

QWEN2_5 = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}" + CHATML
LLAMA_3 = (
    "<|begin_of_text|>{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "<bos>{% for message in messages %}<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SHAPES = {
    "qwen2.5": (QWEN2_5, "<|im_end|>", ()),
    "qwen3": (FORGETFUL, "<|im_end|>", ()),
    "llama3": (LLAMA_3, "<|eot_id|>", ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "gemma": (GEMMA, "<end_of_turn>", ("<bos>", "<start_of_turn>", "<end_of_turn>")),
}


def shaped(name: str) -> Any:
    template, end, special = SHAPES[name]
    made = tokenizer(template, special)
    made.eos_token = end
    return made


def followed(model: Any, turn: str, said: str) -> tuple[list[int], list[int]]:
    """Return the tokens of two turns as they come one after another, and as the template has the whole conversation."""
    asked = [{"role": "user", "content": "What is 3*4?"}]
    prompt = model.encode(
        model.apply_chat_template(asked, tokenize=False, add_generation_prompt=True), add_special_tokens=False
    )
    sampled = [*model.encode(turn, add_special_tokens=False), model.eos_token_id]
    observed = ObservationEncoder(model, chat=True).encode(said, sampled[-1]).tolist()
    last = model.encode("It is 12.", add_special_tokens=False)
    whole = [*asked, {"role": "assistant", "content": turn}, {"role": "user", "content": said}]
    whole.append({"role": "assistant", "content": "It is 12."})
    expected = model.encode(model.apply_chat_template(whole, tokenize=False), add_special_tokens=False)
    found = prompt + sampled + observed + last
    assert found[len(prompt) : len(prompt) + len(sampled)] == sampled
    return found, expected[: len(found)]


@pytest.mark.parametrize("name", SHAPES)
def test_turns_are_the_tokens_of_the_whole_conversation(name: str) -> None:
    found, expected = followed(shaped(name), "Let me see: <call>3*4</call>", "12")
    assert found == expected


@pytest.mark.slow
@pytest.mark.long
def test_a_real_models_too() -> None:
    file = gguf_file()
    model = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    found, expected = followed(model, "Let me see: <call>3*4</call>", "12")
    assert found == expected


@pytest.mark.parametrize(
    ("name", "turn"), [("qwen3", "<think>3*4</think><call>3*4</call>"), ("llama3", "12?\n"), ("gemma", " 12?")]
)
def test_where_a_template_would_change_what_was_sampled_it_stays(name: str, turn: str) -> None:
    """Qwen3's leaves the reasoning of earlier turns out; those of Llama 3 and Gemma trim."""
    model = shaped(name)
    found, expected = followed(model, turn, "12")
    assert found != expected
    assert turn in model.decode(found)


SPECIAL = st.sampled_from(["<|im_end|>", "<|im_start|>", "<|im_start|>assistant\n", "<|pad|>", "<tool>"])


@given(st.lists(st.one_of(st.text(max_size=5), SPECIAL), max_size=6).map("".join))
@settings(max_examples=30, deadline=None)
def test_what_looks_like_a_special_token_is_text(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    model = tokenizer()
    model.add_tokens(["<tool>"])
    found = ObservationEncoder(model, chat=False).encode(text, 0).tolist()
    assert not set(model.added_tokens_decoder) & set(found)
    assert model.decode(found, clean_up_tokenization_spaces=False) == text


def test_behind_a_stop_string_nothing_but_the_observation_follows() -> None:
    model = tokenizer()
    last_token = model.encode("</call>", add_special_tokens=False)[-1]
    found = ObservationEncoder(model, chat=True).encode("<result>12</result>", last_token)
    assert model.decode(found) == "<result>12</result>"


def test_a_template_without_earlier_turns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"allows one turn only.*set prompts\.chat = false"):
        ObservationEncoder(tokenizer(ONE_TURN_ONLY), chat=True)
    with pytest.raises(ValueError, match="leaves out earlier turns"):
        ObservationEncoder(tokenizer("{{ messages[-1].content }}"), chat=True)


@pytest.mark.parametrize("chat", [False, True])
def test_the_least_room_holds_a_cut_observation(chat: bool) -> None:
    encoder = ObservationEncoder(tokenizer(), chat=chat)
    shortest = encoder.encode("word " * 100, None, encoder.least)
    assert shortest is not None and len(shortest) == encoder.least
    assert encoder.encode("word " * 100, None, encoder.least - 1) is None


def test_a_long_observation_is_cut_at_a_token_and_says_so() -> None:
    model = tokenizer()
    encoder = ObservationEncoder(model, chat=True)
    whole = encoder.encode("one two three four", model.eos_token_id)
    frame = encoder.encode("", model.eos_token_id)
    assert whole is not None and frame is not None
    assert encoder.encode("one two three four", model.eos_token_id, len(whole)).tolist() == whole.tolist()
    cut = encoder.encode("one two three four", model.eos_token_id, len(whole) - 1)
    assert len(cut) == len(whole) - 1 and CUT in model.decode(cut)
    assert encoder.encode("one two three four", model.eos_token_id, len(frame)) is None


def test_before_the_first_turn_the_assistant_has_said_nothing() -> None:
    model = shaped("qwen2.5")
    asked = [{"role": "user", "content": "?"}]
    prompt = model.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    whole = [*asked, {"role": "assistant", "content": ""}, {"role": "user", "content": "Begin."}]
    expected = model.apply_chat_template(whole, tokenize=False, add_generation_prompt=True)
    assert prompt + model.decode(ObservationEncoder(model, chat=True).encode("Begin.", None)) == expected
