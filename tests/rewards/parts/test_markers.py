from __future__ import annotations

import json
import re
import time

import pytest

from benchmarks.grading.markers import agreements, is_report, read_labels, read_sentences
from rewards.parts.markers import AGREEMENT, BEHAVIOURS, marker_shares, markers
from tests.support.paths import ROOT, SHARED_DATA
from tests.support.shared_data import needs_shared_data, read_rows

TRACE_HIT = "9+3=12: 12*7=84 yes\n</think><answer>(9+3)*7</answer>"
TRACE_SEARCH = "9+3=12: 12*7=84 no, 12-7=5 no\n9*3=27: 27-7=20 yes\n</think><answer>(9*3)-7</answer>"
TRACE_GIVES_UP = "9+3=12: 12*7=84 no\n</think><answer>(9+3)*7</answer>"
SEARCH = {"verification", "step_by_step", "exploration", "backtracking", "shows_calculation"}


CASES = [json.loads(line) for line in (ROOT / "tests/data/cases/markers.jsonl").read_text("utf-8").splitlines()]


def shown(text: str) -> set[str]:
    return set(markers(text))


@pytest.mark.parametrize("case", CASES, ids=[case["text"][:30] for case in CASES])
def test_cases_that_were_labelled_by_hand(case: dict[str, bool | str]) -> None:
    assert shown(str(case["text"])) == {name for name in BEHAVIOURS if case[name]}


@needs_shared_data
def test_markers_agree_with_labels_of_real_sentences_that_no_rule_was_tuned_on() -> None:
    labelled = [pair for pair in read_labels(read_sentences(SHARED_DATA)) if is_report(pair[0])]
    assert len(labelled) == 222
    found = agreements(labelled)
    assert found == AGREEMENT  # what tables and documentation print
    for agreement in found.values():
        assert agreement.num_labels >= 25 and agreement.precision >= 0.9 and agreement.recall >= 0.75


def test_shares_are_of_the_completions_that_were_looked_at() -> None:
    shares = marker_shares([("exploration",), (), None, ("exploration", "verification")])
    assert shares["exploration"] == pytest.approx(2 / 3) and shares["verification"] == pytest.approx(1 / 3)
    assert marker_shares([None]) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TRACE_HIT, {"verification", "step_by_step", "shows_calculation"}),
        (TRACE_SEARCH, SEARCH),
        (TRACE_GIVES_UP, {"verification", "step_by_step", "shows_calculation"}),
        ("9+3=12 no\n</think>", {"verification", "shows_calculation"}),
        ("(9+3)*7</think><answer>(9+3)*7</answer>", set()),
        ("", set()),
        ("Let me check: 3 + 4 is 7.", {"verification"}),
        ("Let's double-check whether 7 is used.", {"verification"}),
        ("Checking that each number is used once.", {"verification"}),
        ("This is not equal to 70.", {"verification"}),
        ("This is close to 98, but too low.", {"verification"}),
        ("Indeed that is correct!", {"verification"}),
        ("This works.", {"verification"}),
        ("The answer is large.", set()),
        ("I waited for a step.", set()),
        ("Wait, 5 is already used.", {"backtracking"}),
        ("But wait, maybe I can add.", {"backtracking", "exploration"}),
        ("Hmm. We go back to 3.", {"backtracking"}),
        ("Oops, I made a mistake.", {"backtracking"}),
        ("This does not work. Let's try another approach.", {"verification", "backtracking", "exploration"}),
        ("We can try 3 + 4.", {"exploration"}),
        ("Try 3 + 4. Then try 3 * 4.", {"exploration"}),
        ("Trying to use 3. Alternatively, use 4.", {"exploration"}),
        ("1. Add 3 to 4.\n2. Add 5.", {"step_by_step"}),
        ("Step 1: add.", {"step_by_step"}),
        ("- 98 - 29 = 69\n- 69 + 1 = 70", {"step_by_step", "shows_calculation"}),
        ("9+3=12: 12*7=84 no, 12-7=5 yes", SEARCH - {"backtracking"}),
        ("Wait… that’s not 24.", {"verification", "backtracking"}),
        ("Let’s double‑check.", {"verification"}),
        ("It doesn’t work — let’s start over.", {"verification", "backtracking"}),
        ("5 − 2 = 3", {"shows_calculation"}),
        ("59 * 13 = 767\n767 + 21 = 788", {"step_by_step", "shows_calculation"}),
    ],
)
def test_markers(text: str, expected: set[str]) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Paul will wait for 10 minutes.",
        "They had to wait. Then the bus came.",
        "In hours, this is equal to 180/60.",
        "He saved for 2 years, which is equal to 24 months.",
        "Going back to the starting point takes 3 hours.",
        "30 students who try to escape, and 4 more who try to climb.",
        "The doctor spends 180 minutes checking on patients.",
        "She has a checking account.",
        "He works 5 days. It works for 3 hours.",
        "This is right next to the house.",
        "A right triangle: that is right angled.",
        "She can use a different bus.",
    ],
)
def test_the_same_words_about_something_else_are_no_marker(text: str) -> None:
    assert shown(text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "12 * 7 = 84",
        r"\[ 12 \times 7 = 84 \]",
        "20 x 3 = 60",
        "2 × 4 ≈ 8",
        "3 * (4 + 5) = 27",
        "$3000 - $100 = $2900",
        "3 hours * 60 minutes = 180 minutes",
        "48/2 = <<48/2=24>>24",
        "2 - .5 = 1.5",
    ],
)
def test_an_operation_and_its_result_are_a_calculation(text: str) -> None:
    assert "shows_calculation" in shown(text)


