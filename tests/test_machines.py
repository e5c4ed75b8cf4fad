"""Which tests run on which machines, and by which command."""

import os
import re
from itertools import product
from types import SimpleNamespace

import pytest
from _pytest.mark.expression import Expression

from tests import conftest
from tests.support.paths import ROOT


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


def runs_of(target: str, marks: set[str]) -> int:
    """Count the commands of a target of the Makefile that run a test with these marks."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n|else\n|ifdef.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    chosen = [quoted or word for quoted, word in re.findall(r'pytest -m (?:"(.+?)"|(\w+))', recipe[1])]
    return sum(Expression.compile(each).evaluate(lambda name, **_: name in marks) for each in chosen)


@pytest.mark.parametrize("present", product([False, True], repeat=3))
def test_every_test_runs_once_and_long_ones_in_test_all_alone(present: tuple[bool, ...]) -> None:
    marks = {name for name, there in zip(("slow", "long", "alone"), present, strict=True) if there}
    if "alone" in marks and "slow" not in marks:
        pytest.skip("what is alone has engines, and is slow")
    assert runs_of("test", marks) == ("long" not in marks)
    assert runs_of("test-all", marks) == 1
