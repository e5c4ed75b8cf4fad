"""Without openenv-core its environments are refused with the command that installs it."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib

import pytest

from rewards.environments.registry import EnvironmentConfigError, environment_spec
from tests.support.paths import ROOT


def test_without_the_library_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openenv", "openenv.core.env_server.interfaces"):
        monkeypatch.setitem(sys.modules, name, None)
    importlib.import_module("rewards.environments.openenv_packages").classes_of.cache_clear()
    (pin,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["openenv"]
    says = rf'prompts.environment = "openenv:maze_env" needs openenv-core .*: pip install {re.escape(pin)},'
    with pytest.raises(EnvironmentConfigError, match=says):
        environment_spec("openenv:maze_env", {})
