"""Problems to prompts: wording, chat template, token ids."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from rollout.config import PromptsConfig
from rollout.prompts.problems import Problem
from rollout.types import Prompt


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that wording needs."""

    chat_template: Any

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
        token_ids = self._tokenizer.encode(text, add_special_tokens=not self._config.chat)
        if len(token_ids) > self._config.max_prompt_tokens:
            raise ValueError(
                f"prompt {prompt_id} has {len(token_ids)} tokens, above prompts.max_prompt_tokens = "
                f"{self._config.max_prompt_tokens}: raise it or shorten prompts.template"
            )
        return Prompt(prompt_id, np.array(token_ids, dtype=np.int32), text, self._config.task, problem.answer)
