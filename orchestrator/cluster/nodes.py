"""Find the layout that the cluster's nodes can hold, and wait for nodes that will join."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import ray

from orchestrator.cluster.layout import Actor, Bundle, Layout, Node, choose
from orchestrator.cluster.preflight import shortage, wrong_build
from orchestrator.cluster.results import RemoteCallError
from orchestrator.config.schema import RunConfig

logger = logging.getLogger(__name__)

NOTICE_S = 15
"""Seconds between two lines that say what is waited for."""
POLL_S = 1.0
"""Seconds between two looks at the cluster's nodes."""


class PlacementError(RemoteCallError):
    """The cluster is too small for the run, or did not free enough resources in time."""


def await_layout(config: RunConfig, actors: frozenset[Actor]) -> Layout:
    """Return a layout that the cluster's nodes hold when nobody else uses them. Waits for nodes as the recipe says.

    Raises PlacementError when the cluster is too small, or vLLM is not built for what it has.
    """
    waits_s = config.placement.wait_for_resources_s
    deadline = time.monotonic() + waits_s
    next_notice = 0.0
    try:
        while True:
            nodes = cluster_nodes()
            layout, reason = choose(config, nodes, actors)
            problem = shortage(config, layout, nodes)
            if problem is None:
                if (mismatch := wrong_build(config, layout)) is not None:
                    raise PlacementError(mismatch)
                announce(config, layout, reason)
                return layout
            now = time.monotonic()
            if now >= deadline:
                waited = f" (waited placement.wait_for_resources_s = {waits_s:g} s for nodes)" if waits_s else ""
                raise PlacementError(f"{problem}{waited}")
            if now >= next_notice:
                logger.warning("waiting for nodes, %.0f s more: %s", deadline - now, problem)
                ask_autoscaler(layout.bundles)
                next_notice = now + NOTICE_S
            time.sleep(min(POLL_S, deadline - now))
    finally:
        if next_notice:
            ask_autoscaler(())


def announce(config: RunConfig, layout: Layout, reason: str) -> None:
    """Log the layout and its reason; where it has fewer actors than the recipe names, say so where it is seen."""
    counts = (
        ("generators", len(layout.generators), config.rollout.num_generators),
        ("learner ranks", len(layout.ranks), config.learner.num_ranks),
    )
    fewer = [f"{count} of {wanted} {actors}" for actors, count, wanted in counts if 0 < count < wanted]
    level = logging.WARNING if fewer else logging.INFO
    logger.log(level, "placement: %s%s, %s", layout.mode, f" with {' and '.join(fewer)}" if fewer else "", reason)


def ask_autoscaler(bundles: Sequence[Bundle]) -> None:
    """Ask the cluster's autoscaler, if it has one, for nodes that hold ``bundles``; no actor is requested yet.

    Replaces all earlier requests: the cluster has only one such list.
    """
    # Imported here: half a second, and few runs wait for nodes.
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[bundle.resources for bundle in bundles])


def cluster_nodes() -> list[Node]:
    """Return the nodes that are alive, with all their resources, free or not."""
    return [
        Node(node["NodeName"], int(node["Resources"].get("GPU", 0)), node["Resources"].get("CPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]
