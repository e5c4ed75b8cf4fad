"""Settings of how completions are marked."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, Field, field_validator


class RewardsConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which parts a reward has, what they weigh, and what happens when marking fails."""

    weights: dict[str, float] = Field(default_factory=lambda: {"correctness": 0.9, "format": 0.1})
    """Weight of each named part; a reward is their weighted sum, with no unit. The names must be exactly those that
    the task's function returns. The default pays a correct answer 1.0, any other answer in its tags 0.1, none 0.
    Set a part to 0 to log it without training on it."""

    deadline_s: float = 10.0
    """Seconds a worker may take over one completion, and over a group's first joint attempt, before it is killed.
    Arithmetic needs milliseconds; raise it for tasks that run programs, or on a machine that is overloaded."""

    num_workers: int = 1
    """Worker processes, on CPUs. One marks hundreds of Countdown groups a second; add some when `time/rollout_s` is
    spent waiting for rewards."""

    cpus_per_worker: float = 0.25
    """CPUs, or a fraction of one, that Ray reserves for each worker. Raise it to 1 for tasks that compute for long;
    0 reserves nothing."""

    memory_gib: float = 4.0
    """GiB of memory that a worker may allocate; past it the completion's parts get the status `error`. It keeps one
    hostile completion from taking the machine down. Raise it for tasks that load data."""

    on_timeout: Literal["zero", "stop"] = "zero"
    """What a completion past its deadline does: `zero` counts it as reward 0, which is this recipe's choice and is
    counted in `reward/timeouts`; `stop` ends the run. Use `stop` while a task is new."""

    on_error: Literal["zero", "stop"] = "zero"
    """The same for a reward function that raises, returns NaN or infinity, or takes its worker down with it."""

    functions: dict[str, str] = Field(default_factory=dict)
    """Reward functions from outside this package: task name -> `module:function`. The module must be importable on
    every machine of the cluster."""

    @field_validator("weights")
    @classmethod
    def _weights_pay_something(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if not math.isfinite(weight):
                raise ValueError(f"rewards.weights.{name} = {weight}: must be a finite number, such as 0.1")
        if not any(weights.values()):
            raise ValueError(
                f"rewards.weights = {weights}: every completion would get reward 0; "
                "give at least one part a weight, such as correctness = 0.9"
            )
        return weights

    @field_validator("deadline_s")
    @classmethod
    def _deadline_positive(cls, value: float) -> float:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"rewards.deadline_s = {value}: must be finite and above 0 s; the default is 10")
        return value

    @field_validator("memory_gib")
    @classmethod
    def _memory_suffices_for_python(cls, value: float) -> float:
        if not (math.isfinite(value) and value >= 1):
            raise ValueError(f"rewards.memory_gib = {value}: a worker needs at least 1 GiB; the default is 4")
        return value

    @field_validator("num_workers")
    @classmethod
    def _some_workers(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"rewards.num_workers = {value}: nothing would ever be marked; set at least 1")
        return value

    @field_validator("cpus_per_worker")
    @classmethod
    def _cpus_not_negative(cls, value: float) -> float:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"rewards.cpus_per_worker = {value}: must be 0 or more; the default is 0.25")
        return value

    @field_validator("functions")
    @classmethod
    def _paths_name_a_function(cls, functions: dict[str, str]) -> dict[str, str]:
        for task, path in functions.items():
            module, colon, function = path.partition(":")
            if not (module and colon and function):
                raise ValueError(
                    f"rewards.functions.{task} = {path!r}: must read module:function, such as my_rewards:score"
                )
        return functions
