"""Text length: nearness to a wanted number of words."""

from __future__ import annotations

import pytest

from rewards.config import RewardsConfig
from rewards.registry import functions_of
from rewards.tasks import text_length


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0.0),
        ("the old cat sleeps", 1.0),
        ("the old cat", 0.75),
        ("the old cat sleeps.", 0.75),  # a full stop is a word
        ("the old gray cat sleeps all day long", 0.0),
        ("word " * 1000, 0.0),
        ("theoldgraycatsleepsalldaylong", 0.5),  # glued words are cut up
    ],
)
def test_paid_for_being_near_the_target(text: str, words: float) -> None:
    assert text_length.score(text, {"target_words": 4}) == {"words": words}


def test_a_target_is_needed() -> None:
    with pytest.raises(KeyError, match="target_words"):
        text_length.score("some words", {})
    with pytest.raises(ValueError, match="set 1 or more"):
        text_length.score("some words", {"target_words": 0})


def test_the_task_is_found_by_its_name() -> None:
    (function,) = functions_of("text_length", RewardsConfig(weights={"words": 1.0}))
    assert function.load() is text_length.score
    assert function.parts == tuple(text_length.score("", {"target_words": 1}))
