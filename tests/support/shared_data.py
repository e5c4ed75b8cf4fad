"""Real data sets beside the repository, for tests that can do without them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.paths import SHARED_DATA

needs_shared_data = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason=f"the shared data is not on this machine: {SHARED_DATA}"
)


def read_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a JSON Lines file."""
    return [json.loads(line) for line in (SHARED_DATA / name).read_text("utf-8").splitlines()]
