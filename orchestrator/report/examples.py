"""Show completions of some held-out problems before and after training, at the end of a run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestrator.watch.printable import shortened

Records = Sequence[Mapping[str, Any]]
"""The completions of an evaluation, as records of the run directory."""

NUM_SHOWN = 3
LONGEST_SHOWN = 400
"""Most characters of a question or a completion; the rest is cut off."""


def examples_table(before: Records, after: Records) -> Table:
    """Return a table of the first problems, each with its first completion before and after training.

    They are not selected by quality.
    """
    firsts = [first_completions(records) for records in (before, after)]
    shared = shared_beginning([record["prompt"] for record in firsts[0].values()])
    table = Table(title="the first held-out problems", title_justify="left", show_lines=True)
    steps = (f"step {records[0]['step']}" for records in (before, after))
    for title in ("question", *(f"{when} ({step})" for when, step in zip(("before", "after"), steps, strict=True))):
        table.add_column(title, overflow="fold")
    for prompt_id in [each for each in firsts[0] if each in firsts[1]][:NUM_SHOWN]:
        question = firsts[0][prompt_id]["prompt"][shared:]
        # Text, because a model may write square brackets, which rich would read as markup.
        shown = shortened(question.strip(), LONGEST_SHOWN)
        table.add_row(Text(shown), *(Text(graded(each[prompt_id])) for each in firsts))
    return table


def first_completions(records: Records) -> dict[str, Mapping[str, Any]]:
    """Return the first record of each prompt, in the order of the prompts."""
    firsts: dict[str, Mapping[str, Any]] = {}
    for record in records:
        firsts.setdefault(record["prompt_id"], record)
    return firsts


def shared_beginning(prompts: Sequence[str]) -> int:
    """Return the number of characters in the complete lines with which all prompts begin, such as a worked example."""
    if len(prompts) < 2:
        return 0
    # In alphabetical order, all prompts share the common beginning of the first and the last one.
    pairs = zip(min(prompts), max(prompts), strict=False)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
    return "".join(character for character, _ in same).rfind("\n") + 1


def graded(record: Mapping[str, Any]) -> str:
    correctness = record["parts"].get("correctness")
    if correctness is None:
        grade = f"reward {record['reward']:.2f}"
    else:
        grade = "right" if correctness["value"] == 1 else "wrong"
    return f"{shortened(record['completion'].strip(), LONGEST_SHOWN)}\n[{grade}]"
