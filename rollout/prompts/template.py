"""Problems to prompts: wording, chat template, token ids."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from rollout.config import PromptsConfig
from rollout.prompts.problems import Problem
from rollout.types import Prompt, Tokens


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that wording needs."""

    chat_template: Any
    eos_token_id: Any

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...
    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


class Template:
    """Words a problem as the recipe says. Raises ValueError at once when the tokenizer cannot do that."""

    def __init__(self, config: PromptsConfig, tokenizer: Tokenizer) -> None:
        if config.chat and not tokenizer.chat_template:
            raise ValueError(
                "prompts.chat = true, but the model's tokenizer has no chat template: set prompts.chat = false"
            )
        self._config = config
        self._tokenizer = tokenizer

    def text(self, problem: Problem) -> str:
        """The whole prompt as text."""
        question = self._config.template.format(**problem.fields)
        if not self._config.chat:
            return question + self._config.assistant_prefix
        messages = [{"role": "user", "content": question}]
        if self._config.system:
            messages.insert(0, {"role": "system", "content": self._config.system})
        opened = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return str(opened) + self._config.assistant_prefix

    def prompt(self, prompt_id: str, problem: Problem) -> Prompt:
        """Raises ValueError when the prompt is longer than `prompts.max_prompt_tokens`."""
        text = self.text(problem)
        # A chat template has written its own special tokens; a base model's text gets the tokenizer's (often none).
        token_ids = encode(self._tokenizer, text, f"prompt {prompt_id}", add_special_tokens=not self._config.chat)
        if len(token_ids) > self._config.max_prompt_tokens:
            raise ValueError(
                f"prompt {prompt_id} has {len(token_ids)} tokens, above prompts.max_prompt_tokens = "
                f"{self._config.max_prompt_tokens}: raise it or shorten prompts.template"
            )
        return Prompt(prompt_id, token_ids, text, self._config.task, problem.answer)


def encode(tokenizer: Tokenizer, text: str, what: str, *, add_special_tokens: bool) -> Tokens:
    """The tokens of `text`. Raises ValueError, which names `what`, for text that a word-level tokenizer does not cover."""
    try:
        return np.array(tokenizer.encode(text, add_special_tokens=add_special_tokens), dtype=np.int32)
    except Exception as error:
        raise ValueError(
            f"{what}: the model's tokenizer cannot encode {text[:200]!r} ({error}). A built one knows the numbers up to "
            "model.build.max_integer and the text of model.build.words: add what is missing"
        ) from error


def encode_completion(tokenizer: Tokenizer, text: str, what: str) -> Tokens:
    """The tokens of `text` as a whole completion: the end-of-sequence token is its last. Raises ValueError as `encode`."""
    tokens = encode(tokenizer, text, what, add_special_tokens=False)
    return np.concatenate([tokens, np.array([tokenizer.eos_token_id], dtype=np.int32)])
