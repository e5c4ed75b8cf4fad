"""A command that is to join a cluster which is not there."""

import re

import pytest

from orchestrator.cluster.ray_cluster import ClusterError, ray_cluster


@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:8265", "nowhere"])
def test_an_address_that_nobody_answers_is_refused_at_once_with_the_fix(monkeypatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match=f"RAY_ADDRESS = '{re.escape(address)}': .*unset RAY_ADDRESS"), ray_cluster():
        pass
