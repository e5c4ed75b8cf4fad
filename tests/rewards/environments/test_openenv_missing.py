"""Without openenv-core its environments are refused with the command that installs it."""

from __future__ import annotations

import importlib
import sys

import pytest

from rewards.environments.registry import EnvironmentConfigError, environment_spec


def test_without_the_library_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openenv", "openenv.core.env_server.interfaces"):
        monkeypatch.setitem(sys.modules, name, None)
    importlib.import_module("rewards.environments.openenv").classes_of.cache_clear()
    says = r'prompts.environment = "openenv:maze_env" needs openenv-core .*: pip install openenv-core==0\.3\.0'
    with pytest.raises(EnvironmentConfigError, match=says):
        environment_spec("openenv:maze_env", {})
