"""Marks of single cases of a test."""

from typing import Any

import pytest


def only_in_test_all(*values: Any, id: str | None = None) -> Any:
    """Parameters that `make test` leaves to `make test-all`, beside others that it tries."""
    return pytest.param(*values, marks=pytest.mark.long, id=id)
