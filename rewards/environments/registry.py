"""Find environments: this package's by their names, a user's by ``module:Class``."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, get_type_hints

from rollout.types.environments import Environment
from rollout.types.names import nearest

SHIPPED = {
    "calculator": "rewards.environments.calculator:Calculator",
    "guess": "rewards.environments.guess:Guess",
    "python": "rewards.environments.python:Python",
}
OPENENV = "openenv:"
"""Prefix of the names of OpenEnv's environments."""
METHODS = {"start": ("prompt", "seed"), "step": ("text",), "close": ()}
"""An environment's methods and their arguments."""
BYTES_PER_TOKEN = 8
"""Tokens are rarely longer; a text that is cut here would also be cut by its tokens."""
SPARE_BYTES = 4096


class EnvironmentConfigError(ValueError):
    """An environment does not exist, lacks a method, or does not take its parameters. The message has key and fix."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """The location of an environment's class, and the settings of its objects."""

    name: str
    """As in ``prompts.environment``."""
    path: str
    """``module:Class``."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float = 10.0
    """Seconds that each call may take."""
    max_bytes: int = 2**14
    """Longest text of an observation, in bytes of UTF-8."""
    stop: tuple[str, ...] = ()
    """Texts that end a turn."""
    parts: tuple[str, ...] = ()
    """Names of the reward parts that it declares."""

    def load(self) -> Callable[..., Environment]:
        """Import the class, call its ``prepare`` if it has one, and return it. No deadline applies.

        Raises EnvironmentConfigError if there is no such class, and any error of ``prepare``, which raises if the
        environment cannot run on this machine.
        """
        environment = import_class(self.path)
        prepare = getattr(environment, "prepare", None)
        if prepare is not None:
            prepare(**self.parameters)
        made: Callable[..., Environment] = environment
        return made


def environment_spec(
    name: str, parameters: Mapping[str, Any], deadline_s: float = 10.0, max_bytes: int = 2**14
) -> EnvironmentSpec:
    """Return the environment with that name. Imports its class.

    Raises EnvironmentConfigError for an unknown name, and for parameters that its class does not take.
    """
    path = SHIPPED.get(name, name)
    if name.startswith(OPENENV):
        path, parameters = "rewards.environments.openenv:OpenEnv", {"package": name.removeprefix(OPENENV), **parameters}
    if ":" not in path:
        raise EnvironmentConfigError(
            f'prompts.environment = "{name}": there is no such environment; {nearest(name, SHIPPED)} Your own '
            "is module:Class"
        )
    environment = import_class(path)
    check_parameters(name, environment, parameters)
    if path.startswith("rewards."):
        check_values(name, environment, parameters)
    longest_call_s = getattr(environment, "longest_call_s", None)
    if longest_call_s is not None and (longest := longest_call_s(**parameters)) >= deadline_s:
        raise EnvironmentConfigError(
            f"environment.deadline_s = {deadline_s:g} kills {name} before its own limit of {longest:g} s by the clock "
            f"ends a call: raise it, or lower environment.parameters.{name}"
        )
    parts_of = getattr(environment, "parts_of", None)
    return EnvironmentSpec(
        name=name,
        path=path,
        parameters=dict(parameters),
        deadline_s=deadline_s,
        max_bytes=max_bytes,
        stop=_stop(path, environment),
        parts=parts_of(**parameters) if parts_of else _texts(path, environment, "parts", "names of reward parts"),
    )


def max_bytes_of(max_observed_tokens: int) -> int:
    """Return the longest useful observation, in bytes, for a completion with room for this many tokens."""
    return BYTES_PER_TOKEN * max_observed_tokens + SPARE_BYTES


def import_class(path: str) -> type:
    """Return the class at ``module:Class``. Raises EnvironmentConfigError if it is not an environment."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # importing the user's module may raise anything
        raise EnvironmentConfigError(
            f'prompts.environment = "{path}": {module} cannot be imported ({type(error).__name__}: {error}): put the '
            "folder that holds it on PYTHONPATH, on every machine"
        ) from error
    if not isinstance(found, type):
        raise EnvironmentConfigError(f'prompts.environment = "{path}": module {module!r} has no class {name!r}')
    for method, arguments in METHODS.items():
        if not _takes(getattr(found, method, None), len(arguments) + 1):
            raise EnvironmentConfigError(
                f'prompts.environment = "{path}": an environment has a method {method}({", ".join(arguments)}); '
                "docs/environments.md shows one in ten lines"
            )
    return found


