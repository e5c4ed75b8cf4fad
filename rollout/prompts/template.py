"""Turn problems into prompts: template, format, chat template and token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from rollout.prompts.chat import OPENED, Tokenizer, assistant_opening, encode, worded
from rollout.prompts.config import PromptsConfig
from rollout.prompts.decoding import check_tags
from rollout.prompts.lengths import PromptLengths
from rollout.prompts.task_config import TaskConfig
from rollout.tasks.base import Problem
from rollout.types.prompts import Prompt, PromptFormat

BATCH = 1_000
"""Number of problems that are checked together."""


class OverlongPromptError(ValueError):
    """A prompt is longer than `prompts.max_prompt_tokens`."""


class Template:
    """Renders problems as the recipe says."""

    def __init__(self, config: PromptsConfig, tokenizer: Tokenizer) -> None:
        """Raise ValueError when tokenizer and recipe do not fit.

        A chat template is wanted and there is none, it opens `<think>` as `prompts.assistant_prefix` does, or a tag
        does not survive the tokenizer.
        """
        if config.chat and not tokenizer.chat_template:
            raise ValueError(
                "prompts.chat = true, but the model's tokenizer has no chat template: set prompts.chat = false"
            )
        if config.format != "natural":
            check_tags(tokenizer)
        self._config = config
        self._tokenizer = tokenizer
        self._opening = assistant_opening(tokenizer, config.system) if config.chat else ""
        if OPENED in self._opening and OPENED in config.assistant_prefix:
            raise ValueError(
                f"the model's chat template begins the assistant's turn with {self._opening!r}, and "
                f"prompts.assistant_prefix = {config.assistant_prefix!r} opens {OPENED} again: leave it out there"
            )

    def prompt(self, prompt_id: str, problem: Problem, format: PromptFormat | None = None, name: str = "") -> Prompt:
        """Return the prompt of a problem, in the recipe's format or another.

        Args:
            name: the task's name in `prompts.tasks`; empty: the task that `prompts` itself describes.

        Raises OverlongPromptError when the prompt is longer than `prompts.max_prompt_tokens`.
        """
        task = self._config.tasks[name] if name else self._config
        format = format or self._config.format
        text = self.text(problem, format, task)
        # A chat template has written its own special tokens; a base model's text gets the tokenizer's (often none).
        token_ids = encode(self._tokenizer, text, f"prompt {prompt_id}", add_special_tokens=not self._config.chat)
        if too_long := self._too_long(len(token_ids), format):
            raise OverlongPromptError(f"prompt {prompt_id} {too_long}")
        return Prompt(
            id=prompt_id,
            token_ids=token_ids,
            text=text,
            grader=task.grader,
            answer=problem.answer if format != "natural" else {**problem.answer, "extraction": "natural"},
            assistant_prefix=self._opening + self.prefix(format),
            format=format,
            source=name or task.name,
            key=problem.key,
            difficulty=problem.difficulty,
            environment=task.environment,
            messages=tuple(self._conversation(self._turns(problem, format, task))) if self._config.chat else (),
        )

    def faults(
        self, problems: Sequence[Problem], format: PromptFormat | None = None, name: str = ""
    ) -> Iterator[str | None]:
        """Yield for each problem why it cannot be used in a format, such as its length; None if it can."""
        task = self._config.tasks[name] if name else self._config
        format = format or self._config.format
        count: PromptLengths | None = None
        for start in range(0, len(problems), BATCH):
            batch = problems[start : start + BATCH]
            try:
                asked = [self._turns(problem, format, task) for problem in batch]
                if count is None:
                    (frame,) = self._worded([[*asked[0][:-1], ""]], format)
                    limit, bare = self._config.max_prompt_tokens, not self._config.chat
                    count = PromptLengths(self._tokenizer, limit, frame, add_special_tokens=bare)
                lengths = count([turns[-1] for turns in asked], partial(self._some_worded, asked, format))
            except Exception:  # noqa: BLE001  any error comes again with the problem that causes it
                yield from (self._fault(problem, format, name) for problem in batch)
            else:
                yield from (self._too_long(length, format) or None for length in lengths)

    def _fault(self, problem: Problem, format: PromptFormat, name: str) -> str | None:
        try:
            self.prompt("of this row", problem, format, name)
        except ValueError as error:
            return str(error)
        return None

    def _too_long(self, length: int, format: PromptFormat) -> str:
        """Return the error for a prompt with this number of tokens, to follow its name; empty if it fits."""
        if length <= self._config.max_prompt_tokens:
            return ""
        return (
            f"has {length} tokens in the format {format}, above prompts.max_prompt_tokens = "
            f"{self._config.max_prompt_tokens}: raise it, or shorten the template or the example"
        )

    def text(self, problem: Problem, format: PromptFormat = "zero_shot", task: TaskConfig | None = None) -> str:
        """Return the whole prompt as text. Raises ValueError for a template with fields that the problem lacks."""
        return self._worded([self._turns(problem, format, task or self._config)], format)[0]

    def _some_worded(self, asked: Sequence[list[str]], format: PromptFormat, positions: Sequence[int]) -> list[str]:
        return self._worded([asked[position] for position in positions], format)

    def _worded(self, asked: Sequence[list[str]], format: PromptFormat) -> list[str]:
        """Return the whole prompts of the turns of some problems."""
        if not self._config.chat or not asked:
            return ["\n\n".join(joined(turns, self.prefix(format))) for turns in asked]
        opened = worded(self._tokenizer, [self._conversation(turns) for turns in asked])
        if format == "one_shot" and asked[0][1].strip() not in opened[0]:  # Qwen3's leaves out what is in <think> tags
            raise ValueError(
                "the model's chat template leaves out a part of the worked example's answer, probably its reasoning: "
                "set prompts.chat = false, or write the example into prompts.template and ask zero_shot"
            )
        return [text + self.prefix(format) for text in opened]

    def _conversation(self, turns: Sequence[str]) -> list[dict[str, str]]:
        """Return the messages of a question, after the example and its answer if there is one."""
        said = [("system", self._config.system), *zip(("user", "assistant", "user"), turns, strict=False)]
        return [{"role": role, "content": content} for role, content in said if content or role != "system"]

    def _turns(self, problem: Problem, format: PromptFormat, task: TaskConfig) -> list[str]:
        """Return the question; in the one-shot format after the example and its answer."""
        wording = task.wording(format)
        try:
            question = wording.format(**problem.fields)
        except KeyError as error:  # a task of any columns finds out now which there are
            raise ValueError(
                f"the template shows {{{error.args[0]}}}, but there are only {sorted(problem.fields)}: name one of "
                "these"
            ) from None
        if format != "one_shot":
            return [question]
        example = task.worked_example
        answered = self._opening + self.prefix(format) + example.completion
        try:
            return [wording.format(**example.fields), answered, question]
        except KeyError as error:  # the task's own example knows no column of a file
            raise ValueError(
                f"the template shows {{{error.args[0]}}}, which the worked example lacks: set prompts.example"
            ) from None

    def prefix(self, format: PromptFormat) -> str:
        """Return the text that the assistant's turn starts with, after what a chat template writes there."""
        return "" if format == "natural" else self._config.assistant_prefix


def joined(turns: list[str], prefix: str) -> list[str]:
    """Return plain text: each question followed by its answer, the last one by the prefix."""
    answers = [*turns[1::2], prefix]
    return [question + answer for question, answer in zip(turns[0::2], answers, strict=True)]
