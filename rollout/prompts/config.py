"""Settings of what is asked, and in which words. A task's own settings are the `Config` of its module."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from rollout.tasks.base import WorkedExample
from rollout.tasks.code import Config as CodeConfig
from rollout.tasks.countdown import Config as CountdownConfig
from rollout.tasks.exact_match import Config as ExactMatchConfig
from rollout.tasks.gsm8k import Config as Gsm8kConfig
from rollout.tasks.jsonl import ANY_FIELD
from rollout.tasks.jsonl import Config as JsonlConfig
from rollout.tasks.math import Config as MathConfig
from rollout.tasks.multiple_choice import Config as MultipleChoiceConfig
from rollout.tasks.period_count import Config as PeriodCountConfig
from rollout.tasks.reasoning_gym import Config as ReasoningGymConfig
from rollout.tasks.registry import task_module
from rollout.tasks.text_length import Config as TextLengthConfig
from rollout.tasks.word_problems import Config as WordProblemsConfig
from rollout.types.prompts import PromptFormat

TaskName = Literal[
    "code",
    "countdown",
    "exact_match",
    "gsm8k",
    "jsonl",
    "math",
    "multiple_choice",
    "period_count",
    "reasoning_gym",
    "text_length",
    "word_problems",
]


class TaskConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A task, its settings, and the wording of its questions."""

    task: TaskName = "countdown"
    """Name of the task: `rollout/tasks/<task>.py` asks, `rewards/tasks/<task>.py` marks."""
    template: str | None = None
    """The question, with named fields such as {numbers} that the task fills in. Not set: the task's own wording, which
    asks for `<think>` and `<answer>` tags."""
    natural_template: str | None = None
    """The question in the natural format, which asks for no tags. Not set: the task's own wording."""
    example: WorkedExample | None = None
    """What the one-shot format shows first. Not set: the task's own."""
    code: CodeConfig = CodeConfig()
    countdown: CountdownConfig = CountdownConfig()
    exact_match: ExactMatchConfig = ExactMatchConfig()
    gsm8k: Gsm8kConfig = Gsm8kConfig()
    jsonl: JsonlConfig = JsonlConfig()
    math: MathConfig = MathConfig()
    multiple_choice: MultipleChoiceConfig = MultipleChoiceConfig()
    period_count: PeriodCountConfig = PeriodCountConfig()
    reasoning_gym: ReasoningGymConfig = ReasoningGymConfig()
    text_length: TextLengthConfig = TextLengthConfig()
    word_problems: WordProblemsConfig = WordProblemsConfig()

    @property
    def settings(self) -> BaseModel:
        """The section of the task."""
        section: BaseModel = getattr(self, self.task)
        return section

    @property
    def marked_by(self) -> str:
        """The task whose reward function marks the answers: this one, unless its settings name another."""
        return str(getattr(self.settings, "marked_by", self.task))

    def wording(self, format: PromptFormat) -> str:
        """The template of that format."""
        module = task_module(self.task)
        if format == "natural":
            return self.natural_template or module.NATURAL_TEMPLATE
        return self.template or module.TEMPLATE

    @property
    def worked_example(self) -> WorkedExample:
        return self.example or task_module(self.task).EXAMPLE

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        for key, wording in (("template", self.template), ("natural_template", self.natural_template)):
            if wording is not None:
                self._check_wording(key, wording)
        if self.example is not None:
            self._check_example(self.example)
        return self

    def _check_wording(self, key: str, wording: str) -> None:
        groups = task_module(self.task).fields(self.settings)
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
            raise ValueError(f"{key} must show {needed}, or nobody can answer it")
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
        """Settings of tasks that are not asked are left out: they decide nothing."""
        others = set(TaskName.__args__) - {self.task}  # type: ignore[attr-defined]
        return {key: value for key, value in dump(self).items() if key not in others}


class MixtureEntry(TaskConfig, frozen=True):
    """One of several kinds of questions. What it does not say is as in `prompts`."""

    weight: float = Field(default=1.0, ge=0.0)
    """Its share of the prompts, relative to the others'."""


class StageConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A stage of a curriculum: which questions, and when it ends."""

    weights: dict[str, float]
    """Shares of the entries of `prompts.mixture`; those not named are not asked."""
    num_steps: int | None = Field(default=None, ge=1)
    """The stage ends after so many steps."""
    pass_rate: float | None = Field(default=None, gt=0.0, le=1.0)
    """The stage ends once the mean pass rate of `window_groups` groups in a row reaches this; with `num_steps`,
    whichever comes first."""


class CurriculumConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What is asked changes over the run."""

    stages: tuple[StageConfig, ...] = ()
    """One after the other, from easy to hard; the last goes on to the end. Empty: the mixture's own weights, always."""
    window_groups: int = Field(default=128, ge=1)
    """Groups over which a stage's pass rate is measured; they are the stage's own."""
    drop_solved_after: int = Field(default=0, ge=0)
    """Leave a problem out once its last so many groups were right throughout, since it has nothing left to teach. For
    sources that list their problems; 0: never."""