def check_parameters(name: str, environment: type, parameters: Mapping[str, Any]) -> None:
    """Raise EnvironmentConfigError, with the nearest right name, unless the class takes the parameters by keyword."""
    key = f"environment.parameters.{name.rpartition(':')[2]}"
    try:
        json.dumps(parameters, allow_nan=False, default=str)
    except ValueError:
        raise EnvironmentConfigError(f"{key} = {dict(parameters)}: must not hold NaN or infinity") from None
    accepted = inspect.signature(environment).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        return
    named = [each.name for each in accepted.values() if each.kind not in (each.VAR_POSITIONAL, each.POSITIONAL_ONLY)]
    for given in parameters:
        if given not in named:
            raise EnvironmentConfigError(f"{key}.{given}: {name} has no such parameter; {nearest(given, named)}")
    for parameter in accepted.values():
        if parameter.default is parameter.empty and parameter.name in named and parameter.name not in parameters:
            raise EnvironmentConfigError(f"{name} needs its parameter {parameter.name}: set {key}.{parameter.name}")


def check_values(name: str, environment: type, parameters: Mapping[str, Any]) -> None:
    """Raise EnvironmentConfigError for a parameter that has another type than in the class, or is outside ``ranges``.

    Whole numbers are numbers too. The message names the parameter's key and value, and the default.
    """
    from pydantic import TypeAdapter, ValidationError  # slow to import, and a reward worker needs none of it

    hints = get_type_hints(environment.__init__)  # type: ignore[misc]
    ranges: Mapping[str, tuple[float, float]] = getattr(environment, "ranges", {})
    for given, value in parameters.items():
        key = f"environment.parameters.{name.rpartition(':')[2]}.{given} = {json.dumps(value, default=str)}"
        default = inspect.signature(environment).parameters[given].default
        example = json.dumps({} if default is None else default, default=str)
        try:
            TypeAdapter(hints[given]).validate_python(value, strict=True)
        except ValidationError as error:
            raise EnvironmentConfigError(f"{key}: {error.errors()[0]['msg']}; write it like {example}") from None
        if given not in ranges:
            continue
        low, high = ranges[given]
        if not low <= value <= high:
            allowed = f"from {low:,} to {high:,}" if high < inf else f"{low:,} or more"
            raise EnvironmentConfigError(f"{key}: must be {allowed}; the default is {example}")


def _takes(method: Any, count: int) -> bool:
    """Return whether a class's function can be called with this many arguments, including the object."""
    if not callable(method):
        return False
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # some functions in C have no signature
        return True
    return True


def _stop(path: str, environment: type) -> tuple[str, ...]:
    stop = _texts(path, environment, "stop", "texts that end a turn")
    if not all(stop):
        raise EnvironmentConfigError(
            f'prompts.environment = "{path}": the class\'s stop = {stop}: an empty text would end every turn; '
            "leave it out"
        )
    return stop


def _texts(path: str, environment: type, name: str, what: str) -> tuple[str, ...]:
    texts = getattr(environment, name, ())
    is_list = isinstance(texts, Collection) and not isinstance(texts, str)
    if not is_list or not all(isinstance(text, str) for text in texts):
        raise EnvironmentConfigError(
            f'prompts.environment = "{path}": the class\'s {name} = {texts!r} must be a tuple of {what}, '
            'such as ("</calc>",)'
        )
    return tuple(texts)
