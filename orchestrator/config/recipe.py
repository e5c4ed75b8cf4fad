"""From a recipe file and command-line overrides to a RunConfig; every mistake with its key, value and fix."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from orchestrator.config.checks import conflicts, supervised_conflicts
from orchestrator.config.precision import with_dtype
from orchestrator.config.schema import RunConfig
from rollout.prompts.config import PromptsConfig
from rollout.prompts.task_config import TaskConfig
from rollout.tasks.base import load_task
from rollout.types.names import nearest
from rollout.types.paths import from_home

RECIPES = Path(__file__).resolve().parents[2] / "deploy" / "recipes"
DEFAULT_RECIPE = "smollm2-135m"
DEFAULT_SUPERVISED_RECIPE = "sft"
PRESET_KEY = "learner.algorithm.preset"


class ConfigError(ValueError):
    """A recipe or an override that cannot be run; the message names key, value and fix, a line each."""


def load(recipe: str | None, overrides: Sequence[str] = (), *, supervised_only: bool = False) -> RunConfig:
    """Return the run that a recipe (a file, or a name in deploy/recipes) and `key=value` overrides describe.

    With `supervised_only`, as `rayzero sft` runs it, sections that it does not use need not fit each other.

    Raises ConfigError.
    """
    path = find(recipe or (DEFAULT_SUPERVISED_RECIPE if supervised_only else DEFAULT_RECIPE))
    try:
        settings = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give a file that can") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line} is not UTF-8 (byte 0x{error.object[error.start]:02x}): save the recipe as UTF-8"
        ) from error
    except ValueError as error:  # not TOML, or more digits than Python reads
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    settings.setdefault("name", path.stem)
    apply_overrides(settings, overrides)
    return validate(settings, supervised_only=supervised_only)


def find(recipe: str) -> Path:
    """Return the recipe's file. Raises ConfigError with the nearest recipe's name."""
    try:
        own = Path(from_home(recipe))
    except ValueError as error:
        raise ConfigError(f"recipe {recipe!r}: {error}") from error
    for path in (own, RECIPES / f"{recipe}.toml", RECIPES / recipe):
        if path.is_file():
            return path
    names = sorted(path.stem for path in RECIPES.glob("*.toml"))
    raise ConfigError(f"no recipe {recipe!r}: {nearest(Path(recipe).stem, names)}")


def apply_overrides(settings: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set what the command line says. A preset there replaces the settings' whole algorithm section.

    Otherwise it would lose against knobs that the recipe chose for another algorithm.
    """
    presets = [override for override in overrides if override.startswith(PRESET_KEY + "=")]
    if presets and isinstance(settings.get("learner"), dict):
        settings["learner"].pop("algorithm", None)
    for override in [*presets, *(override for override in overrides if override not in presets)]:
        apply_override(settings, override)


def apply_override(settings: dict[str, Any], override: str) -> None:
    """Set one dotted key, as `learner.learning_rate=2e-6`. The value is TOML; what is not TOML is text."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is not an override: write key=value, such as learner.learning_rate=2e-6")
    if not is_text(override):
        raise ConfigError(f"{override!r} is not UTF-8: write it in a terminal, or a file, of that encoding")
    *sections, last = key.split(".")
    table = settings
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{key}: {section!r} is a value, not a section")
    table[last] = parse_value(text)


def is_text(override: str) -> bool:
    """Return whether the command line gave text. Bytes that are none reach Python as halves of characters."""
    try:
        override.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # not TOML, or more digits than Python reads
        return text


def validate(settings: Mapping[str, Any], *, supervised_only: bool = False) -> RunConfig:
    """Check settings each by itself, then all together. Raises ConfigError with a line for each mistake."""
    if mistakes := list(too_large(settings)):
        raise ConfigError("\n".join(mistakes))
    try:
        settings = with_dtype(settings)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    try:
        config = RunConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("\n".join(describe(mistake, settings) for mistake in error.errors())) from None
    if mistakes := list(truths_for_numbers(settings, config)):
        raise ConfigError("\n".join(mistakes))
    # `rayzero sft` neither samples nor grades: what only those need must not stop it.
    for conflict in supervised_conflicts(config) if supervised_only else conflicts(config):
        raise ConfigError(conflict)
    return config


def too_large(value: Any, key: str = "") -> Iterator[str]:
    """Yield a line for each whole number that does not fit 64 bits, which TOML and the libraries require."""
    if isinstance(value, Mapping | list):
        for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from too_large(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{key} has about {value.bit_length() * 3 // 10} digits: whole numbers end at 2**63 - 1; lower it"


def truths_for_numbers(given: Any, made: Any, key: str = "") -> Iterator[str]:
    """Yield a line for each `true` or `false` that became a number, as pydantic lets it: a learning rate of 1.0."""
    if isinstance(given, bool) and isinstance(made, int | float) and not isinstance(made, bool):
        yield f"{key} = {str(given).lower()}: input should be a number"
    elif isinstance(given, Mapping):
        for name, inner in given.items():
            found = made.get(name) if isinstance(made, Mapping) else getattr(made, str(name), None)
            yield from truths_for_numbers(inner, found, f"{key}.{name}" if key else str(name))
    elif isinstance(given, list) and isinstance(made, list | tuple):
        for index, (inner, found) in enumerate(zip(given, made, strict=False)):
            yield from truths_for_numbers(inner, found, f"{key}.{index}")


def describe(mistake: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return one line: key, value, what is wrong, what would be right."""
    location = [str(part) for part in mistake["loc"]]
    key = ".".join(location)
    match mistake["type"]:
        case "extra_forbidden":
            hint = nearest(location[-1], fields_of(location[:-1], settings))
            return f"{key} = {mistake['input']!r}: unknown key; {hint}"
        case "missing":
            return f"{key}: missing; the recipe must set it"
        case "value_error":
            message = str(mistake["ctx"]["error"])
            return message if message.startswith(key) else f"{key}: {message}"
        case "dict_type" | "mapping_type" | "model_type":
            return f"{key} = {mistake['input']!r}: must be a table, such as {{name = value}}"
        case _:
            return f"{key} = {mistake['input']!r}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"


def fields_of(location: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Return the keys that the section at `location` may have in such settings."""
    tasks = PromptsConfig.sections(settings.get("prompts", {}))
    model: Any = RunConfig
    parts = iter(location)
    for part in parts:
        if issubclass(model, TaskConfig) and part in tasks:
            model = load_task(tasks[part]).SETTINGS
            continue
        annotation = model.model_fields[part].annotation
        if get_origin(annotation) in (dict, tuple):
            next(parts, None)  # a name of the user's own, or a position
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel))
    return [*model.model_fields, *(tasks if issubclass(model, TaskConfig) else ())]
