"""Decode a completion to text piece by piece, while its tokens come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from rollout.types.prompts import Tokens

REPLACEMENT = "\ufffd"
"""The character that incomplete bytes of a character decode to."""
MAX_BROKEN = 3
"""A character has at most four bytes: more replacements at the end will never become a character."""


def increments(batches: Iterable[Sequence[int]], decode: Callable[[Tokens], str]) -> Iterator[str]:
    """Yield pieces of text whose concatenation is the text of all tokens.

    Tokens are decoded together with those before them, since a tokenizer may decode the first token of a text
    otherwise (without the space before it). Tokens that end within a UTF-8 character are held back until it is whole;
    at the end they come as they are.
    """
    context: list[int] = []  # tokens whose text is out already, the last batch of them
    held: list[int] = []
    num_out = 0  # characters of the held tokens' text that are out already
    for batch in batches:
        held += batch
        text = text_after(context, held, decode)
        whole = text.rstrip(REPLACEMENT)
        if len(text) - len(whole) > MAX_BROKEN:
            whole = text
        if len(whole) > num_out:
            yield whole[num_out:]
            num_out = len(whole)
        if text and whole == text:
            context, held, num_out = held, [], 0
    if held and (rest := text_after(context, held, decode)[num_out:]):
        yield rest


def text_after(context: Sequence[int], tokens: Sequence[int], decode: Callable[[Tokens], str]) -> str:
    """Return what `tokens` add to the text of `context`."""
    before = decode(np.array(context, dtype=np.int32)) if context else ""
    return decode(np.array([*context, *tokens], dtype=np.int32))[len(before) :]
