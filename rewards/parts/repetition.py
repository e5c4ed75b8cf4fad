"""A general part that penalizes repetition."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

MAX_WORDS = 20_000
"""Number of words from the start that are read, which limits the memory; a completion rarely has more."""

_WORD = re.compile(r"\S+")


def repetition(text: str, answer: Mapping[str, Any], *, ngram_size: int = 20, max_penalty: float = 1.0) -> float:
    """Return ``-max_penalty * (1 - distinct / all)`` over the n-grams of words; 0 for a text that is too short.

    Words are split at space and compared in lower case. This is open-r1's ``get_repetition_penalty_reward``, one number
    per completion, after the n-gram penalty of Yeo et al. 2025 (arXiv:2502.03373, appendix C.2). open-r1's default
    n-gram has 3 words, which also penalizes real search, because it often says ``let's try``. The default here is about
    a sentence, which only finds loops.

    Raises ValueError unless ``ngram_size`` is at least 1 and ``max_penalty`` at least 0.
    """
    if ngram_size < 1 or max_penalty < 0:
        raise ValueError(
            f"rewards.parameters.repetition: ngram_size = {ngram_size} must be at least 1, and max_penalty = "
            f"{max_penalty} at least 0 (the part itself is negative)"
        )
    total = 0
    distinct = set()
    for total, ngram in enumerate(_ngrams(text, ngram_size), start=1):  # noqa: B007  the last count is needed
        distinct.add(ngram)
    return -max_penalty * (1 - len(distinct) / total) if total > len(distinct) else 0.0


def _ngrams(text: str, size: int) -> Iterator[tuple[str, ...]]:
    window: deque[str] = deque(maxlen=size)
    for match in islice(_WORD.finditer(text), MAX_WORDS):
        window.append(match[0].lower())
        if len(window) == size:
            yield tuple(window)
