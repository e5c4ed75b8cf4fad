"""The models that are asked, and the settings to ask them with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.base_model import load_tokenizer, local_model
from orchestrator.config.recipe import ConfigError, apply_override, load, validate
from orchestrator.config.schema import RunConfig
from orchestrator.model_source import PACKAGE, PolicyError
from rollout.types.paths import from_home

WHAT_IS_ASKED = ("prompts", "rewards", "sampling")
"""Sections that two runs must agree on for their models to be asked together."""


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model and its name in tables."""

    name: str
    path: str
    """Folder, hub name or GGUF file, as it was given."""

    @property
    def folder(self) -> str:
        """The folder or hub name to load. Raises PolicyError when there is no model."""
        return local_model(self.path)


def named_models(arguments: Sequence[str]) -> list[NamedModel]:
    """Return the models of `name:path`, or a path alone. Raises ConfigError for an empty name, or one given twice."""
    models = [named_model(argument) for argument in arguments]
    for model in models:
        if not model.name or not model.path:
            raise ConfigError(
                f"{model.name}:{model.path} is not a model: write name:path, such as base:Qwen/Qwen2.5-0.5B"
            )
    name, count = Counter(model.name for model in models).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"{count} models would be called {name!r}: write name:path to tell them apart")
    return models


def named_model(argument: str) -> NamedModel:
    """Return the model of one argument.

    Without a name, a run's final model is named after the run, any other after its folder or repository.
    """
    name, colon, path = argument.partition(":")
    if colon and not argument.startswith(PACKAGE):
        return NamedModel(name, from_home(path))
    folder = Path(from_home(argument))
    return NamedModel(folder.resolve().parent.name if folder.name == "final" else folder.name, from_home(argument))


def config_for(model: str, recipe: str | None, overrides: Sequence[str]) -> RunConfig:
    """Return the settings to ask a model with: the named recipe's, or else those of the run that it came from."""
    settings = run_settings(model)
    if recipe is not None or settings is None:
        return load(recipe, overrides)
    for override in overrides:
        apply_override(settings, override)
    return validate(settings)


def config_for_all(models: Sequence[NamedModel], recipe: str | None, overrides: Sequence[str]) -> RunConfig:
    """Return the settings to ask all models with. Raises ConfigError when they come from runs that ask differently."""
    runs = {model.name: model for model in models if run_settings(model.path) is not None}
    if recipe is not None or not runs:
        return load(recipe, overrides)
    configs = {name: config_for(model.path, None, overrides) for name, model in runs.items()}
    first = next(iter(configs))
    for name, config in configs.items():
        for section in WHAT_IS_ASKED:
            if getattr(config, section) != getattr(configs[first], section):
                raise ConfigError(
                    f"{first} and {name} come from runs whose [{section}] settings differ, so they would not be asked "
                    "the same: say with --recipe how to ask both"
                )
    return configs[first]


def run_settings(model: str) -> dict[str, Any] | None:
    """Return config.json of the run that a model folder came from; None when it came from none."""
    file = Path(model).resolve().parent / "config.json"
    if not file.is_file():
        return None
    settings = json.loads(file.read_text())
    # A folder of models may have a config.json of another kind: that of a model, say.
    return settings if isinstance(settings, dict) and "prompts_per_step" in settings else None


def tokenizer_of(model: str) -> Any:
    """Return the model's tokenizer. Raises PolicyError when there is no such model."""
    folder = local_model(model)
    try:
        return load_tokenizer(folder)
    except (OSError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise PolicyError(
            f"{model!r} is not a folder here, and its tokenizer cannot be loaded from the hub either: {reason}"
            if not Path(folder).exists()
            else f"{model!r}: its tokenizer cannot be loaded: {reason}"
        ) from error