class PromptsConfig(TaskConfig, frozen=True):
    """What is asked, and in which words."""

    format: PromptFormat = "zero_shot"
    """`zero_shot`: the question alone. `one_shot`: after a worked example. `natural`: without asking for tags; the
    answer is then the last one in the completion, and `assistant_prefix` is left out."""
    one_shot_steps: int = Field(default=0, ge=0)
    """With `zero_shot`: begin with the worked example, and ask without it more and more often; the share of one-shot
    prompts falls linearly from 1 to 0 over so many steps. 0: never show it."""
    system: str = ""
    """System message, with `chat` only. Empty: none."""
    chat: bool = True
    """Wrap the question in the tokenizer's chat template (true), or use its bare text (false: base models)."""
    assistant_prefix: str = ""
    """How the completion already begins, in R1-Zero style: `Let me solve this step by step.\\n<think>`."""
    max_prompt_tokens: int = Field(default=256, ge=1)
    """Longest prompt, in tokens. A longer one is refused with its id, never cut."""
    num_held_out: int = Field(default=256, ge=1)
    """Problems kept aside for evaluation; none of them is trained on."""
    seed: int = 0
    """Decides the held-out problems and the order of the others. Separate from the run's seed, so that
    runs of different seeds are compared on the same held-out problems."""
    mixture: dict[str, MixtureEntry] = {}
    """Several kinds of questions by a name of your choice, each with a weight. Empty: one kind, described above."""
    curriculum: CurriculumConfig = CurriculumConfig()

    @property
    def tasks(self) -> Mapping[str, TaskConfig]:
        """Every kind of question by name: the mixture's, or the one that there is."""
        return self.mixture or {self.task: self}

    @property
    def weights(self) -> Mapping[str, float]:
        """Shares of the kinds, before any curriculum."""
        return {name: entry.weight for name, entry in self.mixture.items()} or {self.task: 1.0}

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, settings: Any) -> Any:
        """Fill in each mixture entry what it does not say; wording only from the same task."""
        if not isinstance(settings, dict) or not isinstance(settings.get("mixture"), dict):
            return settings
        own = {key: settings[key] for key in TaskConfig.model_fields if key in settings}
        task = own.get("task", cls.model_fields["task"].default)
        shared = {key: value for key, value in own.items() if key not in ("template", "natural_template", "example")}
        mixture = {}
        for name, entry in settings["mixture"].items():
            if isinstance(entry, dict):
                entry = merged(own if entry.get("task", task) == task else shared, entry)
            mixture[name] = entry
        return settings | {"mixture": mixture}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for mistake in self._mistakes():
            raise ValueError(mistake)
        return self

    def _mistakes(self) -> Iterator[str]:
        if self.system and not self.chat:
            yield "system is set but chat = false shows no system message: put its text in template"
        if self.one_shot_steps and self.format != "zero_shot":
            yield f'one_shot_steps = {self.one_shot_steps} with format = "{self.format}": set format = "zero_shot", or one_shot_steps = 0'
        if not any(self.weights.values()):
            yield "mixture: every weight is 0, so nothing would be asked; give at least one entry a weight"
        for number, stage in enumerate(self.curriculum.stages, start=1):
            where = f"curriculum.stages, number {number}"
            if unknown := set(stage.weights) - set(self.tasks):
                yield f"{where}: no mixture entry is called {sorted(unknown)[0]!r}; there are {sorted(self.tasks)}"
            if not any(stage.weights.values()) or any(weight < 0 for weight in stage.weights.values()):
                yield f"{where}: weights = {stage.weights} must be 0 or more, and one of them more"
            if number < len(self.curriculum.stages) and stage.num_steps is None and stage.pass_rate is None:
                yield f"{where} would never end: set its num_steps, its pass_rate, or both"


def shown_fields(key: str, wording: str) -> set[str]:
    """Names of the fields in a template. Raises ValueError, which names `key`, for braces without a partner."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(wording) if name is not None}
    except ValueError as error:
        raise ValueError(f"{key} = {wording!r}: {error}. A brace that is no field is written twice: {{{{") from None


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above`, and what only `below` says, section by section."""
    result = dict(below)
    for key, value in above.items():
        under = below.get(key)
        result[key] = merged(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return result
