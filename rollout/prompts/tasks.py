"""Task name -> its problems and its traces.

A task is found by its file name, as its reward function is: `rollout/prompts/<task>.py` has a function `source`, and
`rollout/prompts/<task>_traces.py`, if a warm start can do without data, a function `traces`. So a new task touches no
list of tasks but the setting `prompts.task` itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module, util

from rollout.config import PromptsConfig, TracesConfig
from rollout.prompts.problems import Problem, ProblemSource

PACKAGE = "rollout.prompts"


def problem_source(config: PromptsConfig) -> ProblemSource:
    """The problems of the recipe's task."""
    module = import_module(f"{PACKAGE}.{config.task}")
    problems: ProblemSource = module.source(getattr(config, config.task), config.num_held_out, config.seed)
    return problems


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, str]]:
    """Endless problems that are not held out, each with a completion to imitate.

    Raises ValueError when the task has none.
    """
    name = f"{PACKAGE}.{prompts.task}_traces"
    if util.find_spec(name) is None:
        raise ValueError(
            f"prompts.task = {prompts.task!r} has no synthetic traces for a warm start: set warm_start.data to a JSONL file "
            "of prompt and completion, or warm_start.num_steps = 0"
        )
    endless: Iterator[tuple[Problem, str]] = import_module(name).traces(prompts, config, seed)
    return endless
