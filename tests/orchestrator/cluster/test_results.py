"""Results that are fetched together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.cluster.results import results_at_once


@pytest.mark.parametrize(
    ("values", "found"),
    [({"a": None, "b": 0}, {"a": None, "b": 0}), ({"a": 1, "b": MemoryError("no room")}, {}), ({}, {})],
)
def test_results_are_fetched_together_or_none_if_one_has_failed(monkeypatch, values, found) -> None:
    def get(refs: Sequence[str], timeout: float) -> list[Any]:
        for ref in refs:
            if isinstance(values[ref], Exception):
                raise values[ref]
        return [values[ref] for ref in refs]

    monkeypatch.setattr("orchestrator.cluster.results.ray.get", get)
    assert results_at_once([*values]) == found
