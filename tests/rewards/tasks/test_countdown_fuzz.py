"""Hostile texts through Countdown's grading in both formats, every general part and the markers.

Mutations of completions that a real language model wrote, and random text. Nothing may raise, hang or grow, every value
must be in its range, and whatever is called right a second checker must call right too. `make test` tries 1,000 and
`make test-all` 6,000; before a release try more:
`FUZZ_TEXTS=100000 python -m pytest -m slow tests/rewards/tasks/test_countdown_fuzz.py`.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from countdown_oracle import grade_tagged, parsed, pieces

from rewards.parts.format import answer_tags, strict, tag_pairs
from rewards.parts.length import length
from rewards.parts.markers import BEHAVIOURS, markers
from rewards.parts.process import process
from rewards.parts.repetition import repetition
from rewards.tasks.countdown import score
from tests.support.marks import only_in_test_all
from tests.support.shared_data import needs_shared_data, read_rows

NUM_TEXTS = int(os.environ.get("FUZZ_TEXTS", "6000"))
TAIL_CHARACTERS = 120
MAX_GROWTH_BYTES = 32 * 2**20

TOKENS = [
    *("<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "}", "<|im_end|>", "The answer is "),
    *("+", "-", "*", "/", "(", ")", "=", "**", "\\times", "\\cdot", "\\left(", "×", "−"),
    *(" ", "\n", ",", ".", "x", "^2"),
    *("0", "7", "13", "10**9", "1e5", "99999999999", "٣", "²", "\x00", "\ud800", "🦊", "try ", "wait, ", "= 1 no, "),
]
EXTRA_SPELLINGS = {"×": "*", "·": "*", "\\cdot": "*", "÷": "/", "−": "-", "\\left(": "(", "\\right)": ")"}


def mutated(text: str, other: str, rng: random.Random) -> str:
    for _ in range(rng.randint(0, 4)):
        start, end = sorted(rng.randint(0, len(text)) for _ in range(2))
        end = min(end, start + 20)
        match rng.randrange(5):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:end] + text[start:end] * rng.randint(1, 3) + text[end:]
            case 2:
                text = text[:start] + rng.choice(TOKENS) + text[start:]
            case 3:
                text = text[:start] + rng.choice(TOKENS) + text[end:]
            case 4:
                cut = rng.randint(0, len(other))
                text = text[:start] + other[cut : cut + 20] + text[end:]
    return text


def problems(num_texts: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield texts, each with the answer of the problem it was written for."""
    rng = random.Random(7)
    lines = read_rows("countdown_completions.jsonl")
    tails = [line["completion"].partition("<|")[0][-TAIL_CHARACTERS:] for line in lines]
    for _ in range(num_texts):
        index = rng.randrange(len(lines))
        text = mutated(tails[index], rng.choice(tails), rng)
        if rng.random() < 0.1:
            text = "".join(rng.choices(TOKENS, k=rng.randint(0, 25)))
        answer = {"numbers": lines[index]["numbers"], "target": lines[index]["target"], "steps": ["24", "72"]}
        yield text, answer | {"must_use_all": rng.random() < 0.9}


def second_opinion(text: str, answer: dict[str, Any], is_natural: bool) -> bool:
    """Return whether a text that was graded right can be right at all."""
    for spelling, python in EXTRA_SPELLINGS.items():
        text = text.replace(spelling, python)
    text = re.sub(r"(?<![0-9])0+(?=[0-9])", "", text)  # 089 is 89 in the package, and an error in Python
    if is_natural:
        # Bold type may stand at the edge of an expression; what matters is that it is there.
        candidates = pieces(text) + pieces(text.replace("**", " "))
        return any(fits(numbers, answer) and value == answer["target"] for numbers, value in candidates)
    line = {**answer, "completion": text}
    if answer["must_use_all"] and grade_tagged(line)[0]:
        return True
    inside = text.rpartition("</answer>")[0].rpartition("<answer>")[2].partition("</answer>")[0].strip()
    inside = inside.removeprefix("\\boxed{").removesuffix("}") if inside.startswith("\\boxed{") else inside
    left, _, right = inside.replace("\\times", "*").replace("\\div", "/").partition("=")
    found = parsed(f"({left.strip()})")
    said = right.strip() in ("", str(answer["target"]))
    return said and found is not None and fits(found[0], answer) and found[1] == answer["target"]


def fits(numbers: list[int], answer: dict[str, Any]) -> bool:
    used, given = Counter(numbers), Counter(answer["numbers"])
    return used == given if answer["must_use_all"] else used <= given


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs_shared_data
@pytest.mark.parametrize("num_texts", [1000, only_in_test_all(NUM_TEXTS)])
def test_hostile_texts(num_texts: int) -> None:
    num_right = Counter[bool]()
    memory = []
    for count, (text, answer) in enumerate(problems(num_texts)):
        for is_natural in (False, True):
            problem = answer | ({"extraction": "natural"} if is_natural else {})
            parts = score(text, problem)
            assert parts.keys() == {"correctness", "closeness"}
            assert 0 <= parts["correctness"] <= parts["closeness"] <= 1, text
            if parts["correctness"]:
                num_right[is_natural] += 1
                assert second_opinion(text, answer, is_natural), (text, answer)
        lenient, pairs = answer_tags(text, answer), tag_pairs(text, answer)
        assert strict(text, answer) in (0.0, 0.5, 1.0)
        assert lenient in (0.0, 1.0)
        assert strict(text, answer) <= lenient
        assert pairs in (0.0, 1.0, 2.0)
        assert -1 <= length(text, answer, max_words=60, buffer_words=20) <= 0
        assert -1 <= repetition(text, answer, ngram_size=3) <= 0
        assert 0 <= process(text, answer) <= 1
        assert set(markers(text)) <= set(BEHAVIOURS)
        if count % (num_texts // 4) == num_texts // 4 - 1:
            memory.append(resident_bytes())
    assert num_right[False] > num_texts / 100
    assert num_right[True] > num_right[False]
    assert max(memory) - memory[0] < MAX_GROWTH_BYTES
