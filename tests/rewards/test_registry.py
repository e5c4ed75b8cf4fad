from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rewards import countdown, registry
from rewards.registry import UnknownTaskError, load, path_of

ROOT = Path(__file__).resolve().parents[2]


def test_every_task_can_be_loaded() -> None:
    """Also fails when a module that is no task is missing from NOT_TASKS."""
    assert "countdown" in registry.tasks()
    for task in registry.tasks():
        assert callable(load(path_of(task, {})))


def test_countdown_is_the_function_of_its_module() -> None:
    assert load(path_of("countdown", {})) is countdown.score


def test_own_functions_come_first() -> None:
    assert path_of("countdown", {"countdown": "mine:score"}) == "mine:score"


def test_unknown_task_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownTaskError, match="did you mean 'countdown'"):
        path_of("countdwon", {})
    with pytest.raises(UnknownTaskError, match=r"known: .*countdown"):
        path_of("zebra", {})
    with pytest.raises(UnknownTaskError):
        path_of("registry", {})


def test_a_path_without_a_function() -> None:
    with pytest.raises(TypeError, match="no function 'nothing'"):
        load("rewards.countdown:nothing")
    with pytest.raises(ImportError):
        load("no_such_module:score")


def test_what_a_worker_imports_is_light() -> None:
    """A worker that booted with numpy, torch or pydantic would boot slowly, each time one is replaced."""
    code = (
        "import sys, rewards.worker, rewards.countdown; print(*{'ray', 'torch', 'numpy', 'pydantic'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
