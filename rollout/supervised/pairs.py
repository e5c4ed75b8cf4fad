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
REWRITTEN = ("assistant", "tool", "function", "ipython")
"""Roles whose messages chat templates may shorten or write otherwise: reasoning is left out, results become JSON."""


class PairError(ValueError):
    """The file cannot be trained on. The message names file, line and fix."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The pair of one row."""

    prompt: str | list[dict[str, Any]]
    """Plain text, or chat messages."""
    completion: str
    where: str
    """File and line, for errors."""

    @property
    def asked(self) -> str:
        """The prompt's text; for messages, the text of all of them."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(text for message in self.prompt for text in texts_of(message["content"]))


@dataclass(frozen=True, slots=True)
class LengthLimit:
    """A limit on the length of prompt and completion together."""

    tokens: int
    name: str
    """The setting of the limit, such as ``learner.max_tokens_per_microbatch``."""
    fix: str
    """Advice for a pair that is too long."""


def digest_of_file(path: str) -> str:
    """Return the SHA-256 of the file in hexadecimal. Raises PairError if it cannot be read."""
    try:
        with Path(from_home(path)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise PairError(f"warm_start.data = {path!r}: {reason}. Give the path of a JSONL file") from error


def read_pairs(path: str) -> list[Pair]:
    """Return the pairs of a file; its suffix decides the format, JSON lines by default.

    Raises PairError for the first bad row.
    """
    try:
        rows = file_rows(path, "warm_start.data", format_of(path) or "json")
        return [parse_pair(each.row, each.where) for each in rows]
    except PairError:
        raise
    except (OSError, ValueError) as error:
        raise PairError(f'{error}. A pair is {{"prompt": "…", "completion": "…"}}') from error


def left_out(pairs: Sequence[Pair], questions: HeldOutQuestions | None) -> list[int]:
    """Return the positions of the pairs that ask one of `questions`, which are held out; None: no questions."""
    return [i for i, pair in enumerate(pairs) if questions is not None and questions.is_asked_in(pair.asked)]


def parse_pair(row: Row, where: str) -> Pair:
    """Return the pair of a row. Raises PairError if its prompt or completion is missing, empty or not text."""
    for name in KEYS:
        if name not in row:
            raise PairError(f"{where} has no {name!r}{instead_of(name, list(row))}")
    prompt, completion = row["prompt"], row["completion"]
    if not is_text(completion):
        raise PairError(
            f"{where}: completion = {completion!r} must be text and not empty: write the text to learn, or remove the "
            "row"
        )
    if not is_text(prompt) and not are_messages(prompt):
        raise PairError(
            f"{where}: prompt = {repr(prompt)[:200]} must be text, or a list of messages "
            '{"role": "user", "content": "…"} with text, and not empty'
        )
    return Pair(prompt, completion, where)


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: Tokenizer, limits: Sequence[LengthLimit]
) -> Iterator[SupervisedExample]:
    """Yield the pairs as token ids. Each completion ends with the end-of-sequence token.

    Raises PairError for a pair that is too long, or that the tokenizer cannot encode.
    """
    if tokenizer.eos_token_id is None:
        raise PairError(
            "the model's tokenizer has no eos token, but every completion must end with it: set eos_token in the "
            "tokenizer_config.json of the model's folder"
        )
    for pair in pairs:
        text, has_template = worded_prompt(pair, tokenizer)
        if opens_again(text, pair.completion):
            raise PairError(
                f"{pair.where}: the completion opens {OPENED}, which "
                + ("the model's chat template" if has_template else "the prompt")
                + f" has opened at the end of {text[-40:]!r}: start the completion with the text that follows {OPENED}"
            )
        # A chat template writes its own special tokens; plain text gets those of the tokenizer, often none.
        prompt = encode(tokenizer, text, pair.where, add_special_tokens=not has_template)
        completion = encode_completion(tokenizer, pair.completion, pair.where)
        length = len(prompt) + len(completion)
        for limit in limits:
            if length > limit.tokens:
                raise PairError(f"{pair.where} has {length} tokens, above {limit.name} = {limit.tokens}: {limit.fix}")
        yield SupervisedExample(prompt, completion)


def worded_prompt(pair: Pair, tokenizer: Tokenizer) -> tuple[str, bool]:
    """Return a pair's prompt as the model reads it, and whether a chat template made its text.

    Raises PairError for messages that the chat template refuses or leaves out.
    """
    if isinstance(pair.prompt, str):
        return pair.prompt, False
    if not tokenizer.chat_template:
        raise PairError(
            f"{pair.where}: prompt is a list of messages, but the model's tokenizer has no chat template: write text "
            "instead"
        )
    try:
        text = str(tokenizer.apply_chat_template(pair.prompt, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates may raise any exception, mostly about roles
        raise PairError(f"{pair.where}: the chat template refuses its messages: {error}") from error
    for message in pair.prompt:
        role, content = message["role"], message["content"]
        if role not in REWRITTEN and any(has_lost(text, each) for each in texts_of(content)):
            fix = "write its text into the user's message" if role == "system" else "name the role as it does"
            raise PairError(f"{pair.where}: the chat template leaves out the {role} message: {fix}")
        if isinstance(content, list) and str(content) in text:
            raise PairError(
                f"{pair.where}: the chat template reads no list as content, and would show its brackets: write one text"
            )
    return text, True


def texts_of(content: Any) -> list[str]:
    """Return the texts of a message's content: itself, or those of its parts."""
    if isinstance(content, str):
        return [content]
    return [str(part["text"]) for part in content or () if part.get("text")]


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def are_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_message, value))


def is_message(value: Any) -> bool:
    """Return whether a value is a message: of text, of a list of parts, or of calls of tools alone."""
    if not isinstance(value, dict) or not is_text(value.get("role")) or "content" not in value:
        return False
    content = value["content"]
    if isinstance(content, list):
        return all(isinstance(part, dict) for part in content)
    return isinstance(content, str) or (content is None and bool(value.get("tool_calls")))


def instead_of(name: str, names: Sequence[str]) -> str:
    """Return the end of an error about a missing key `name`: the most similar key of the row, or else all its keys."""
    close = closest(name, [other for other in names if other not in KEYS])
    return f", but {close!r}: rename it" if close else f": it has {', '.join(map(repr, names)) or 'no keys'}"
