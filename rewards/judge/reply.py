"""Read an endpoint's reply, and decide when to repeat a request. Every invalid reply raises one of three errors."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from random import random
from typing import Any

from rewards.judge.question import MAX_SHOWN, WrongAnswerError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""Pauses if the endpoint asks for none: they double up to the longest, and are shortened by a random part up to a
quarter."""
PASSING = (408, 409, 429)
"""Statuses of temporary failures, in addition to those from 500 on."""
MAX_TOKENS = 10**9
"""A larger token count in a reply is not plausible, and counts as 0."""


def parsed(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object in a body. Raises WrongAnswerError if it is not a JSON object."""
    with suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(body), dict):
            return found
    raise _no_completion(body)


def tokens_of(completion: Mapping[str, Any]) -> tuple[float, float]:
    """Return the numbers of tokens read and written; 0 if the endpoint does not report a number."""
    usage = completion.get("usage")
    counts = [usage.get(f"{which}_tokens") if isinstance(usage, dict) else 0 for which in ("prompt", "completion")]
    read, written = (count if isinstance(count, int | float) and 0 <= count <= MAX_TOKENS else 0 for count in counts)
    return read, written


def said_in(completion: Mapping[str, Any]) -> str:
    """Return the text of the judge's reply. Raises WrongAnswerError if there is no text."""
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise _no_completion(json.dumps(completion).encode())
    if isinstance(content := message.get("content"), str):
        return content
    refusal = message.get("refusal")
    raise WrongAnswerError(f"the judge refused: {refusal[:MAX_SHOWN]!r}" if isinstance(refusal, str) else "no text")


def was_cut(completion: Mapping[str, Any]) -> bool:
    """Return whether the reply was cut off at the limit of tokens."""
    try:
        return bool(completion["choices"][0]["finish_reason"] == "length")
    except (LookupError, TypeError):
        return False


def _no_completion(body: bytes) -> WrongAnswerError:
    return WrongAnswerError(
        f"the endpoint sent {body[:MAX_SHOWN].decode('utf-8', 'replace')!r}, which is not a completion"
    )


def pause_s(error: Exception, num_attempts: int) -> float | None:
    """Return the seconds to wait after a failed attempt; None if another attempt would fail in the same way."""
    from openai import APIConnectionError, APIStatusError

    doubled = min(FIRST_PAUSE_S * 2 ** (num_attempts - 1), LONGEST_PAUSE_S) * (1 - random() / 4)
    if isinstance(error, WrongAnswerError | APIConnectionError):
        return doubled
    if not isinstance(error, APIStatusError):
        return None
    headers = error.response.headers
    passes = error.status_code in PASSING or error.status_code >= 500
    # OpenAI's own header: it says for example that waiting does not help if a quota is used up.
    if headers.get("x-should-retry") == "false" or not (passes or headers.get("x-should-retry") == "true"):
        return None
    requested = requested_pause_s(headers)
    return requested if requested is not None and requested > 0 else doubled


def requested_pause_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in the header Retry-After, which may be a number or a date; None without the header."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        with suppress(LookupError, ValueError):
            return float(headers[name]) * unit
    with suppress(LookupError, ValueError, OverflowError, TypeError):
        return parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
    return None


def wants_other_name(error: Exception) -> bool:
    """Return whether the endpoint refuses ``max_tokens`` and names its replacement, as OpenAI's reasoning models do."""
    from openai import BadRequestError

    said = str(error)
    return isinstance(error, BadRequestError) and "nsupported parameter" in said and "max_completion_tokens" in said
