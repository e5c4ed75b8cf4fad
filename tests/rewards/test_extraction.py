from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.extraction import final_answer, unboxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3+4=7</think><answer>3+4</answer>", "3+4"),
        ("<think>3+4=7</think>\n<answer> 3+4 </answer>\n", "3+4"),
        ("…</think>\n<answer>\n3 +\n4\n</answer>", "3 +\n4"),
        ("…</think>So the result is <answer>3+4</answer>", "3+4"),
        ("…</think><answer>1+2</answer> or rather <answer>3+4</answer>", "3+4"),
        ("<answer>1+2</answer></think><answer>3+4</answer>", "3+4"),
        ("…</think><answer><answer>3+4</answer>", "3+4"),
        ("…</think><answer></answer>", ""),
        ("…</think><answer>3+4</answer><|eot_id|><|endoftext|>\n<|endoftext|>", "3+4"),
        ("…</think><answer>3+4</answer></s>", "3+4"),
        ("…</think><answer>3+4</answer><eos>", "3+4"),
    ],
)
def test_well_formed(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3+4",
        "<answer>3+4</answer>",
        "<think>…<answer>3+4</answer>",
        "…<answer>3+4</answer></think>",
        "…</think>3+4",
        "…</think><answer>3+4",
        "…</think>3+4</answer>",
        "…</think></answer>3+4<answer>",
        "…</think><answer>3+4</answer></answer>",
        "…</think><answer>3+4</answer><answer>",
        "…</think><answer>3+4</answer> User: another question",
        "…</think>…</think><answer>3+4</answer>",
        "…</think><think>…<answer>3+4</answer>",
        "…</THINK><ANSWER>3+4</ANSWER>",
        "…</think>\\boxed{3+4}",
    ],
)
def test_not_well_formed(text: str) -> None:
    assert final_answer(text) is None


def test_the_prompt_decides_the_reasoning_tag() -> None:
    text = "…</reasoning><answer>3+4</answer>"
    assert final_answer(text) is None
    assert final_answer(text, think_tag="reasoning") == "3+4"
    assert final_answer("It is <answer>3+4</answer>", think_tag="") == "3+4"


@pytest.mark.parametrize(
    ("answer", "inside"),
    [
        (r"\boxed{3 + 4}", "3 + 4"),
        ("\\boxed{\n(3 + 4)}", "(3 + 4)"),
        ("3 + 4", "3 + 4"),
        (r"\boxed{3 + 4} = 7", r"\boxed{3 + 4} = 7"),
        ("boxed{3}", "boxed{3}"),
    ],
)
def test_unboxed(answer: str, inside: str) -> None:
    assert unboxed(answer) == inside


@pytest.mark.parametrize(
    "text",
    [
        "</think>" + "<answer>" * 200_000,
        "</think>" + "<answer>1</answer>" * 100_000,
        "</think><answer>1</answer>" + "<|a|>" * 200_000 + "x",
        "</think><answer>1</answer>" + " " * 1_000_000 + "x",
        "</think>" * 200_000,
    ],
    ids=["open", "pairs", "markers", "spaces", "closings"],
)
def test_long_repetitions_are_quick(text: str) -> None:
    start = time.process_time()
    final_answer(text)
    assert time.process_time() - start < 1.0


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "1+2", " ", "</s>", "<|im_end|>"])))
def test_an_answer_is_always_what_one_pair_of_tags_holds(pieces: list[str]) -> None:
    text = "".join(pieces)
    answer = final_answer(text)
    if answer is not None:
        assert "<answer>" not in answer
        assert "</answer>" not in answer
        assert text.count("</think>") == 1
        assert text.index("</think>") < text.rindex("<answer>") < text.rindex("</answer>")
