"""The text of a completion, piece by piece, while its tokens come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from rollout.types import Tokens

REPLACEMENT = "\ufffd"
"""What bytes decode to that are no whole character yet."""
MAX_HELD_TOKENS = 16
"""A character has four bytes at most: what is still no text after so many tokens never will be."""


def increments(batches: Iterable[Sequence[int]], decode: Callable[[Tokens], str]) -> Iterator[str]:
    """Pieces of text whose concatenation is the text of all tokens.

    Tokens are decoded together with those before them, since a tokenizer may word the first token of a text otherwise
    (no space before it). Tokens that end within a UTF-8 character are held back until it is whole; at the end they come as
    they are.
    """
    context: list[int] = []  # tokens whose text is out already, the last batch of them
    held: list[int] = []
    for batch in batches:
        held += batch
        piece = text_after(context, held, decode)
        if piece.endswith(REPLACEMENT) and len(held) < MAX_HELD_TOKENS:
            continue
        if piece:
            yield piece
            context, held = held, []
    if held and (rest := text_after(context, held, decode)):
        yield rest


def text_after(context: Sequence[int], tokens: Sequence[int], decode: Callable[[Tokens], str]) -> str:
    """What `tokens` add to the text of `context`."""
    before = decode(np.array(context, dtype=np.int32)) if context else ""
    return decode(np.array([*context, *tokens], dtype=np.int32))[len(before) :]
