"""Settings of a run's prompts: one task, or several with weights, and how these change over the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from rollout.prompts.task_config import TaskConfig
from rollout.types.names import short_name
from rollout.types.prompts import PromptFormat

MAX_WEIGHT = 1e6
"""Largest weight of an entry. Only the ratios of weights matter."""
WORDING = ("template", "natural_template", "example")


class MixtureEntry(TaskConfig, frozen=True):
    """One of several tasks, or one task with other settings. Settings that it omits are those of `prompts`."""

    weight: float = Field(default=1.0, ge=0.0, le=MAX_WEIGHT)
    """Its share of the prompts, relative to the others'."""


class StageConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """A stage of a curriculum: which entries of the mixture it uses, and when it ends."""

    weights: dict[str, Annotated[float, Field(le=MAX_WEIGHT)]]
    """Weights of the entries of `prompts.mixture`; entries that are not named are not used."""
    num_steps: int | None = Field(default=None, ge=1)
    """The stage ends after this number of steps."""
    pass_rate: float | None = Field(default=None, gt=0.0, le=1.0)
    """The stage ends once the mean pass rate of `window_groups` groups in a row reaches this; with `num_steps`,
    whichever comes first."""


class CurriculumConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """How the prompts change over the run."""

    stages: tuple[StageConfig, ...] = ()
    """The stages in order, from easy to hard; the last continues to the end. Empty: always the mixture's own
    weights."""
    window_groups: int = Field(default=128, ge=1)
    """Number of a stage's groups over which its pass rate is measured."""
    drop_solved_after: int = Field(default=0, ge=0)
    """Leave a problem out after this number of groups in a row in which all completions were right, because nothing is
    left to learn from it. Only for sources that list their problems; 0: never."""


class PromptsConfig(TaskConfig, frozen=True):
    """The tasks, and how their prompts are written."""

    format: PromptFormat = "zero_shot"
    """`zero_shot`: only the question. `one_shot`: a worked example, then the question. `natural`: a question that does
    not ask for tags; the last answer in the completion counts, and `assistant_prefix` is not used."""
    one_shot_steps: int = Field(default=0, ge=0)
    """With `zero_shot`: show the worked example at first, and then less and less often. The share of one-shot prompts
    falls linearly from 1 to 0 over this number of steps. 0: never show it."""
    system: str = ""
    """System message, with `chat` only. Empty: none."""
    chat: bool = True
    """Wrap the question in the tokenizer's chat template (true), or use its bare text (false: base models)."""
    assistant_prefix: str = ""
    """The start of the completion, given as part of the prompt, in R1-Zero style: `Let me solve this step by
    step.\\n<think>`."""
    max_prompt_tokens: int = Field(default=256, ge=1)
    """Longest prompt, in tokens. A longer one is never truncated: if it comes from a listed problem, the run is refused
    and the error names the problem; a drawn problem is replaced by another."""
    on_bad_rows: Literal["refuse", "drop"] = "refuse"
    """What to do with rows that cannot be used: too long, without a field, or with a reference that is empty or that
    the grader cannot read. `refuse`: name them, and do not start. `drop`: leave them out, and log how many."""
    num_held_out: int = Field(default=256, ge=1, le=1_000_000)
    """Number of problems that are kept for evaluation and never trained on."""
    seed: int = 0
    """Decides the held-out problems and the order of the others. It is separate from the run's seed, so that runs with
    different seeds are compared on the same held-out problems."""
    mixture: dict[str, MixtureEntry] = Field(default_factory=dict)
    """Several tasks, or one task with several settings, each with a name of your choice and a weight. Empty: the one
    task that `prompts` describes."""
    curriculum: CurriculumConfig = CurriculumConfig()

    @property
    def tasks(self) -> Mapping[str, TaskConfig]:
        """The tasks by name: the entries of the mixture, or the only task."""
        return self.mixture or {self.name: self}

    @property
    def weights(self) -> Mapping[str, float]:
        """The tasks' shares of the prompts, before any curriculum."""
        return {name: entry.weight for name, entry in self.mixture.items()} or {self.name: 1.0}

    @property
    def last_weights(self) -> Mapping[str, float]:
        """The tasks' shares in the last stage of the curriculum, which are also those of an evaluation."""
        stages = self.curriculum.stages
        return stages[-1].weights if stages else self.weights

    @classmethod
    def sections(cls, given: Mapping[str, Any]) -> dict[str, str]:
        """Return the sections of `TaskConfig.sections`, and those of the tasks in the mixture."""
        mixture = given.get("mixture")
        entries = (
            [entry for entry in mixture.values() if isinstance(entry, Mapping)] if isinstance(mixture, Mapping) else []
        )
        tasks = [entry["task"] for entry in entries if isinstance(entry.get("task"), str)]
        return {short_name(task): task for task in tasks} | super().sections(given)

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, settings: Any) -> Any:
        """Fill in what an entry of the mixture omits: environment and section, and for the same task the templates."""
        if not isinstance(settings, dict) or not isinstance(settings.get("mixture"), dict):
            return settings
        own_task = settings.get("task", cls.model_fields["task"].default)
        mixture = {}
        for name, entry in settings["mixture"].items():
            if isinstance(entry, dict):
                task = entry.get("task", own_task)
                keys = ["task", "environment", short_name(str(task)), *(WORDING if task == own_task else ())]
                entry = merged({key: settings[key] for key in keys if key in settings}, entry)
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
            yield (
                f'one_shot_steps = {self.one_shot_steps} with format = "{self.format}": set format = "zero_shot", or '
                "one_shot_steps = 0"
            )
        if not any(self.weights.values()):
            yield "mixture: every weight is 0, so there would be no prompts; give at least one entry a weight"
        for number, stage in enumerate(self.curriculum.stages, start=1):
            where = f"curriculum.stages, number {number}"
            if unknown := set(stage.weights) - set(self.tasks):
                yield f"{where}: no mixture entry is called {sorted(unknown)[0]!r}; there are {sorted(self.tasks)}"
            if not any(stage.weights.values()) or any(weight < 0 for weight in stage.weights.values()):
                yield f"{where}: weights = {stage.weights} must be 0 or more, and one of them more"
            if number < len(self.curriculum.stages) and stage.num_steps is None and stage.pass_rate is None:
                yield f"{where} would never end: set its num_steps, its pass_rate, or both"


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `above`, and what only `below` says, section by section."""
    result = dict(below)
    for key, value in above.items():
        under = below.get(key)
        result[key] = merged(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return result
