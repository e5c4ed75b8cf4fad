"""The Ray cluster of a command: an existing one, or its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from orchestrator.cluster.ray_address import check_ray_address
from orchestrator.doctor.libraries import VLLM, installed_vllms


class ClusterError(RuntimeError):
    """RAY_ADDRESS names no cluster that answers."""


@contextmanager
def ray_cluster(*, num_cpus: int | None = None, dashboard: bool = False) -> Iterator[str | None]:
    """Join the cluster that RAY_ADDRESS names (as in a submitted job), or start one here and stop it afterwards.

    Args:
        num_cpus: of a cluster that is started here; default: the cores that this process may use.
        dashboard: whether a cluster that is started here gets one.

    Yields the dashboard's URL, None where there is none. Raises ClusterError at once where Ray would try for minutes.
    """
    address = os.environ.get("RAY_ADDRESS")
    checked = check_ray_address(address)
    if not checked.is_usable:
        raise ClusterError(f"RAY_ADDRESS = {address!r}: {checked.found}. {checked.fix}")
    if address:
        context = ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        context = ray.init(
            address="local",
            num_cpus=num_cpus or len(os.sched_getaffinity(0)),
            # Ray counts GPUs by the driver; a vLLM that is built for cores cannot use them.
            num_gpus=0 if installed_vllms() == [VLLM["cpu"]] else None,
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield f"http://{context.dashboard_url}" if context.dashboard_url else None
    finally:
        ray.shutdown()
