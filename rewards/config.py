"""Settings for grading completions."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from rewards.function import MAX_IN_FLIGHT, RIGHT_UNTAGGED
from rewards.judge.config import JUDGE_DEADLINE_S, JudgeConfig

_BOUNDS = {
    "memory_gib": (1, 1_048_576, "grading needs at least 1 GiB, and no machine has a PiB; the default is 4"),
    "num_workers": (1, 10_000, "nothing would ever be graded; set at least 1, and at most 10,000"),
    "max_pending_groups": (1, math.inf, "nothing would ever be graded; set at least 1"),
    "max_in_flight": (1, 10_000, "no such function would ever be called; set at least 1, and at most 10,000"),
    "cpus_per_worker": (0, 10_000, "must be 0 or more, and at most 10,000; the default is 0.25"),
    "max_failed_share": (0, 1, "must be from 0 to 1; the default is 0.2"),
}
"""Smallest and largest value of a setting, and what the error says about other values."""


MAX_DEADLINE_S = 86_400.0
"""Longest deadline of a function: a day, in seconds."""
MAX_WEIGHT = 1e6
"""Largest absolute weight of a part."""
RESERVED = frozenset({"total", "timeouts", "errors", RIGHT_UNTAGGED})
"""Names that parts must not have, because `reward/total` and the others are metrics of the whole reward."""


class RewardConfigError(ValueError):
    """The settings do not fit the reward functions."""


class EnsembleConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """One part computed from others, such as the best of several."""

    by: Literal["max", "min", "sum"]
    """How the members' weighted values are combined."""
    weights: dict[str, float]
    """Weight of each member, a part. A failed member counts as 0, as in the reward itself."""


class RewardsConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """The parts of a reward, their weights, and what happens when grading fails."""

    weights: dict[str, float] = Field(default_factory=lambda: {"correctness": 0.9, "answer_tags": 0.1})
    """Weight of each named part or ensemble; a reward is their weighted sum, with no unit. A part comes from the task,
    from this package's general parts (docs/rewards.md lists them) or from `functions`. The default gives 1.0 for a
    correct answer in its tags, 0.1 for any other answer in its tags, and 0 without tags. With weight 0 a part is logged
    but not trained on; the task's own parts and those of `functions` are always logged."""

    ensembles: dict[str, EnsembleConfig] = Field(default_factory=dict)
    """Parts computed from other parts; `weights` refers to them by name. `tags_or_right = { by = "max", weights = {
    correctness = 1.0, tag_pairs = 0.1 } }` gives 0.1 for each pair of tags, or 1.0 for a correct answer."""

    functions: tuple[str, ...] = ()
    """Your own parts, each a function `module:function` that takes (text, answer) and returns a number. A function may
    also score a whole group, be `async def`, or be written for TRL (docs/rewards.md). The part has the function's name.
    The module must be importable on every machine of the cluster."""

    judges: dict[str, JudgeConfig] = Field(default_factory=dict)
    """Parts that a language model scores, by the names of the parts: `[rewards.judges.clarity]` with `model`, `rubric`
    and `base_url` (docs/rewards.md)."""

    tasks: dict[str, str] = Field(default_factory=dict)
    """Your own grader of a task, in place of this package's: task name -> `module:function`, which takes (text,
    answer) and returns a mapping of named parts."""

    parameters: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Keyword arguments by function: a general part's name, one of `functions`, or a task's name for its `score`."""

    deadline_s: float = 10.0
    """Seconds that one function may take over one completion before the process it runs in is killed. Time spent
    waiting for a busy CPU is not counted, up to three times the deadline. Arithmetic needs less than a millisecond;
    raise it for functions that run programs."""

    deadlines_s: dict[str, float] = Field(default_factory=dict)
    """Deadlines in seconds of single functions, named as in `parameters`, in place of `deadline_s`."""

    num_workers: int = 1
    """Workers, on CPUs. Each grades one completion at a time, thousands per second for Countdown; raise it when
    `time/rollout_s` is spent waiting for rewards."""

    cpus_per_worker: float = 0.25
    """CPUs, or a fraction of one, that Ray reserves for each worker. Raise it to 1 for tasks with slow grading; 0
    reserves nothing."""

    max_in_flight: int = MAX_IN_FLIGHT
    """Largest number of concurrent calls of `async def` functions in one worker. Lower it to what their service can
    handle, because waiting for it counts against their deadline."""

    memory_gib: float = 4.0
    """GiB of memory that grading one completion may allocate; beyond it the function's parts get the status `error`.
    This protects the machine from a hostile completion. Raise it for tasks that load data."""

    max_pending_groups: int = 512
    """Largest number of groups that wait for grades; with more, sampling waits until some are graded."""

    on_timeout: Literal["zero", "stop"] = "zero"
    """What happens when a function misses its deadline: `zero` counts its parts as 0 and counts the completion in
    `reward/timeouts`; `stop` ends the run. Use `stop` while a task is new."""

    on_error: Literal["zero", "stop"] = "zero"
    """The same for a function that raises, returns NaN or infinity, or crashes its process."""

    max_failed_share: float = 0.2
    """Largest share of completions with a timeout or an error, among the last 512 that were graded (at least 64). Above
    it the run stops and says what failed, because nothing is learned from a broken function. 1 never stops it."""

    @field_validator("weights")
    @classmethod
    def _weights_pay_something(cls, weights: dict[str, float]) -> dict[str, float]:
        _check_weights("rewards.weights", weights)
        if not any(weights.values()):
            raise ValueError(
                f"rewards.weights = {weights}: every completion would get reward 0; "
                "give at least one part a weight, such as correctness = 0.9"
            )
        return weights

    @field_validator("ensembles")
    @classmethod
    def _ensembles_have_members(cls, ensembles: dict[str, EnsembleConfig]) -> dict[str, EnsembleConfig]:
        for name, ensemble in ensembles.items():
            key = f"rewards.ensembles.{name}.weights"
            _check_weights(key, ensemble.weights)
            if not ensemble.weights:
                raise ValueError(f"{key} is empty: name the parts it is made of, such as correctness = 1.0")
            nested = ensemble.weights.keys() & ensembles.keys()
            if nested:
                raise ValueError(f"{key}.{min(nested)}: an ensemble is made of parts, not of ensembles")
        return ensembles

    @field_validator("functions")
    @classmethod
    def _functions_have_one_name_each(cls, functions: tuple[str, ...]) -> tuple[str, ...]:
        for path in functions:
            _check_path("rewards.functions", path, "my_rewards:closeness")
        name, count = (Counter(path.partition(":")[2] for path in functions).most_common(1) or [("", 0)])[0]
        if count > 1:
            raise ValueError(f"rewards.functions has {count} functions named {name}, which names a part: rename one")
        return functions

    @field_validator("tasks")
    @classmethod
    def _tasks_name_a_function(cls, tasks: dict[str, str]) -> dict[str, str]:
        for task, path in tasks.items():
            _check_path(f"rewards.tasks.{task}", path, "my_rewards:score")
        return tasks

    @field_validator("parameters")
    @classmethod
    def _parameters_are_finite(cls, parameters: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for function, given in parameters.items():
            for name, value in given.items():
                try:
                    json.dumps(value, allow_nan=False, default=str)
                except ValueError:
                    key = f"rewards.parameters.{function}.{name}"
                    raise ValueError(f"{key} = {value}: must not hold NaN or infinity; set a finite number") from None
        return parameters

    @field_validator("deadlines_s")
    @classmethod
    def _deadlines_positive(cls, deadlines: dict[str, float]) -> dict[str, float]:
        for name, value in deadlines.items():
            _check_deadline(f"rewards.deadlines_s.{name}", value)
        return deadlines

    @field_validator("deadline_s")
    @classmethod
    def _deadline_positive(cls, value: float) -> float:
        _check_deadline("rewards.deadline_s", value)
        return value

    @field_validator(*_BOUNDS)
    @classmethod
    def _is_within_its_bounds(cls, value: float, info: Any) -> float:
        least, most, what = _BOUNDS[info.field_name]
        if not (math.isfinite(value) and least <= value <= most):
            raise ValueError(f"rewards.{info.field_name} = {value}: {what}")
        return value

    @model_validator(mode="after")
    def _names_are_told_apart(self) -> Self:
        own = {path.partition(":")[2]: f"the function {path} of rewards.functions" for path in self.functions}
        own |= {name: f"rewards.judges.{name}" for name in self.judges}
        for name, what in ({name: f"rewards.ensembles.{name}" for name in self.ensembles} | own).items():
            if name in RESERVED:
                raise ValueError(f"{what} would be a part called {name}, and reward/{name} is a metric: rename it")
        for path in self.functions:
            name = path.partition(":")[2]
            for key in ("ensembles", "judges"):
                if name in getattr(self, key):
                    raise ValueError(f"rewards.{key}.{name} has the name of {path} in rewards.functions: rename one")
        for name in self.judges:
            if name in self.ensembles:
                raise ValueError(f"rewards.ensembles.{name} has the name of rewards.judges.{name}: rename one")
            if name in self.parameters:
                raise ValueError(f"rewards.parameters.{name}: a judge is set up in rewards.judges.{name} alone")
        return self

    @model_validator(mode="after")
    def _rates_leave_time(self) -> Self:
        for name, judge in self.judges.items():
            if why := judge.rate_conflict(name, self.num_workers, self.max_in_flight, self.deadline_of(name)):
                raise ValueError(why)
        return self

    def deadline_of(self, name: str) -> float:
        """Return the deadline of a function, named as in `parameters`, or of a judge; seconds."""
        return self.deadlines_s.get(name, JUDGE_DEADLINE_S if name in self.judges else self.deadline_s)


def _check_weights(key: str, weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        if not abs(weight) <= MAX_WEIGHT:
            raise ValueError(f"{key}.{name} = {weight}: must be from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, such as 0.1")


def _check_path(key: str, path: str, example: str) -> None:
    module, colon, function = path.partition(":")
    if not (module and colon and function.isidentifier()):
        raise ValueError(f"{key}: {path!r} must read module:function, such as {example}")


def _check_deadline(key: str, value: float) -> None:
    if not 0 < value <= MAX_DEADLINE_S:
        raise ValueError(
            f"{key} = {value}: must be above 0 s and at most {MAX_DEADLINE_S:g} s; rewards.deadline_s is 10 by default"
        )
