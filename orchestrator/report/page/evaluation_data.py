"""The report of a comparison by `rayzero eval`: models × formats, and their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.config.recipe import ConfigError
from orchestrator.report.page.chart import Chart, Line, Role, present
from orchestrator.report.page.completions import LONGEST_ANSWER, number, shortened
from orchestrator.report.page.document import room_beside
from orchestrator.report.reading.embedding import embedded
from orchestrator.report.reading.kept import MAX_COMPLETIONS
from orchestrator.report.reading.privacy import without_places
from rollout.types.completions import TRUNCATED

RULE = "The first questions are kept with all their completions, up to {limit:,} or until the page is full."
ROLES: tuple[Role, ...] = ("muted", "main", "second", "wrong", "third")
PLAIN = {
    "completion_tokens": "mean completion, tokens",
    "right_completion_tokens": "right ones",
    "wrong_completion_tokens": "wrong ones",
}
SHARES = {"truncated": "cut off at the limit", "unmarked": "could not be graded"}


def read_evaluation(file: Path) -> Mapping[str, Any]:
    """Return the content of a file from `rayzero eval`. Raises ConfigError for any other file."""
    try:
        content = json.loads(file.read_text("utf-8"))
        results = content["results"]
        if not results or any(result.keys() < {"model", "format", "figures", "prompts"} for result in results):
            raise ValueError("no results")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}): name the JSON file of `rayzero eval`") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file} is not a JSON file of `rayzero eval` ({error})") from error
    evaluation: Mapping[str, Any] = content
    return evaluation


def evaluation_data(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the page's data: a column for each model and format, and questions with their answers."""
    results = content["results"]
    shown = {
        "columns": [[str(without_places(each["model"])), str(each["format"]).replace("_", " ")] for each in results],
        "rows": rows(results),
        "differences": [each.get("difference") for each in results],
        "verdicts": [(each.get("trainability") or {}).get("verdict") for each in results],
        "problems": len(results[0]["prompts"]),
        "charts": present([chart for label in ("difficulty", "source") if (chart := by_label(results, label))]),
        "rule": RULE.format(limit=MAX_COMPLETIONS),
    }
    questions, kept, total = shown_questions(results, room_beside(shown))
    return shown | {"questions": questions, "kept": kept, "of": total}


def rows(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each figure: its title, its kind, and a cell for each result."""
    found = [result["figures"] for result in results]
    names = dict.fromkeys(name for figures in found for name in figures)
    made = []
    for name in names:
        if name == "markers":
            continue
        cells = [figures.get(name) for figures in found]
        if any(cell is not None for cell in cells):
            is_share = name in SHARES or name.startswith("pass_at") or name.endswith(("pass_at_1", "_rate"))
            made.append({"title": title(name), "is_rate": is_share, "cells": cells})
    for marker in dict.fromkeys(name for figures in found for name in figures.get("markers") or {}):
        cells = [(figures.get("markers") or {}).get(marker) for figures in found]
        made.append(
            {"title": f"shows {marker.removeprefix('shows_').replace('_', ' ')}", "is_rate": True, "cells": cells}
        )
    return made


def title(name: str) -> str:
    if name.startswith("pass_at_"):
        return f"pass@{name.removeprefix('pass_at_')} (sampled)"
    named = {"greedy_pass_at_1": "pass@1 (greedy)", "format_rate": "well-formed answers", "reward": "mean reward"}
    return (PLAIN | SHARES | named).get(name, name.replace("_", " "))


def by_label(results: Sequence[Mapping[str, Any]], label: str) -> Chart | None:
    """Return pass@1 by a label of the prompts; None if there is only one label."""
    found = [result.get(f"by_{label}") or {} for result in results]
    names = list(dict.fromkeys(name for each in found for name in each))
    if len(names) < 2:
        return None
    lines = []
    for result, each, role in zip(results, found, ROLES, strict=False):
        estimates = [(each.get(name) or {}).get("pass_at_1") or {} for name in names]
        mean, low, high = ([number(one.get(end)) for one in estimates] for end in ("mean", "low", "high"))
        x = [name or "none" for name in names]
        lines.append(
            Line(
                f"{without_places(result['model'])}, {str(result['format']).replace('_', ' ')}",
                role=role,
                x=x,
                y=mean,
                low=low,
                high=high,
            )
        )
    note = "95% intervals over the problems of each kind."
    return Chart(f"pass@1 by {label}", "share", lines, note, kind="groups", x_title="")


def shown_questions(results: Sequence[Mapping[str, Any]], room: int) -> tuple[list[dict[str, Any]], int, int]:
    """Return the questions that fit into `room` bytes, the number of their completions, and of all completions."""
    total = sum(len(prompt["completions"]) for result in results for prompt in result["prompts"])
    by_id = [{prompt["id"]: prompt for prompt in result["prompts"]} for result in results]
    questions: list[dict[str, Any]] = []
    kept = size = 0
    for prompt in results[0]["prompts"]:
        found = [each.get(prompt["id"]) for each in by_id]
        made = {
            "id": str(prompt["id"]),
            "difficulty": str(prompt.get("difficulty") or ""),
            "answer": shortened(json.dumps(prompt.get("answer"), ensure_ascii=False), LONGEST_ANSWER),
            "answers": [answers(each) for each in found],
        }
        count = sum(len(each["completions"]) for each in found if each)
        size += len(embedded(made))
        if kept + count > MAX_COMPLETIONS or size > room:
            break
        questions.append(made)
        kept += count
    return questions, kept, total


def answers(prompt: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if prompt is None:
        return None
    greedy = prompt.get("greedy")
    return {
        "prompt": shortened(str(prompt["text"])),
        "greedy": completion(greedy) if greedy else None,
        "completions": [completion(each) for each in prompt["completions"]],
    }


def completion(record: Mapping[str, Any]) -> dict[str, Any]:
    correctness = (record.get("parts") or {}).get("correctness")
    return {
        "text": shortened(str(record["text"])),
        "length": record.get("num_tokens"),
        "reward": number(record.get("reward")),
        "right": None if correctness is None else correctness == 1.0,
        "cut": record.get("finish_reason") in TRUNCATED,
    }
