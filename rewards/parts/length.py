r"""A general part that penalizes length.

Lengths are counted in words. Here a word is a sequence of up to 16 letters and digits, or one other character that is
not space. That is roughly a token, and joining words or leaving out spaces does not make a text shorter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORD = re.compile(r"\w{1,16}|[^\w\s]")


def length(text: str, answer: Mapping[str, Any], *, max_words: int = 1000, buffer_words: int = 200) -> float:
    """Return the soft overlong punishment of DAPO (arXiv:2503.14476, equation 13), in words instead of tokens.

    For n words it is 0 up to ``max_words - buffer_words``, then falls linearly, ``(max_words - buffer_words - n) /
    buffer_words``, to -1 at ``max_words`` and beyond. It penalizes a completion before it is truncated, and never
    penalizes a short one. DAPO adds it to a correctness of 1 or -1 with a weight of 1. Its limit is 20,480 tokens, and
    the last 4,096 of them are the buffer.

    Raises ValueError unless ``buffer_words`` is between 1 and ``max_words``.
    """
    if not 1 <= buffer_words <= max_words:
        raise ValueError(
            f"rewards.parameters.length: buffer_words = {buffer_words} must be at least 1 and at most max_words = "
            f"{max_words}"
        )
    excess = num_words(text) - (max_words - buffer_words)
    return -min(1.0, excess / buffer_words) if excess > 0 else 0.0


def num_words(text: str) -> int:
    """Return the number of words, in time linear in the text and without a copy of it."""
    return sum(1 for _ in _WORD.finditer(text))
