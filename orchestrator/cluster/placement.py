"""Reserve one Ray placement group for each run: checked against the cluster, waited for, and given back at exit.

nodes ──> layout.choose ──> fits? ──> placement group ──> options of each actor
             ^                │ no: wait_for_resources_s      (start_timeout_s)
             └────────────────┘
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Self

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.cluster.calls import RemoteCallError, wait_for
from orchestrator.cluster.layout import TRAINING, Actor, Bundle, Layout, Node, choose
from orchestrator.cluster.preflight import busy, shortage
from orchestrator.config.schema import RunConfig

logger = logging.getLogger(__name__)

NOTICE_S = 15
"""Seconds between two lines that say what is waited for."""
POLL_S = 1.0
"""Seconds between two looks at the cluster's nodes."""


class PlacementError(RemoteCallError):
    """The cluster cannot hold the run, or did not free enough of itself in time."""


class Placement:
    """The place of each actor on the cluster.

    Leaving the context, or ``close``, gives the resources back and ends what still runs there. An actor that is started
    again gets its old options, and so its old bundle. Ray removes the groups of a driver that dies.
    """

    def __init__(self, config: RunConfig, layout: Layout) -> None:
        """Request the group and wait for it. Raises PlacementError past ``placement.start_timeout_s``."""
        self._config = config
        self.layout = layout
        self._group = reserve(config, layout)
        self._added: dict[int, PlacementGroup] = {}

    @classmethod
    def of(cls, config: RunConfig, actors: frozenset[Actor] = TRAINING) -> Self:
        """Take a place for these actors, on the cluster as it is or will be within ``placement.wait_for_resources_s``.

        Raises PlacementError when the cluster is too small, before anything is requested, or too busy for too long.
        """
        return cls(config, await_layout(config, actors))

    def generator_options(self, index: int) -> dict[str, Any]:
        """Return resources and bundle of a generator, for ``options`` of its actor class.

        One beyond the run's own gets a bundle that is added now.
        """
        cpus = self._config.rollout.cpus_per_generator
        gpus = self._share(self._config.rollout.tensor_parallel_size)
        if index >= len(self.layout.generators):
            if index not in self._added:
                self.add_generator(index)
            return _options(cpus, gpus, self._added[index], 0)
        return _options(cpus, gpus, self._group, self.layout.generators[index])

    def learner_options(self, rank: int) -> dict[str, Any]:
        """Return the same of a learner rank."""
        return _options(self._config.learner.cpus_per_rank, self._share(1), self._group, self.layout.ranks[rank])

    def reward_options(self, index: int) -> dict[str, Any]:
        """Return the same of a reward worker."""
        return _options(self._config.rewards.cpus_per_worker, 0.0, self._group, self.layout.rewards[index])

    def gpu_gib(self) -> float:
        """Return the memory of the smallest GPU, as CUDA reports it, GiB. Call it before actors start.

        One GPU of each node is asked. Raises RemoteCallError past ``placement.start_timeout_s``.
        """
        table = placement_group_table(self._group)["bundles_to_node_id"]
        on_nodes = {table[index]: index for index, bundle in enumerate(self.layout.bundles) if bundle.gpus}
        calls = {
            f"the GPU of node {node[:8]}": _total_memory_gib.options(
                name=f"{self._config.name}/gpu-memory", **_options(0.0, 0.5, self._group, index)
            ).remote()
            for node, index in on_nodes.items()
        }
        advice = "look at that node with `rayzero doctor`, or set rollout.gpu_memory_fraction"
        return float(min(wait_for(calls, "total_memory", self._config.placement.start_timeout_s, advice).values()))

    def add_generator(self, index: int) -> None:
        """Request a bundle for one generator more. Does not wait: the generator starts when the cluster has room.

        Raises PlacementError on shared GPUs, where a generator needs a learner rank to take turns with.
        """
        if self.layout.mode == "colocated":
            raise PlacementError(
                f'generator-{index} cannot be added with placement.mode = "colocated": each shares the GPU of a '
                'learner rank; set placement.mode = "pods"'
            )
        rollout = self._config.rollout
        bundle = Bundle(rollout.tensor_parallel_size if self.layout.mode == "pods" else 0, rollout.cpus_per_generator)
        self._added[index] = placement_group([bundle.resources], "PACK", name=f"{self._config.name}/generator-{index}")

    def remove_generator(self, index: int) -> None:
        """Give back what ``add_generator`` took, and end the generator if it still runs.

        The run's own generators keep their bundles.
        """
        if index in self._added:
            remove_placement_group(self._added.pop(index))

    def close(self) -> None:
        """Remove all groups. May be called twice, and after ``ray.shutdown``."""
        groups = [self._group, *self._added.values()]
        self._added = {}
        if ray.is_initialized():
            for group in groups:
                remove_placement_group(group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _share(self, gpus: int) -> float:
        """Return what Ray counts for an actor with so many GPUs: of two that take turns, half a GPU each."""
        return {"cpu": 0.0, "colocated": 0.5, "pods": float(gpus)}[self.layout.mode]


@ray.remote(max_calls=1)  # its process ends with it, and so does its CUDA context
def _total_memory_gib() -> float:
    import torch

    if not torch.cuda.is_available():
        raise PlacementError("Ray counts a GPU on a node where torch sees none: `rayzero doctor` there says why")
    return float(torch.cuda.get_device_properties(0).total_memory / 2**30)


def _options(cpus: float, gpus: float, group: PlacementGroup, bundle: int) -> dict[str, Any]:
    return {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle),
    }


def await_layout(config: RunConfig, actors: frozenset[Actor]) -> Layout:
    """Return a layout that the cluster's nodes hold when nobody else uses them. Waits for nodes as the recipe says.

    Raises PlacementError when the cluster is too small.
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
                logger.info("placement: %s, %s", layout.mode, reason)
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


def ask_autoscaler(bundles: Sequence[Bundle]) -> None:
    """Ask the cluster's autoscaler, if it has one, for nodes that hold ``bundles``; no actor is requested yet.

    Replaces what anybody has asked for before: the cluster has one such list.
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


def reserve(config: RunConfig, layout: Layout) -> PlacementGroup:
    """Return a placement group of the layout's bundles, once it has its resources.

    Raises PlacementError when it has not got them within ``placement.start_timeout_s``.
    """
    group = placement_group([bundle.resources for bundle in layout.bundles], layout.strategy, name=config.name)
    try:
        deadline = time.monotonic() + config.placement.start_timeout_s
        # Ray takes whole seconds.
        while not group.wait(max(1, int(min(NOTICE_S, deadline - time.monotonic())))):
            if time.monotonic() >= deadline:
                raise PlacementError(
                    f"{busy(config.name, layout)}; waited placement.start_timeout_s = "
                    f"{config.placement.start_timeout_s:g} s: stop what holds them, add nodes, or raise it"
                )
            logger.warning("%s", busy(config.name, layout))
    except BaseException:
        remove_placement_group(group)
        raise
    return group
