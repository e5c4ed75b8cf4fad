"""Which tests see GPUs, on machines that have some."""

import os
from types import SimpleNamespace

import pytest

from tests import conftest


@pytest.mark.parametrize(
    ("arguments", "has_gpu", "hidden"),
    [
        (["tests"], True, True),
        (["tests/learner/test_learner.py::test_x"], True, True),
        (["tests/gpu"], True, False),
        (["tests/gpu/test_learner_memory.py::test_x"], True, False),
        (["tests"], False, False),
    ],
)
def test_only_tests_of_gpus_see_them(arguments, has_gpu: bool, hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if has_gpu else None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    conftest.pytest_configure(SimpleNamespace(args=arguments))
    assert (os.environ["CUDA_VISIBLE_DEVICES"] == "") == hidden
