"""Prompts that are too long are found among many without counting all of them exactly."""

import random

from rollout.prompts.lengths import PromptLengths
from tests.support.byte_tokenizer import Bytes

FRAME = "Question: {} Answer:"


class Counting(Bytes):
    """Counts the characters that it makes tokens of."""

    characters = 0

    def __call__(self, text, *, add_special_tokens=True):
        self.characters += sum(map(len, text))
        return super().__call__(text)


class Doubling(Counting):
    """Makes twice as many tokens of anything that holds a space, so that words tell nothing."""

    def encode(self, text, *, add_special_tokens=True):
        return super().encode(text) * (2 if text.count(" ") > 2 else 1)


def lengths_and_exact(tokenizer: Counting, parts: list[str], limit: int) -> tuple[list[int], list[int]]:
    count = PromptLengths(tokenizer, limit, FRAME.format(""), add_special_tokens=False)
    lengths = []
    for start in range(0, len(parts), 100):
        batch = parts[start : start + 100]
        lengths += count(batch, lambda positions, batch=batch: [FRAME.format(batch[i]) for i in positions])
    return lengths, [len(tokenizer.encode(FRAME.format(part))) for part in parts]


def questions(count: int) -> list[str]:
    rng = random.Random(1)
    words = ["how", "many", "apples", "naïve", "答え", "12", "and"]
    return [" ".join(rng.choices(words, k=rng.randint(5, 120))) for _ in range(count)]


def test_no_prompt_is_taken_for_longer_or_shorter_than_the_limit() -> None:
    for tokenizer in (Counting(), Doubling()):
        for limit in (60, 200, 700, 2000):
            lengths, exact = lengths_and_exact(tokenizer, questions(600), limit)
            assert [length > limit for length in lengths] == [length > limit for length in exact]
            assert all(length == true for length, true in zip(lengths, exact, strict=True) if length > limit)


def test_prompts_far_below_the_limit_are_not_tokenized() -> None:
    tokenizer, parts = Counting(), questions(2000)
    lengths_and_exact(tokenizer, parts, 2000)
    assert tokenizer.characters < 0.25 * sum(map(len, parts))
