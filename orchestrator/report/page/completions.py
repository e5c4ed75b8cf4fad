"""Convert completions into the page's format: text, reward, and tokens with logprobs, as compact as possible."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from orchestrator.report.reading.figures import is_right, length, shown_in
from orchestrator.report.reading.kept import KeptGroup
from orchestrator.report.reading.record_stream import Record
from orchestrator.report.reading.tokens import MAX_TOKENS, TokenTexts
from rollout.types.completions import FAILED, TRUNCATED

FORMAT = 2
"""Version of the page's format of a group. Stored groups of another version are converted again."""
LONGEST_TEXT = 20_000
"""Most characters of a prompt or completion. Only the beginning and the end of a longer text are kept."""
LONGEST_ANSWER = 2_000


def group_json(group: KeptGroup, texts: TokenTexts) -> dict[str, Any]:
    """Return a group: its prompt, and its completions."""
    first, place = group.records[0], group.place
    made = {
        "step": place.step,
        "split": place.split,
        "id": str(first.get("prompt_id", "")),
        "prompt": shortened(str(first.get("prompt", ""))),
        "answer": shortened(json.dumps(first.get("answer", {}), ensure_ascii=False), LONGEST_ANSWER),
        "source": str(first.get("source") or ""),
        "difficulty": str(first.get("difficulty") or ""),
        "completions": [completion_json(record, texts) for record in group.records],
    }
    return {name: value for name, value in made.items() if value not in ("", [])}


def completion_json(record: Record, texts: TokenTexts) -> dict[str, Any]:
    """Return a completion. Logprobs are in hundredths of a nat, without their sign; `-1` means unknown.

    Gaps between sampler and learner, changes by the update, and advantages of tokens are in ten-thousandths.
    """
    token_ids = record.get("token_ids") or []
    parts: Mapping[str, Mapping[str, Any]] = record.get("parts", {})
    text = record["completion"]
    made: dict[str, Any] = {
        "text": shortened(text),
        "length": length(record),
        "reward": number(record.get("reward")),
        "parts": {name: number(part.get("value")) for name, part in parts.items()},
        "right": is_right(record),
        "markers": list(shown_in(record)),
        "versions": record.get("policy_versions") or [],
    }
    faults = {name: part["status"] for name, part in parts.items() if part.get("status", "ok") != "ok"}
    if (reason := record.get("finish_reason")) in FAILED:
        faults["environment"] = reason
    optional = {
        "faults": faults,
        "cut": record.get("finish_reason") in TRUNCATED or None,
        "advantage": number(record.get("advantage")),
        "turns": [[turn["start"], turn["end"]] for turn in record.get("turns", ())],
        **token_json(record, texts, token_ids, text),
    }
    return made | {name: value for name, value in optional.items() if value is not None and value not in ({}, [])}


def token_json(record: Record, texts: TokenTexts, token_ids: Sequence[int], text: str) -> dict[str, Any]:
    """Return the tokens' texts and logprobs. If the texts together are the completion's text, return their lengths."""
    if len(text) > 2 * LONGEST_TEXT:
        return {}
    pieces = texts.of(token_ids)
    logprobs = {"logprobs": hundredths(record.get("rollout_logprobs"))}
    for name, key in (("gaps", "logprob_gaps"), ("changes", "logprob_changes"), ("credits", "token_advantages")):
        if isinstance(values := record.get(key), list):
            logprobs[name] = ten_thousandths(values)
    joined = "".join(pieces)
    if joined.startswith(text) and len(text) <= LONGEST_TEXT and len(token_ids) <= MAX_TOKENS:
        return {"lengths": [len(piece) for piece in pieces], "rest": joined[len(text) :], **logprobs}
    return {"pieces": pieces, **logprobs}


def hundredths(logprobs: Sequence[float | None] | None) -> list[int]:
    known = (logprobs or [])[:MAX_TOKENS]
    return [-1 if value is None or not isfinite(value) else round(min(99.99, -value) * 100) for value in known]


def ten_thousandths(values: Sequence[Any]) -> list[int]:
    return [
        round(max(-99.0, min(99.0, value)) * 1e4) if isinstance(value, int | float) and value == value else 0
        for value in values[:MAX_TOKENS]
    ]


def number(value: Any) -> float | None:
    return float(f"{value:.5g}") if isinstance(value, int | float) and isfinite(value) else None


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return the text, or the beginning and the end of a longer text."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"
