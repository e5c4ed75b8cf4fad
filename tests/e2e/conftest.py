"""What real runs share."""

from collections.abc import Iterator, Mapping

import pytest


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Mapping[str, str]]:
    """The environment of commands that join one Ray cluster, where a test is not about starting Ray."""
    from benchmarks.real_runs.observed import cluster

    with cluster(num_cpus=2, _system_config={"prestart_worker_first_driver": False}) as (_, environment):
        yield environment
