"""Prompts that are too long are found among many without counting all of them exactly."""

import random

from tokenizers.processors import TemplateProcessing

from rollout.prompts.config import PromptsConfig
from rollout.prompts.lengths import PromptLengths
from rollout.prompts.template import Template
from rollout.tasks.base import Problem
from tests.support import chatml_tokenizer
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


class Words(Counting):
    """Knows few words."""

    def encode(self, text, *, add_special_tokens=True):
        if unknown := {*text.split()} - {"Question:", "Answer:", "how", "many"}:
            raise KeyError(f"unknown {unknown}")
        return super().encode(text)


def test_a_short_prompt_that_the_tokenizer_does_not_know_is_found_before_it_is_asked() -> None:
    prompts = PromptsConfig(chat=False, task="gsm8k", format="natural", natural_template="Question: {question} Answer:")
    asked = ["how many", "how many apples", "many"]
    problems = [Problem({"question": question}, {"answer": "1"}, question) for question in asked]
    first, second, third = Template(prompts, Words()).faults(problems)
    assert first is None and third is None and "cannot encode" in second and "apples" in second


def test_a_text_that_names_the_beginning_itself_gets_no_second_one() -> None:
    of = chatml_tokenizer.tokenizer(None, ("<s>",))
    of.bos_token = "<s>"
    begins = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", of.bos_token_id)])
    of.backend_tokenizer.post_processor = begins
    limit = len("How?") + 1
    prompts = PromptsConfig(
        chat=False, task="gsm8k", format="natural", natural_template="{question}", max_prompt_tokens=limit
    )
    template = Template(prompts, of)
    problems = [Problem({"question": question}, {"answer": "1"}, question) for question in ("How?", "<s>How?")]
    plain, named = (template.prompt("a", problem).token_ids.tolist() for problem in problems)
    assert plain == named and plain[0] == of.bos_token_id and len(plain) == limit
    assert list(template.faults(problems)) == [None, None]


def test_prompts_far_below_the_limit_are_not_tokenized() -> None:
    tokenizer, parts = Counting(), questions(2000)
    lengths_and_exact(tokenizer, parts, 2000)
    assert tokenizer.characters < 0.25 * sum(map(len, parts))
