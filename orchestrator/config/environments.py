"""The environments of a run: their classes, their reward parts, and the rules for turns."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.config.schema import RunConfig
from rewards.environments.registry import EnvironmentSpec, environment_spec, max_bytes_of
from rollout.types.names import nearest
from rollout.types.sampling import TurnRules


def environment_specs(config: RunConfig) -> dict[str, EnvironmentSpec]:
    """Return the run's environments by name. Imports their classes; raises EnvironmentConfigError."""
    settings = config.environment
    longest = max_bytes_of(settings.max_observed_tokens)
    return {
        name: environment_spec(name, settings.parameters.get(class_of(name), {}), settings.deadline_s, longest)
        for name in config.environments
    }


def turn_rules(config: RunConfig) -> TurnRules | None:
    """Return the rules for completions of several turns; None without environments. Raises EnvironmentConfigError."""
    if not config.environments:
        return None
    settings = config.environment
    stops = {name: spec.stop for name, spec in environment_specs(config).items()}
    return TurnRules(stops, settings.max_turns, settings.max_observed_tokens, config.prompts.chat)


def environment_parts(config: RunConfig) -> set[str]:
    """Return the names of the reward parts that environments give. Raises EnvironmentConfigError."""
    return {part for spec in environment_specs(config).values() for part in spec.parts}


def entry_parts(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Return the parts from the environment of each entry of the mixture, by the entry's name."""
    specs = environment_specs(config)
    entries = config.prompts.tasks.items()
    return {name: specs[task.environment].parts if task.environment else () for name, task in entries}


def environment_conflicts(config: RunConfig) -> Iterator[str]:
    """Yield an error for each environment that cannot be used, and for parameters of unknown environments."""
    try:
        environment_specs(config)
    except ValueError as error:
        yield str(error)
        return
    known = sorted(map(class_of, config.environments))
    for name in sorted(config.environment.parameters.keys() - {*known}):
        yield f"environment.parameters.{name}: prompts.environment names no such environment; {nearest(name, known)}"
    deadline_s, stall_s = config.environment.deadline_s, config.rollout.stall_timeout_s
    if config.environments and deadline_s >= stall_s:
        yield (
            f"environment.deadline_s = {deadline_s:g} is not below rollout.stall_timeout_s = {stall_s:g}: the run "
            "would stop before an environment that hangs is killed; lower it"
        )


def class_of(name: str) -> str:
    """Return the name under which an environment has its parameters: its own, or the class name of `module:Class`."""
    return name.rpartition(":")[2]
