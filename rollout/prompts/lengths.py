"""Find prompts that are too long among many, without making tokens of all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

WORD = re.compile(r"\s*\S+|\s+\Z")
MAX_ADDED = 32
"""More special tokens than any tokenizer adds around a text."""
MARGIN = 1.1
"""By how much a count word by word may be too low."""
NUM_PROVEN = 200
"""Texts on which such counts are compared with exact ones."""
MAX_KNOWN = 1_000_000


class PromptLengths:
    """Counts tokens exactly where a text may be longer than `limit`, and else word by word, which is quicker.

    Tokenizers make tokens within words, so that counts of words, which come again and again, add up. This is proven on
    the first texts; where it does not hold every text is counted exactly.
    """

    def __init__(self, tokenizer: Any, limit: int, *, add_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self._add_special_tokens = add_special_tokens
        self._known: dict[str, int] = {}
        self._num_proven = 0
        self._adds_up = True

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, at most MARGIN too low where it is well below the limit.

        Raises what the tokenizer raises about a text that it does not know.
        """
        estimates = [len(text) + MAX_ADDED for text in texts]  # an ASCII character is at most one token
        unsure = [i for i, text in enumerate(texts) if estimates[i] > self._limit or not text.isascii()]
        proven = unsure[: NUM_PROVEN - self._num_proven]
        if self._adds_up:
            for i, found in zip(unsure, self._by_words([texts[i] for i in unsure]), strict=True):
                estimates[i] = int(found * MARGIN) + MAX_ADDED
        exact = dict(zip(proven, self._exact([texts[i] for i in proven]), strict=True))
        self._num_proven += len(proven)
        self._adds_up &= all(found <= estimates[i] for i, found in exact.items())
        unsure = [i for i in unsure if i not in exact and (estimates[i] > self._limit or not self._adds_up)]
        exact |= zip(unsure, self._exact([texts[i] for i in unsure]), strict=True)
        return [exact.get(i, estimate) for i, estimate in enumerate(estimates)]

    def _exact(self, texts: list[str]) -> list[int]:
        """Return the number of tokens of each text."""
        if not texts:
            return []
        return [len(each) for each in self._tokenizer(texts, add_special_tokens=self._add_special_tokens)["input_ids"]]

    def _by_words(self, texts: list[str]) -> list[int]:
        """Return the sum of the tokens of each text's words."""
        split = [WORD.findall(text) for text in texts]
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        known = self._known
        if unknown := [word for word in {word for words in split for word in words} if word not in known]:
            found = self._tokenizer(unknown, add_special_tokens=False)["input_ids"]
            known.update(zip(unknown, map(len, found), strict=True))
        return [sum(map(known.__getitem__, words)) for words in split]