@pytest.mark.parametrize("text", ["12 * 7", "x = 84", "12 and 7 make 84", "The max = 3", "1. 7 = seven", "12 * y = 84"])
def test_less_than_that_is_none(text: str) -> None:
    assert "shows_calculation" not in shown(text)


@needs_shared_data
@pytest.mark.parametrize(
    ("name", "field"),
    [("gsm8k_model_solutions", "solution"), ("gsm8k_train_1000", "answer"), ("aqua_dev", "rationale")],
)
def test_worked_solutions_calculate_and_hardly_check_or_give_up(name: str, field: str) -> None:
    """Read by hand. One of AQuA checks, one asks "maybe", and one is said to explore that asks "how about"."""
    texts = [row[field] for row in read_rows(f"{name}.jsonl")]
    seen = [shown(text) for text in texts]
    assert sum("verification" in names for names in seen) == (1 if name == "aqua_dev" else 0)
    assert sum("exploration" in names for names in seen) == (2 if name == "aqua_dev" else 0)
    assert not any("backtracking" in names for names in seen)
    assert sum("shows_calculation" in names for names in seen) > (0.6 if name == "aqua_dev" else 0.985) * len(seen)


@needs_shared_data
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (48, {"verification", "exploration", "shows_calculation"}),
        (29, {"verification", "backtracking", "exploration", "shows_calculation"}),
        (165, {"backtracking", "exploration", "shows_calculation"}),
        (44, {"exploration"}),
    ],
)
def test_real_countdown_completions_read_by_hand(line: int, expected: set[str]) -> None:
    text = read_rows("countdown_completions.jsonl")[line]["completion"]
    assert shown(text) - {"step_by_step"} == expected


WORDS = {rule.word for rules in BEHAVIOURS.values() for rule in rules}


HOSTILE = (
    *("= 1 ", "=1,", "=1: ", "=1 no\n", "= 1 1 1+", "=    1    ", "x 1 ", "1. ", "+      (", "\n        ", "none give"),
    *("we we back ", "this, this, not ", "close close ", "back substitut ", "we another way ", "one way a a a a "),
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", HOSTILE)
def test_time_is_linear_in_a_hostile_text(text: str) -> None:
    """A quarter of the text takes about a quarter of the time; quadratic time would be a sixteenth, and an hour."""
    markers(text)
    short, long = (seconds(text * (characters // len(text))) for characters in (5_000, 20_000))
    assert long < 10 * short + 0.05


def seconds(text: str) -> float:
    start = time.process_time()
    markers(text)
    return time.process_time() - start


@pytest.mark.timeout(60)
def test_a_long_text_of_every_word_ends() -> None:
    markers(" ".join(sorted(WORDS)) * (200_000 // sum(map(len, WORDS))))


def test_no_rule_repeats_without_a_bound() -> None:
    patterns = [
        found for rules in BEHAVIOURS.values() for rule in rules for found in (rule.after, rule.before) if found
    ]
    outside_classes = [re.sub(r"\\.|\[\^?\]?[^\]]*\]", "", found.pattern) for found in patterns]
    assert not [found for found in outside_classes if re.search(r"[*+]|,\}", found)]
