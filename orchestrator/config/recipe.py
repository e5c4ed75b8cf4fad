"""Read a recipe file and command-line overrides into a RunConfig; report every mistake with key, value and fix."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from orchestrator.config.checks import conflicts, supervised_conflicts
from orchestrator.config.precision import with_dtype
from orchestrator.config.schema import RunConfig
from rewards.config import RewardsConfig
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
    """A recipe or an override is invalid. The message has a line for each mistake, with key, value and fix."""


def load(recipe: str | None, overrides: Sequence[str] = (), *, supervised_only: bool = False) -> RunConfig:
    """Return the configuration from a recipe (a file, or a name in deploy/recipes) and `key=value` overrides.

    With `supervised_only`, for `rayzero sft`, sections that it does not use need not fit together.

    Raises ConfigError.
    """
    path = find(recipe or (DEFAULT_SUPERVISED_RECIPE if supervised_only else DEFAULT_RECIPE))
    try:
        settings = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): name a readable file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line} is not UTF-8 (byte 0x{error.object[error.start]:02x}): save the recipe as UTF-8"
        ) from error
    except ValueError as error:  # not TOML, or a number with more digits than Python accepts
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    settings.setdefault("name", path.stem)
    apply_overrides(settings, overrides)
    return validate(settings, supervised_only=supervised_only)


def find(recipe: str) -> Path:
    """Return the recipe's file. Raises ConfigError, with the nearest recipe's name, if there is none."""
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
    """Apply the overrides. A preset among them replaces the complete algorithm section of the settings.

    Otherwise the recipe's values, which were chosen for another algorithm, would take precedence over the preset's.
    """
    presets = [override for override in overrides if override.startswith(PRESET_KEY + "=")]
    if presets and isinstance(settings.get("learner"), dict):
        settings["learner"].pop("algorithm", None)
    for override in [*presets, *(override for override in overrides if override not in presets)]:
        apply_override(settings, override)


def apply_override(settings: dict[str, Any], override: str) -> None:
    """Set one dotted key, such as `learner.learning_rate=2e-6`. The value is TOML, or text if it is not valid TOML.

    One weight is set beside the others: in a recipe without weights, beside the default ones.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is not an override: write key=value, such as learner.learning_rate=2e-6")
    if not is_text(override):
        raise ConfigError(f"{override!r} is not UTF-8: write it in a terminal, or a file, with that encoding")
    *sections, last = key.split(".")
    table = settings
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{key}: {section!r} is a value, not a section")
    if sections == ["rewards", "weights"] and not table:  # alone it would take the place of correctness
        table.update(RewardsConfig().weights)
    table[last] = parse_value(text)


def is_text(override: str) -> bool:
    """Return whether an override is valid text. Python represents invalid bytes as surrogates, halves of characters."""
    try:
        override.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # not TOML, or a number with more digits than Python accepts
        return text


def validate(settings: Mapping[str, Any], *, supervised_only: bool = False) -> RunConfig:
    """Check the settings one by one, then together. Raises ConfigError with a line for each mistake."""
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
    if mistakes := list(booleans_for_numbers(settings, config)):
        raise ConfigError("\n".join(mistakes))
    # `rayzero sft` neither samples nor grades: mistakes in settings for these must not stop it.
    for conflict in supervised_conflicts(config) if supervised_only else conflicts(config):
        raise ConfigError(conflict)
    return config


def too_large(value: Any, key: str = "") -> Iterator[str]:
    """Yield a line for each whole number that does not fit into 64 bits, which TOML and the libraries require."""
    if isinstance(value, Mapping | list):
        for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from too_large(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{key} has about {value.bit_length() * 3 // 10} digits: whole numbers end at 2**63 - 1; lower it"


def booleans_for_numbers(raw: Any, parsed: Any, key: str = "") -> Iterator[str]:
    """Yield a line for each `true` or `false` that pydantic converted to a number, such as a learning rate of 1.0."""
    if isinstance(raw, bool) and isinstance(parsed, int | float) and not isinstance(parsed, bool):
        yield f"{key} = {str(raw).lower()}: input should be a number"
    elif isinstance(raw, Mapping):
        for name, inner in raw.items():
            value = parsed.get(name) if isinstance(parsed, Mapping) else getattr(parsed, str(name), None)
            yield from booleans_for_numbers(inner, value, f"{key}.{name}" if key else str(name))
    elif isinstance(raw, list) and isinstance(parsed, list | tuple):
        for index, (inner, value) in enumerate(zip(raw, parsed, strict=False)):
            yield from booleans_for_numbers(inner, value, f"{key}.{index}")


def describe(mistake: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return one line for a mistake: key, value, what is wrong, and what would be right."""
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
    """Return the keys that the section at `location` may have; the settings decide which tasks have sections."""
    tasks = PromptsConfig.sections(settings.get("prompts", {}))
    model: Any = RunConfig
    parts = iter(location)
    for part in parts:
        if issubclass(model, TaskConfig) and part in tasks:
            model = load_task(tasks[part]).SETTINGS
            continue
        annotation = model.model_fields[part].annotation
        if get_origin(annotation) in (dict, tuple):
            next(parts, None)  # a name that the user chose, or an index
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel))
    return [*model.model_fields, *(tasks if issubclass(model, TaskConfig) else ())]
