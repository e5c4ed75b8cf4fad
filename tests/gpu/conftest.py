"""What the GPU tests share: the tiny policy and groups, and a table of what was measured, printed at the end."""

from collections.abc import Callable

import pytest

from tests.learner.conftest import folder, groups  # noqa: F401  the same tiny policy and groups

FIGURES = pytest.StashKey[list[tuple[str, str, str]]]()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Puts a figure of this test into the table: what it is, and its value with its unit."""
    figures = request.config.stash.setdefault(FIGURES, [])

    def add(what: str, value: str) -> None:
        figures.append((request.node.name, what, value))

    return add


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    figures = config.stash.get(FIGURES, [])
    if not figures:
        return
    import torch

    devices = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    terminalreporter.section(f"measured on {torch.cuda.device_count()} x {', '.join(sorted(devices))}")
    widths = [max(len(row[column]) for row in figures) for column in (0, 1)]
    for test, what, value in figures:
        terminalreporter.write_line(f"{test:<{widths[0]}}  {what:<{widths[1]}}  {value}")
