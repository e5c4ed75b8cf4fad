"""Packages of OpenEnv's environments: where their classes are. A package's openenv.yaml names the module of its app."""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rewards.environments.registry import EnvironmentConfigError
from rollout.types.names import nearest


class PackageClasses(NamedTuple):
    """The classes of a package."""

    environment: type[Any]
    action: type[Any]


@cache
def classes_of(package: str) -> PackageClasses:
    """Import a package and return its classes. Raises EnvironmentConfigError if it cannot be used."""
    key = f'prompts.environment = "openenv:{package}"'
    try:
        from openenv.core.env_server.interfaces import Environment
        from openenv.core.env_server.types import Action
    except ImportError as error:
        raise EnvironmentConfigError(
            f"{key} needs openenv-core ({error}): pip install openenv-core==0.3.0, on every machine"
        ) from None
    found = find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise EnvironmentConfigError(
            f"{key}: no package with that name is installed: install the environment's package, on every machine; "
            f"{nearest(package, installed())}"
        )
    app = _app(Path(found.submodule_search_locations[0]))
    try:
        module = importlib.import_module(f"{package}.{app}")
    except Exception as error:  # importing it may raise anything
        first: BaseException = error
        while first.__context__ is not None:  # packages try several places of their own modules, one after another
            first = first.__context__
        raise EnvironmentConfigError(
            f"{key}: {package}.{app}, the app of its openenv.yaml, cannot be imported ({type(first).__name__}: {first})"
        ) from error
    environment = _only(module, Environment, f"{key}: {package}.{app} must import one class of environments")
    hinted = inspect.get_annotations(environment.step, eval_str=False).get("action")
    if isinstance(hinted, type) and issubclass(hinted, Action) and hinted is not Action:
        return PackageClasses(environment, hinted)
    action = _only(module, Action, f"{key}: {package}.{app} must import one class of actions")
    return PackageClasses(environment, action)


def installed() -> list[str]:
    """Return the installed packages of environments, as OpenEnv finds them."""
    names = {str(each.metadata["Name"]).replace("-", "_") for each in distributions()} - {"openenv_core"}
    return sorted(name.removeprefix("openenv_") for name in names if name.startswith("openenv_"))


def _app(folder: Path) -> str:
    import yaml

    manifest = folder / "openenv.yaml"
    found = yaml.safe_load(manifest.read_text("utf-8")) if manifest.is_file() else {}
    return str(found.get("app", "server.app:app")).partition(":")[0]


def _only(module: ModuleType, base: type, what: str) -> type[Any]:
    """Return the one class of a module that derives from `base`, and from which none of the others derives."""
    found = {each for each in vars(module).values() if isinstance(each, type) and issubclass(each, base)} - {base}
    last = [each for each in found if not any(issubclass(other, each) for other in found - {each})]
    if len(last) != 1:
        raise EnvironmentConfigError(f"{what}, and has {sorted(each.__name__ for each in last) or 'none'}")
    return last[0]
