from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.parsing.extraction import extract_answer, unboxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3+4=7</think><answer>3+4</answer>", "3+4"),
        ("<think>3+4=7</think>\n<answer>\n3 +\n4\n</answer>\n", "3 +\n4"),
        ("<answer>3+4</answer>", "3+4"),
        ("<think>…<answer>3+4</answer>", "3+4"),
        ("…<answer>3+4</answer></think>", "3+4"),
        ("…</think>…</think><think><answer>3+4</answer>", "3+4"),
        ("…</think><answer>3+4</answer><|eot_id|><|endoftext|>\n", "3+4"),
        ("…</think><answer>3+4</answer> User: another question", "3+4"),
        ("…</think><answer>1+2</answer> or rather <answer>3+4</answer>", "3+4"),
        ("<answer>1+2</answer></think><answer>3+4</answer>", "3+4"),
        ("…</think><answer>\n\\boxed{3+4}\n</answer>", "3+4"),
        ("…</think><answer></answer>", ""),
        ("…</think><answer>3+4</answer><answer> </answer>", ""),
        ("…</think><answer>3+4</answer><answer>1+2", "3+4"),
        ("…</think><answer>3+4</answer></answer></answer>", "3+4"),
        ("…</think><answer><answer>3+4</answer>", "3+4"),
        ("…</think><answer><answer>3+4</answer></answer>", "3+4"),
        ("…</answer>3+4</think><answer>3+4</answer>", "3+4"),
        ("", None),
        ("…</think>3+4", None),
        ("…</think>\\boxed{3+4}", None),
        ("…</think><answer>3+4", None),
        ("…</think>3+4</answer>", None),
        ("…</think></answer>3+4<answer>", None),
        ("…</think><ANSWER>3+4</ANSWER>", None),
        ("…</think><answer >3+4</answer>", None),
    ],
)
def test_the_last_complete_pair(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "inside"),
    [
        (r"\boxed{3 + 4}", "3 + 4"),
        ("\\boxed{\n(3 + 4)}", "(3 + 4)"),
        ("3 + 4", "3 + 4"),
        (r"\boxed{3 + 4} = 7", r"\boxed{3 + 4} = 7"),
        ("boxed{3}", "boxed{3}"),
        (r"\boxed{}", ""),
    ],
)
def test_unboxed(answer: str, inside: str) -> None:
    assert unboxed(answer) == inside


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * 1_000_000,
        "</answer>" * 1_000_000,
        "</answer><answer>" * 500_000,
        "<answer>" * 500_000 + "</answer>" * 500_000,
        "<answer>1" + " " * 4_000_000 + "<answer",
        "<answer" * 1_000_000,
    ],
    ids=["open", "closed", "reversed", "nested", "spaces", "half a tag"],
)
def test_hostile_repetitions_end(text: str) -> None:
    """Quadratic time would be hours."""
    assert len(extract_answer(text) or "") <= len(text)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "1+2", "7", " ", "<|im_end|>"])))
def test_against_a_walk_over_the_tags(pieces: list[str]) -> None:
    answer: str | None = None
    inside: str | None = None
    for piece in pieces:
        if piece == "<answer>":
            inside = ""
        elif piece == "</answer>":
            answer, inside = answer if inside is None else inside.strip(), None
        elif inside is not None:
            inside += piece
    assert extract_answer("".join(pieces)) == answer
