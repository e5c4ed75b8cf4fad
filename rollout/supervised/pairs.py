"""Read pairs of prompt and completion from a file, check them, and tokenize them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.prompts.chat import OPENED, Tokenizer, encode, encode_completion, has_lost, opens_again
from rollout.prompts.held_out import HeldOutQuestions
from rollout.rows.files import file_rows, format_of
from rollout.rows.row import Row
from rollout.types.names import closest
from rollout.types.paths import from_home
from rollout.types.prompts import SupervisedExample

KEYS = ("prompt", "completion")


class PairError(ValueError):
    """The file cannot be trained on. The message names file, line and fix."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A line of the file."""

    prompt: str | list[dict[str, Any]]
    """Text as it is, or chat messages."""
    completion: str
    where: str
    """File and line, for errors."""

    @property
    def asked(self) -> str:
        """All that the prompt says, as text."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(str(message["content"]) for message in self.prompt)


@dataclass(frozen=True, slots=True)
class LengthLimit:
    """A limit on the length of prompt and completion together."""

    tokens: int
    name: str
    """The setting that it comes from, such as ``learner.max_tokens_per_microbatch``."""
    fix: str
    """The advice about a longer pair."""


def digest_of_file(path: str) -> str:
    """Return the SHA-256 of the file, in hexadecimal. Raises PairError when it cannot be read."""
    try:
        with Path(from_home(path)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise PairError(f"warm_start.data = {path!r}: {what}. Give the path of a JSONL file") from error


def read_pairs(path: str) -> list[Pair]:
    """Return the pairs of a file, JSON lines unless its name says otherwise. Raises PairError for the first bad row."""
    try:
        rows = file_rows(path, "warm_start.data", format_of(path) or "json")
        return [parse_pair(each.row, each.where) for each in rows]
    except PairError:
        raise
    except (OSError, ValueError) as error:
        raise PairError(f'{error}. A pair is {{"prompt": "…", "completion": "…"}}') from error


def left_out(pairs: Sequence[Pair], questions: HeldOutQuestions | None) -> list[int]:
    """Return the positions of the pairs that ask a held-out question. None: no question is held out."""
    return [i for i, pair in enumerate(pairs) if questions is not None and questions.is_asked_in(pair.asked)]


def parse_pair(row: Row, where: str) -> Pair:
    """Return the pair of a row. Raises PairError for one without a prompt and a completion."""
    for name in KEYS:
        if name not in row:
            raise PairError(f"{where} has no {name!r}{instead_of(name, list(row))}")
    prompt, completion = row["prompt"], row["completion"]
    if not is_text(completion):
        raise PairError(
            f"{where}: completion = {completion!r} must be text and not empty, there is nothing to learn from it"
        )
    if not is_text(prompt) and not are_messages(prompt):
        raise PairError(
            f"{where}: prompt = {repr(prompt)[:200]} must be text, or a list of messages "
            '{"role": "user", "content": …}, and not empty'
        )
    return Pair(prompt, completion, where)


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: Tokenizer, limits: Sequence[LengthLimit]
) -> Iterator[SupervisedExample]:
    """Yield the pairs as token ids. Each completion ends with the end-of-sequence token.

    Raises PairError for one that is too long, or that the tokenizer cannot encode.
    """
    if tokenizer.eos_token_id is None:
        raise PairError(
            "the model's tokenizer has no eos token, with which every completion ends: set it in its folder"
        )
    for pair in pairs:
        asked, is_worded = worded_prompt(pair, tokenizer)
        if opens_again(asked, pair.completion):
            raise PairError(
                f"{pair.where}: the completion opens {OPENED}, which "
                + ("the model's chat template" if is_worded else "the prompt")
                + f" has opened at the end of {asked[-40:]!r}: begin the completion with what follows {OPENED}"
            )
        # A chat template has written its own special tokens; text gets the tokenizer's, often none.
        prompt = encode(tokenizer, asked, pair.where, add_special_tokens=not is_worded)
        completion = encode_completion(tokenizer, pair.completion, pair.where)
        length = len(prompt) + len(completion)
        for limit in limits:
            if length > limit.tokens:
                raise PairError(f"{pair.where} has {length} tokens, above {limit.name} = {limit.tokens}: {limit.fix}")
        yield SupervisedExample(prompt, completion)


def worded_prompt(pair: Pair, tokenizer: Tokenizer) -> tuple[str, bool]:
    """Return a pair's prompt as the model reads it, and whether a chat template worded it.

    Raises PairError for messages that the chat template refuses.
    """
    if isinstance(pair.prompt, str):
        return pair.prompt, False
    if not tokenizer.chat_template:
        raise PairError(
            f"{pair.where}: prompt is a list of messages, but the model's tokenizer has no chat template: write text "
            "instead"
        )
    try:
        opened = str(tokenizer.apply_chat_template(pair.prompt, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates raise what they like, about roles above all
        raise PairError(f"{pair.where}: the chat template refuses its messages: {error}") from error
    for message in pair.prompt:
        if message["role"] == "system" and has_lost(opened, message["content"]):
            raise PairError(
                f"{pair.where}: the chat template leaves out the system message: write its text into the user's message"
            )
    return opened, True


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(message, dict) and is_text(message.get("role")) and "content" in message for message in value
        )
    )


def instead_of(name: str, names: Sequence[str]) -> str:
    """Return what the line has instead of the key `name`: one of its keys that looks like it, or else all of them."""
    close = closest(name, [other for other in names if other not in KEYS])
    return f", but {close!r}: rename it" if close else f": it has {', '.join(map(repr, names)) or 'no keys'}"
