"""The general part `repetition`: an n-gram penalty."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.parts.repetition import repetition
from tests.support.shared_data import needs_shared_data, read_rows


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0),
        ("a b", 0),
        ("a b c d e", 0),
        ("a b c a b c", -0.25),  # abc bca cab abc: three of four
        ("A b\nc  a B c", -0.25),
        ("a a a a a a", -0.75),
    ],
)
def test_share_of_repeated_ngrams(text: str, value: float) -> None:
    assert repetition(text, {}, ngram_size=3) == pytest.approx(value)
    assert repetition(text, {}, ngram_size=3, max_penalty=0.2) == pytest.approx(0.2 * value)


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 6))
def test_it_is_open_r1s(words: list[str], size: int) -> None:
    """Against the formula written down again: 1 - distinct / all, 0 for a text shorter than an n-gram."""
    ngrams = list(zip(*[words[start:] for start in range(size)], strict=False))
    expected = len(set(ngrams)) / len(ngrams) - 1 if ngrams else 0.0
    assert repetition(" ".join(words), {}, ngram_size=size) == pytest.approx(expected)


def test_a_loop_costs_nearly_all_and_search_nearly_nothing() -> None:
    loop = "Next, let's try to use 37 and 13, which 37 + 13 = 50, but we don't use 13. " * 30
    search = " ".join(f"Next, let's try {a} and {b}, which gives {a + b}." for a in range(6) for b in range(6))
    assert repetition(loop, {}) < -0.9
    assert repetition(search, {}) > -0.1


def test_memory_is_bounded() -> None:
    text = " ".join(map(str, range(300_000)))
    tracemalloc.start()
    repetition(text, {}, ngram_size=3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 2**20


@pytest.mark.parametrize(("size", "penalty"), [(0, 1.0), (3, -1.0)])
def test_impossible_settings_are_refused(size: int, penalty: float) -> None:
    with pytest.raises(ValueError, match=r"rewards\.parameters\.repetition"):
        repetition("text", {}, ngram_size=size, max_penalty=penalty)


@needs_shared_data
@pytest.mark.parametrize(("size", "num_loops"), [(3, 113), (20, 49)])
def test_how_many_real_completions_it_takes_for_loops(size: int, num_loops: int) -> None:
    """The figures of docs/experiments.md."""
    texts = [row["completion"].partition("<|")[0] for row in read_rows("countdown_completions.jsonl")]
    assert sum(repetition(text, {}, ngram_size=size) < -0.3 for text in texts) == num_loops
