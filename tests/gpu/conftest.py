"""What the GPU tests share: the card, the tiny policy and groups, and a record of what was measured."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.card import card, simulated  # noqa: F401  fixtures
from tests.learner.conftest import folder, groups  # noqa: F401  the same tiny policy and groups

FIGURES = pytest.StashKey[list[tuple[str, ...]]]()
RECORD = "RAYZERO_GPU_RECORD"
"""Environment variable: the file that gets a line of JSON for each test as it ends, and one with the names of all."""


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Puts a figure of this test into the table: what it is, its value with its unit, and what was planned."""
    figures = request.config.stash.setdefault(FIGURES, [])

    def add(what: str, value: str, planned: str = "") -> None:
        figures.append((request.node.name, what, value, planned))
        request.node.user_properties.append((what, [value, planned]))

    return add


def record(line: dict[str, Any]) -> None:
    if file := os.environ.get(RECORD):
        with Path(file).open("a") as lines:
            lines.write(json.dumps(line) + "\n")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the end what a machine without a card has proven already: the object store's transport."""
    items.sort(key=lambda item: "test_publish_on_gpus.py" in item.nodeid and "[ray-" in item.nodeid)


def pytest_collection_finish(session: pytest.Session) -> None:
    record({"collected": [item.name for item in session.items]})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        name = report.nodeid.rpartition("::")[2]
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
        figures = [[what, *values] for what, values in report.user_properties if isinstance(values, list)]
        seconds = round(report.duration, 1)
        record({"test": name, "outcome": report.outcome, "s": seconds, "reason": reason, "figures": figures})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    figures = config.stash.get(FIGURES, [])
    if not figures:
        return
    terminalreporter.section("measured")
    widths = [max(len(row[column]) for row in figures) for column in (0, 1)]
    for test, what, value, planned in figures:
        beside = f"  (planned {planned})" if planned else ""
        terminalreporter.write_line(f"{test:<{widths[0]}}  {what:<{widths[1]}}  {value}{beside}")
