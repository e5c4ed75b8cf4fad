"""Render text with a model's tokenizer and chat template, and find what they would silently leave out."""

from __future__ import annotations

import re
from typing import Any, Protocol

import numpy as np

from rollout.types.prompts import Tokens

OPENED, CLOSED = "<think>", "</think>"
OPENED_AT_THE_END = re.compile(r"<think>\s*(?:</think>\s*)?\Z")
WORDS = "rayzero"
"""Placeholder for the text of an earlier turn, to find where that text starts."""
NO_SYSTEM = "prompts.system is set, but the model's chat template has no place for a system message"
NO_SYSTEM_FIX = "leave prompts.system empty and begin prompts.template with its text"


class Tokenizer(Protocol):
    """The methods of a Hugging Face tokenizer that prompts need."""

    chat_template: Any
    eos_token_id: Any

    def __call__(self, text: list[str], *, add_special_tokens: bool = ...) -> Any: ...
    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...
    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


def assistant_opening(tokenizer: Tokenizer, system: str = "") -> str:
    """Return what the chat template writes in the assistant's name when it asks for a turn: often `<think>` or nothing.

    It stands behind the header of a turn, which is what stands before the words of an earlier turn.
    """
    question = [{"role": "user", "content": "?"}]
    if system:
        question.insert(0, {"role": "system", "content": system})
    (opened,) = worded(tokenizer, [question])
    earlier = [*question, {"role": "assistant", "content": WORDS}, question[-1]]
    try:
        up_to_words, found, _ = str(tokenizer.apply_chat_template(earlier, tokenize=False)).partition(WORDS)
    except Exception:  # noqa: BLE001  templates raise what they like, about turns that they do not allow
        found = ""
    if found and opened.startswith(up_to_words):
        return opened.removeprefix(up_to_words)
    thinking = OPENED_AT_THE_END.search(opened)
    return thinking[0] if thinking else ""


def worded(tokenizer: Tokenizer, conversations: list[list[dict[str, str]]]) -> list[str]:
    """Return the conversations in the chat template's words: all with the same system message, or all without one.

    Raises ValueError for a template that knows no system message.
    """
    first = conversations[0][0]
    system = first["content"] if first["role"] == "system" else ""
    try:
        texts: list[str] = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates raise what they like, about roles above all
        if not system:
            raise
        raise ValueError(f"{NO_SYSTEM} ({error}): {NO_SYSTEM_FIX}") from error
    if has_lost(texts[0], system):
        raise ValueError(f"{NO_SYSTEM}, which would be left out: {NO_SYSTEM_FIX}")
    return texts


def opens_again(asked: str, completion: str) -> bool:
    """Return whether a completion opens `<think>` although the prompt, as the model reads it, already did."""
    return OPENED_AT_THE_END.search(asked) is not None and OPENED in completion.partition(CLOSED)[0]


def has_lost(opened: str, content: Any) -> bool:
    """Return whether a chat template has left out the text of a message."""
    return isinstance(content, str) and content.strip() not in opened


def encode(tokenizer: Tokenizer, text: str, what: str, *, add_special_tokens: bool) -> Tokens:
    """Return the tokens of `text`.

    Raises ValueError, which names `what`, for text that a tokenizer of whole words does not know.
    """
    try:
        token_ids = tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return np.array(with_one_beginning(tokenizer, token_ids), dtype=np.int32)
    except Exception as error:
        raise ValueError(
            f"{what}: the model's tokenizer cannot encode {text[:200]!r} ({error}). A built one knows the numbers up "
            "to model.build.max_integer and the text of model.build.words: add what is missing"
        ) from error


def with_one_beginning(tokenizer: Tokenizer, token_ids: list[int]) -> list[int]:
    """Return the tokens without a second token for the beginning of a text, which some texts name themselves."""
    begins = getattr(tokenizer, "bos_token_id", None)
    return token_ids[1:] if begins is not None and token_ids[:2] == [begins, begins] else token_ids


def encode_completion(tokenizer: Tokenizer, text: str, what: str) -> Tokens:
    """Return the tokens of a whole completion, the end-of-sequence token last. Raises ValueError as `encode` does."""
    return np.append(encode(tokenizer, text, what, add_special_tokens=False), np.int32(tokenizer.eos_token_id))
