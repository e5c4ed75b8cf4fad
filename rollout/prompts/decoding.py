"""Decode token ids to a completion's text, and check that tags survive the tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rollout.types.prompts import Tokens

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class TagError(ValueError):
    """The tokenizer cannot reproduce a tag, so no completion could be graded right."""


def completion_decoder(tokenizer: Any) -> Callable[[Tokens], str]:
    """Return a function that decodes the token ids of a completion, shape [T], to its text.

    Only the tokens that end a turn and those that pad are left out. Other special tokens stay: a tokenizer may hold
    `<think>` and `<answer>` as such, and graders look for them.
    """
    left_out = end_tokens(tokenizer)

    return lambda token_ids: read(tokenizer, [token for token in token_ids.tolist() if token not in left_out])


def read(tokenizer: Any, token_ids: list[int]) -> str:
    """Return the text of all tokens."""
    return str(tokenizer.decode(token_ids, skip_special_tokens=False, spaces_between_special_tokens=False))


def end_tokens(tokenizer: Any) -> frozenset[int]:
    """Return the ids of the tokens that end a turn, those that stop the model included, and of those that pad."""
    from transformers import GenerationConfig

    found = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    try:
        stops = GenerationConfig.from_pretrained(tokenizer.name_or_path).eos_token_id
    except (OSError, ValueError):  # the model has no such file, or the tokenizer came from nowhere
        stops = None
    found += stops if isinstance(stops, list) else [stops]
    return frozenset(token for token in found if token is not None)


def check_tags(tokenizer: Any) -> None:
    """Raise TagError for a tag that does not come back as it was from the tokenizer.

    A tag that the tokenizer cannot encode at all is none of those: a built vocabulary has only what its task needs.
    """
    left_out = end_tokens(tokenizer)
    for tag in TAGS:
        try:
            token_ids = tokenizer.encode(tag, add_special_tokens=False)
        except Exception:  # noqa: BLE001  tokenizers raise what they like about a text they do not know
            continue
        text = read(tokenizer, token_ids)
        if tag not in text:
            raise TagError(
                f"the model's tokenizer makes {text!r} of {tag!r}, so no grader would find the tag in a completion: "
                'choose another model, or ask without tags (prompts.format = "natural")'
            )
        if left_out.intersection(token_ids):
            raise TagError(
                f"{tag!r} is, or holds, an end or padding token of the model's tokenizer, which a completion's text "
                f"leaves out: no grader would find the tag. Give the tokenizer another one, and stop at {tag!r} by "
                f"sampling.stop = [{tag!r}] if you want that"
            )
