from __future__ import annotations

from pathlib import Path

import pytest

from learner.model.build import build_model
from rollout.types.completions import Group
from tests.support.tiny import BUILD, make_groups


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the tiny policy and return its folder."""
    folder = tmp_path_factory.mktemp("policy")
    build_model(BUILD, 0, folder)
    return folder


@pytest.fixture(scope="session")
def groups(folder: Path) -> list[Group]:
    return make_groups(folder, seed=1)


@pytest.fixture(scope="session")
def more_groups(folder: Path) -> list[Group]:
    return make_groups(folder, seed=2)
