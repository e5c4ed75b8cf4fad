"""Problems to prompts: wording, format, chat template, token ids."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from rollout.prompts.config import PromptsConfig, TaskConfig
from rollout.tasks.base import Problem
from rollout.types.prompts import Prompt, PromptFormat, Tokens


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that wording needs."""

    chat_template: Any
    eos_token_id: Any

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...
    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


class Template:
    """Words problems as the recipe says. Raises ValueError at once when the tokenizer cannot do that."""

    def __init__(self, config: PromptsConfig, tokenizer: Tokenizer) -> None:
        if config.chat and not tokenizer.chat_template:
            raise ValueError(
                "prompts.chat = true, but the model's tokenizer has no chat template: set prompts.chat = false"
            )
        self._config = config
        self._tokenizer = tokenizer

    def prompt(self, prompt_id: str, problem: Problem, format: PromptFormat | None = None, kind: str = "") -> Prompt:
        """The prompt of a problem of that kind (a name of `prompts.mixture`), in the recipe's format or another.

        Raises ValueError when it is longer than `prompts.max_prompt_tokens`.
        """
        questions = self._config.tasks[kind] if kind else self._config
        format = format or self._config.format
        text = self.text(problem, format, questions)
        # A chat template has written its own special tokens; a base model's text gets the tokenizer's (often none).
        token_ids = encode(self._tokenizer, text, f"prompt {prompt_id}", add_special_tokens=not self._config.chat)
        if len(token_ids) > self._config.max_prompt_tokens:
            raise ValueError(
                f"prompt {prompt_id} has {len(token_ids)} tokens in the format {format}, above prompts.max_prompt_tokens = "
                f"{self._config.max_prompt_tokens}: raise it, or shorten the template or the example"
            )
        return Prompt(
            id=prompt_id,
            token_ids=token_ids,
            text=text,
            grader=questions.marked_by,
            answer=problem.answer if format != "natural" else {**problem.answer, "extraction": "natural"},
            assistant_prefix=self.prefix(format),
            format=format,
            source=kind or questions.task,
            key=problem.key,
            difficulty=problem.difficulty,
        )

    def text(self, problem: Problem, format: PromptFormat = "zero_shot", questions: TaskConfig | None = None) -> str:
        """The whole prompt as text."""
        questions = questions or self._config
        wording, prefix = questions.wording(format), self.prefix(format)
        try:
            turns = [wording.format(**problem.fields)]
        except KeyError as error:  # a task of any columns finds out now which there are
            raise ValueError(
                f"the template shows {{{error.args[0]}}}, and there are only {sorted(problem.fields)}: name one of these"
            ) from None
        if format == "one_shot":
            example = questions.worked_example
            turns = [wording.format(**example.fields), prefix + example.completion, *turns]
        if not self._config.chat:
            return "\n\n".join(joined(turns, prefix))
        roles = ("user", "assistant", "user")
        messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
        if self._config.system:
            messages.insert(0, {"role": "system", "content": self._config.system})
        opened = str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        if format == "one_shot" and turns[1].strip() not in opened:  # Qwen3's leaves out what is in <think> tags
            raise ValueError(
                "the model's chat template leaves out a part of the worked example's answer, probably its reasoning: set "
                "prompts.chat = false, or write the example into prompts.template and ask zero_shot"
            )
        return opened + prefix

    def prefix(self, format: PromptFormat) -> str:
        """How the assistant's turn begins."""
        return "" if format == "natural" else self._config.assistant_prefix


def joined(turns: list[str], prefix: str) -> list[str]:
    """Bare text: each question runs on into its answer; the last one into the prefix."""
    answers = [*turns[1::2], prefix]
    return [question + answer for question, answer in zip(turns[0::2], answers, strict=True)]


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
