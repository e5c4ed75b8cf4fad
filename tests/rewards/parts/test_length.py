"""The general part `length`: DAPO's soft overlong punishment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.parts.length import length, num_words


@pytest.mark.parametrize(("words", "value"), [(0, 0), (60, 0), (80, 0), (81, -0.05), (90, -0.5), (100, -1), (5000, -1)])
def test_punishment_grows_over_the_buffer(words: int, value: float) -> None:
    assert length("word " * words, {}, max_words=100, buffer_words=20) == pytest.approx(value)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 100))
def test_longer_is_never_better(words: int, more: int, buffer: int) -> None:
    short, long = (length("a " * count, {}, max_words=100, buffer_words=buffer) for count in (words, words + more))
    assert -1 <= long <= short <= 0


@pytest.mark.parametrize(
    ("text", "words"),
    [("", 0), (" \n ", 0), ("3*9=27", 5), ("Let's try.", 5), ("a" * 160, 10), ("今天天气很好", 1), ("naïve café", 2)],
)
def test_what_a_word_is(text: str, words: int) -> None:
    assert num_words(text) == words


def test_writing_without_spaces_saves_nothing() -> None:
    text = "so 3 * 9 = 27 and 27 + 7 = 34 " * 10
    assert num_words("".join(text.split())) >= 0.6 * num_words(text)


@pytest.mark.parametrize("buffer", [0, -1, 101])
def test_an_impossible_buffer_is_refused(buffer: int) -> None:
    with pytest.raises(ValueError, match=f"buffer_words = {buffer} must be"):
        length("text", {}, max_words=100, buffer_words=buffer)
