"""The environment that docs/environments.md shows works as it says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from rewards.environments.registry import SHIPPED, environment_spec
from tests.support.environments import answers_of
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "environments.md").read_text()
EXAMPLE = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]


def test_the_example_answers_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letters.py").write_text(EXAMPLE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    spec = environment_spec("letters:Letters", {})
    answers = answers_of(spec, ["I count. <count>r in strawberry</count>", "There are 3."])
    assert [answer.text for answer in answers] == ["", "<found>3</found>", ""]
    assert [answer.is_over for answer in answers] == [False, False, True]
    assert str(importlib.import_module("letters").Letters().step("<count>r in strawberry</count>")) in PAGE


def test_the_page_lists_what_is_shipped() -> None:
    for name in SHIPPED:
        assert f"| `{name}` |" in PAGE
