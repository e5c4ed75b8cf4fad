"""Settings of a task: its name, its own section, and its templates."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    BaseModel,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from rollout.tasks.base import ANY_FIELD, Problem, ProblemSource, Task, WorkedExample, load_task, task_names
from rollout.types.names import short_name
from rollout.types.prompts import PromptFormat

LONGEST_EXAMPLE = 200
"""Longest question, in characters, that is shown as an example of what to ask."""


class RawSection(NamedTuple):
    """The settings of a task, before they are validated."""

    task: str
    given: Any


def read_section(value: Any) -> Any:
    """Return a section as the settings of its task. Raises PydanticKnownError for a key that is no section."""
    if not isinstance(value, RawSection):
        raise PydanticKnownError("extra_forbidden")
    try:
        model = load_task(value.task).SETTINGS
    except ValueError:  # said of the key `task`
        return value.given
    return model.model_validate(value.given)


class TaskConfig(BaseModel, frozen=True, extra="allow", use_attribute_docstrings=True, allow_inf_nan=False):
    """A task, its settings, and its templates.

    Its settings are in a section with the task's name, `[prompts.countdown]`; for your own task `my_package.my_task` in
    `[prompts.my_task]`. The task's module defines the settings.
    """

    __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(read_section)]] = Field(init=False)
    """The sections: the task's own, and those of other tasks that the recipe has."""

    task: str = "countdown"
    """Name of the task, a module of rollout/tasks, or the dotted path of your own module: `my_package.my_task`."""
    template: str | None = None
    """The question, with named fields such as {numbers} that the task fills in. Not set: the task's own template, which
    asks for `<think>` and `<answer>` tags."""
    natural_template: str | None = None
    """The question in the natural format, which does not ask for tags. Not set: the task's own template."""
    example: WorkedExample | None = None
    """The worked example of the one-shot format. Not set: the task's own."""
    environment: str = ""
    """The environment that answers the policy's turns: the name of a shipped one, or your own `module:Class`. Empty: no
    environment, and a completion is one turn. `[environment]` has the limits."""

    @classmethod
    def sections(cls, given: Mapping[str, Any]) -> dict[str, str]:
        """Return the sections that a recipe with these settings may have: their keys, and the tasks they belong to."""
        task = given.get("task", cls.model_fields["task"].default)
        own = {short_name(task): task} if isinstance(task, str) else {}
        return {name: name for name in task_names()} | own

    @property
    def name(self) -> str:
        """The last part of the task's name, which is also the key of its section."""
        return short_name(self.task)

    @property
    def settings(self) -> Any:
        """The section of the task, an instance of its module's `SETTINGS`."""
        return self.__pydantic_extra__[self.name]

    @property
    def grader(self) -> str:
        """The grader of the answers: what the settings name, or else the module, or else that of the task's name."""
        return str(getattr(self.settings, "grader", None) or self._optional("GRADER") or self.name)

    @property
    def traces(self) -> str | None:
        """The dotted path of the module with the traces for a warm start; None where the task has none."""
        return self._optional("TRACES")

    def example_question(self, problem: Problem, format: PromptFormat) -> tuple[str, str | None] | None:
        """Return a question for `rayzero solve`, and its answer where that is needed to check it.

        It is the task's own, or that of `problem` where one line asks it; None where neither does.
        """
        if question := self._optional("EXAMPLE_QUESTION"):
            return question, None
        first = next((group[0] for group in self.field_groups), "")
        question, answer = problem.fields.get(first, ""), problem.answer.get("answer")
        try:
            self.read_question(question, None, format)
        except ValueError:
            return None
        if not 0 < len(question) <= LONGEST_EXAMPLE or not question.isprintable():
            return None
        return question, answer if isinstance(answer, str) else None

    @property
    def field_groups(self) -> tuple[tuple[str, ...], ...]:
        """The fields that a template may show, in groups: it must show at least one of each group."""
        return self._module.fields(self.settings)

    def source(self, num_held_out: int, seed: int, *, by_shown: bool = True) -> ProblemSource:
        """Return the problems. Raises ValueError when there are too few of them, or a row is malformed.

        Args:
            by_shown: tell rows apart by all that the templates show; earlier versions did so by the question alone.
        """
        if by_shown and (showing := self._optional("source_showing")):
            texts = {"template": self.wording("zero_shot"), "natural_template": self.wording("natural")}
            shown = {name for key, wording in texts.items() for name in shown_fields(key, wording)}
            problems: ProblemSource = showing(self.settings, num_held_out, seed, shown)
            return problems
        return self._module.source(self.settings, num_held_out, seed)

    def wording(self, format: PromptFormat) -> str:
        """Return the template of that format."""
        if format == "natural":
            return self.natural_template or self._module.NATURAL_TEMPLATE
        return self.template or self._module.TEMPLATE

    @property
    def worked_example(self) -> WorkedExample:
        """The example of the one-shot format."""
        return self.example or self._module.EXAMPLE

    def check_traces(self) -> None:
        """Raise ValueError for problems that the traces for a warm start are not made for."""
        if check := self._optional("check_traces"):
            check(self.settings)

    def check_max_integer(self, max_integer: int) -> None:
        """Raise ValueError for problems that a tokenizer of the numbers up to `max_integer` cannot hold."""
        if check := self._optional("check_max_integer"):
            check(self.settings, max_integer)

    def read_question(self, question: str, answer: str | None, format: PromptFormat) -> Problem:
        """Return the problem of a question that a user typed. Raises ValueError when the text is no question."""
        if read := self._optional("read_question"):
            return read(question, answer, self.settings)
        needed = self.field_groups
        shown = shown_fields("template", self.wording(format))
        if len(needed) != 1 or not shown <= set(needed[0]):
            raise ValueError(
                f"prompts.task = {self.task!r} asks with {' and '.join(f'{{{name}}}' for name in sorted(shown))}, "
                "which one question does not fill: use `rayzero eval`, which prints completions, or name another "
                "recipe with --recipe"
            )
        answers = {} if answer is None else {"answer": answer}
        return Problem(fields=dict.fromkeys(needed[0], question), answer=answers, key=question)

    @property
    def _module(self) -> Task:
        return load_task(self.task)

    def _optional(self, name: str) -> Any:
        """Return what the task's module holds under that name; None where it holds nothing."""
        return getattr(self._module, name, None)

    @field_validator("task")
    @classmethod
    def _exists(cls, task: str) -> str:
        try:
            if (key := short_name(task)) in cls.model_fields:
                raise ValueError(f"its section prompts.{key} would be the setting of that name; rename the module")
            load_task(task)
        except ValueError as error:
            raise PydanticCustomError("unknown_task", "{reason}", {"reason": str(error)}) from error
        return task

    @model_validator(mode="before")
    @classmethod
    def _find_sections(cls, given: Any) -> Any:
        """Tell sections from unknown keys, and add the task's own where the recipe leaves it out."""
        if not isinstance(given, dict):
            return given
        sections = {key: task for key, task in cls.sections(given).items() if key not in cls.model_fields}
        own = short_name(str(given.get("task", cls.model_fields["task"].default)))
        added: dict[str, Any] = {own: {}} if own in sections else {}
        return {
            key: RawSection(sections[key], value) if key in sections else value
            for key, value in (added | given).items()
        }

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        for key, wording in (("template", self.template), ("natural_template", self.natural_template)):
            if wording is not None:
                self._check_wording(key, wording)
        if self.example is not None:
            self._check_example(self.example)
        return self

    def _check_wording(self, key: str, wording: str) -> None:
        groups = self.field_groups
        known = {name for group in groups for name in group}
        fields = shown_fields(key, wording)
        if ANY_FIELD in known:
            known |= fields
        if unknown := fields - known:
            raise ValueError(f"{key} asks for the fields {sorted(unknown)}: {self.task} has {sorted(known)}")
        if not all(fields & set(group) for group in groups):
            needed = ", and ".join(
                " or ".join(f"{{{name}}}" for name in group if name != ANY_FIELD) for group in groups
            )
            raise ValueError(f"{key} must show {needed}, or the question cannot be answered")
        try:
            wording.format(**dict.fromkeys(known, "a text"))
        except (ValueError, LookupError) as error:
            raise ValueError(f"{key} = {wording!r}: {error}. Fields are texts; write {{name}} alone") from None

    def _check_example(self, example: WorkedExample) -> None:
        if missing := shown_fields("template", self.wording("one_shot")) - example.fields.keys():
            raise ValueError(
                f"example.fields = {example.fields} lacks {sorted(missing)}, which the template shows: add it"
            )

    @model_serializer(mode="wrap")
    def _without_other_tasks(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the settings of tasks that are not asked: they decide nothing."""
        kept = {*type(self).model_fields, self.name}
        return {key: value for key, value in dump(self).items() if key in kept}


def shown_fields(key: str, wording: str) -> set[str]:
    """Return the names of the fields in a template. Raises ValueError, which names `key`, for an unmatched brace."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(wording) if name is not None}
    except ValueError as error:
        raise ValueError(f"{key} = {wording!r}: {error}. Write a brace that is not a field twice: {{{{") from None
