"""Find prompts that are too long among many, without making tokens of all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from rollout.prompts.chat import with_one_beginning

WORD = re.compile(r"\s*\S+|\s+\Z")
MAX_ADDED = 32
"""More special tokens than any tokenizer adds around a text."""
MARGIN = 1.1
"""By how much a count word by word may be too low."""
NUM_PROVEN = 200
"""Texts on which such counts are compared with exact ones."""
MAX_KNOWN = 1_000_000
ODD = "zqx"
"""A word that no vocabulary of whole words has."""


def reads_any_text(tokenizer: Any) -> bool:
    """Return whether the tokenizer has tokens for any text; one of whole words has none for a word it does not know."""
    try:
        tokenizer([ODD], add_special_tokens=False)
    except Exception:  # noqa: BLE001  tokenizers raise what they like about a text they do not know
        return False
    return True


class PromptLengths:
    """Counts the tokens of prompts that differ in one part, exactly where one may be longer than `limit`.

    Else the parts are counted word by word, which is quicker: tokenizers make tokens within words, so that counts of
    words, which come again and again, add up. This is proven on the first prompts; where it does not hold every prompt
    is counted exactly, and so with a tokenizer that does not know every word.

    Args:
        frame: a whole prompt whose part is empty.
    """

    def __init__(self, tokenizer: Any, limit: int, frame: str, *, add_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self._add_special_tokens = add_special_tokens
        self._known: dict[str, int] = {}
        self._num_proven = 0
        self._adds_up = self._reads_any_text = reads_any_text(tokenizer)
        (self._frame,) = self._exact([frame])

    def __call__(self, parts: Sequence[str], whole: Callable[[Sequence[int]], list[str]]) -> list[int]:
        """Return the number of tokens of each prompt; well below the limit, about as many.

        Args:
            whole: returns the whole prompts of the parts at some positions.

        Raises what the tokenizer raises about a text that it does not know.
        """
        # An ASCII character is at most one token.
        lengths = [self._frame + MAX_ADDED + len(part) for part in parts]
        is_sure = [self._reads_any_text and part.isascii() for part in parts]
        unsure = [i for i, length in enumerate(lengths) if length > self._limit or not is_sure[i]]
        proven = unsure[: NUM_PROVEN - self._num_proven]
        if self._adds_up:
            for i, found in zip(unsure, self._by_words([parts[i] for i in unsure]), strict=True):
                lengths[i] = self._frame + MAX_ADDED + int(found * MARGIN)
        exact = dict(zip(proven, self._exact(whole(proven)), strict=True))
        self._num_proven += len(proven)
        self._adds_up &= all(found <= lengths[i] for i, found in exact.items())
        unsure = [i for i in unsure if i not in exact and (lengths[i] > self._limit or not self._adds_up)]
        exact |= zip(unsure, self._exact(whole(unsure)), strict=True)
        return [exact.get(i, length) for i, length in enumerate(lengths)]

    def _exact(self, texts: list[str]) -> list[int]:
        """Return the number of tokens of each text."""
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=self._add_special_tokens)["input_ids"]
        return [len(with_one_beginning(self._tokenizer, each)) for each in encoded]

    def _by_words(self, texts: list[str]) -> list[int]:
        """Return the sum of the tokens of each text's words."""
        split = [WORD.findall(text) for text in texts]
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        known = self._known
        new = {word for words in split for word in words}.difference(known)
        # Numbers hardly come again, and have at most as many tokens as characters.
        known.update((word, len(word)) for word in new if word.isascii() and word.upper() == word.lower())
        if unknown := [word for word in new if word not in known]:
            found = self._tokenizer(unknown, add_special_tokens=False)["input_ids"]
            known.update(zip(unknown, map(len, found), strict=True))
        return [sum(map(known.__getitem__, words)) for words in split]
