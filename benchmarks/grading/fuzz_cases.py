"""Completions to feed to rewards, each with what an oracle knows about its grade: see fuzz_rewards.py."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

FRAGMENTS = (
    *("<answer>", "</answer>", "<think>", "</think>", "<answer></answer>"),
    *("\\boxed{", "}", "{", "#### ", "\nA: ", "\n", "The answer is ", "Answer: ", "**"),
    *("$", "\\(", "\\)", "\\frac{1}{2}", "^", "/0", "%", "=", " or ", " not ", ", "),
    *("(B)", " A ", "E.", "٧", "½", "²", "９", "\u202f", "\x00", "\ud800", "e99", "9" * 60),
    *("-", "−", ".", ",", "72", "1e5"),
)
DIRECTIONS = ("north", "south", "east", "west", "kitchen", "apple,football", "yes", "garden")


class Case(NamedTuple):
    """A completion, what verifies it, and what its grade must be."""

    text: str
    answer: Mapping[str, Any]
    must_be: float | None = None
    """The only right grade; None where the oracle knows just what must not be 1.0."""
    may_be_right: bool = True


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def mutated(text: str, rng: random.Random) -> str:
    """Return the text after one to six cuts, repetitions, swaps and insertions."""
    for _ in range(rng.randint(1, 6)):
        start = rng.randint(0, len(text))
        end = min(len(text), start + rng.choice((1, 3, 20, 200)))
        match rng.randrange(6):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:end] + text[start:end] * rng.randint(1, 3) + text[end:]
            case 2:
                text = text[:start] + text[start:end][::-1] + text[end:]
            case 3:
                text = text[end:] + text[:start]
            case _:
                text = text[:start] + rng.choice(FRAGMENTS) + text[start:]
    return text[:20_000]


# -- numbers


def numerals(text: str) -> set[Fraction]:
    """Return every value that any run of digits could mean: without the right one, no text can be right."""
    text = text.replace("{,}", ",").replace("\\,", "").replace("\u202f", "")
    text = re.sub(r"[^\x00-\x7f]", " ", text)
    text = re.sub(r"\\[dt]?frac\s?\{?([0-9.,]+)\}?\s?\{?([0-9.,]+)\}?", r" \1/\2 ", text)
    runs = re.findall(r"[0-9.][0-9.,_'eE+-]*|[0-9]", text) + re.findall(r"[0-9.][0-9.,_']*", text)
    plain = {value for run in runs for value in readings(run)}
    plain |= {Fraction(int(digit)) for digit in re.findall("[0-9]", text)}
    tops = re.findall(r"([0-9.][0-9.,]*) ?/ ?([0-9.][0-9.,]*)", text)
    plain |= {a / b for top, bottom in tops for a in readings(top) for b in readings(bottom) if b}
    scaled = {value * 10**power for value in plain for power in (2, 3, 6, 9, 12)}
    return plain | scaled | {-value for value in plain}


def readings(run: str) -> Iterator[Fraction]:
    for candidate in {run, run.rstrip(".,'_eE+-"), re.split("[eE+-]", run)[0].rstrip(".,")}:
        try:
            value = Decimal(re.sub("[,_']", "", candidate))
        except InvalidOperation:
            continue
        if value.is_finite() and abs(value.adjusted()) < 200:
            yield Fraction(value)


def gsm8k_cases(rng: random.Random) -> Iterator[Case]:
    rows = lines("gsm8k_model_solutions.jsonl")
    while True:
        row = rng.choice(rows)
        reference = row["ground_truth"].rpartition("A:")[2].strip()
        value = Fraction(reference.replace(",", ""))
        if rng.random() < 0.5:
            yield changed_number(row["solution"], reference, value, rng)
            continue
        text = mutated(row["solution"], rng)
        answer = {"answer": reference} | ({"extraction": "natural"} if rng.random() < 0.3 else {})
        yield Case(text, answer, may_be_right=value in numerals(text))


def changed_number(solution: str, reference: str, value: Fraction, rng: random.Random) -> Case:
    """Return a solution that ends in a number of our own, in one of the styles; right if it is the reference."""
    given = value
    if rng.random() < 0.7:
        given = rng.choice(
            (value + 1, -value, value * 10, value / 10, value + Fraction(1, 2), value + rng.randint(-9, 9))
        )
    style = rng.choice(
        (
            *("A: {}", "#### {}", "The answer is {}.", "<answer>{}</answer>"),
            *("\\boxed{{{}}}", "**Answer:** {} apples", "A: 3 + 4 = {}"),
        )
    )
    text = solution.rpartition("A:")[0] + style.format(written(given, rng))
    natural = {"extraction": "natural"} if rng.random() < 0.3 else {}
    return Case(text, {"answer": reference} | natural, must_be=float(given == value))


def written(value: Fraction, rng: random.Random) -> str:
    """Return the number in one of the ways to write it."""
    sign, size = "-" * (value < 0), abs(value)
    tenths = size * 1000
    if tenths.denominator != 1:
        return f"{sign}{size.numerator}/{size.denominator}"
    whole, rest = divmod(int(tenths), 1000)
    digits = f"{whole:,}" if rng.random() < 0.5 else str(whole)
    decimals = f".{rest:03d}".rstrip("0") if rest else rng.choice(("", ".0", ".00"))
    return sign + rng.choice(("", "$")) + digits + decimals


# -- letters and words


def choice_cases(rng: random.Random) -> Iterator[Case]:
    rows = lines("aqua_dev.jsonl")
    styles = (
        *("Answer: {}", "\nANSWER:{}", "<answer>{}</answer>", "\\boxed{{{}}}"),
        *("The answer is ({}).", "\n{}", "Ans - {}"),
    )
    while True:
        row = rng.choice(rows)
        options = [option.partition(")")[2] for option in row["options"]]
        natural = {"extraction": "natural"} if rng.random() < 0.3 else {}
        answer = {"answer": row["correct"], "options": options} | natural
        if rng.random() < 0.5:
            letter = rng.choice("ABCDE")
            text = row["rationale"] + "\n" + rng.choice(styles).format(letter)
            yield Case(text, answer, must_be=float(letter == row["correct"]))
            continue
        text = mutated(row["rationale"], rng)
        right = options["ABCDE".index(row["correct"])]
        has_text = squeezed(right) in squeezed(text)
        yield Case(text, answer, may_be_right=has_text or row["correct"] in text.upper())


def word_cases(rng: random.Random) -> Iterator[Case]:
    rows = lines("countdown_completions.jsonl")
    while True:
        story, reference, other = rng.choice(rows)["completion"], rng.choice(DIRECTIONS), rng.choice(DIRECTIONS)
        natural = {"extraction": "natural"} if rng.random() < 0.3 else {}
        answer = {"answer": reference} | natural
        if rng.random() < 0.5:
            given = rng.choice((other, f"the {other.upper()}.", other.replace(",", " and ")))
            text = f"{story}\n<answer>{given}</answer>"
            yield Case(text, answer, must_be=float(other == reference))
            continue
        text = mutated(f"{story} <answer>{other}</answer>", rng)
        found = all(squeezed(part) in squeezed(text) for part in reference.split(","))
        yield Case(text, answer, may_be_right=found)


def squeezed(text: str) -> str:
    return re.sub(r"[^0-9a-z]", "", text.lower())


CASES: dict[str, Callable[[random.Random], Iterator[Case]]] = {
    "gsm8k": gsm8k_cases,
    "multiple_choice": choice_cases,
    "exact_match": word_cases,
}


# -- expressions


def math_cases(rng: random.Random) -> Iterator[Case]:
    """Yield half fractions, changed or not, written in LaTeX in several ways; half formulas strewn with fragments."""
    formulas = (
        *("x^2+2x+1", "\\frac{\\sqrt{3}}{2}", "(-\\infty, 2] \\cup [5, \\infty)", "\\{1, 2, 3\\}", "3\\pi", "2 - 5i"),
        *("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\text{east}", "x \\le 4", "(3, \\frac{\\pi}{2})"),
        *("5\\sqrt[3]{2}", "\\log_2 8", "\\sin 30^\\circ", "2^{10}", "\\binom{5}{2}", "90^\\circ", "12\\%", "\\$1,250"),
        *("y = 2x + 1", "n!"),
    )
    pieces = (
        *FRAGMENTS,
        *("\\sqrt{", "^{", "9^", "!", "\\sin", "\\infty", "x", "y", "(", ")", "[", "]", "\\cdot", "+", "\\text{"),
    )
    while True:
        if rng.random() < 0.5:
            value = Fraction(rng.randint(-99, 99), rng.randint(1, 12))
            given = value if rng.random() < 0.4 else value + rng.choice((1, -1, Fraction(1, 7), 10, -2 * value or 1))
            text = f"So we get $\\boxed{{{as_latex(given, rng)}}}$."
            yield Case(text, {"answer": as_latex(value, rng)}, must_be=float(given == value))
            continue
        formula, reference = rng.choice(formulas), rng.choice(formulas)
        for _ in range(rng.randint(0, 8)):
            place = rng.randint(0, len(formula))
            formula = formula[:place] + rng.choice(pieces) + formula[place:]
        yield Case(f"<answer>{formula}</answer>", {"answer": reference})


def as_latex(value: Fraction, rng: random.Random) -> str:
    sign, top, bottom = "-" * (value < 0), abs(value.numerator), value.denominator
    if bottom == 1:
        return f"{sign}{top}" + rng.choice(("", ".0", "\\text{ cm}"))
    factor = rng.randint(1, 3)
    return sign + rng.choice(
        (f"\\frac{{{top * factor}}}{{{bottom * factor}}}", f"{top}/{bottom}", f"\\dfrac{{{top}}}{{{bottom}}}")
    )
