"""Reserve one Ray placement group for each run: checked against the cluster, waited for, and given back at exit.

nodes ──> layout.choose ──> fits? ──> placement group ──> options of each actor
             ^                │ no: wait_for_resources_s      (start_timeout_s)
             └────────────────┘
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, Self

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.cluster.calls import wait_for
from orchestrator.cluster.gpu_memory import GpuMemoryError, GpuState, await_memory, read_states, total_memory_gib
from orchestrator.cluster.layout import TRAINING, Actor, Bundle, Layout
from orchestrator.cluster.nodes import NOTICE_S, PlacementError, await_layout
from orchestrator.cluster.preflight import busy
from orchestrator.config.schema import RunConfig

logger = logging.getLogger(__name__)


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
        """Return the same for a learner rank."""
        return _options(self._config.learner.cpus_per_rank, self._share(1), self._group, self.layout.ranks[rank])

    def reward_options(self, index: int) -> dict[str, Any]:
        """Return the same for a reward worker."""
        return _options(self._config.rewards.cpus_per_worker, 0.0, self._group, self.layout.rewards[index])

    def gpu_gib(self) -> float:
        """Return the memory of the smallest GPU, as CUDA reports it, GiB. Call it before actors start.

        One GPU of each node is asked. Raises RemoteCallError past ``placement.start_timeout_s``.
        """
        table = placement_group_table(self._group)["bundles_to_node_id"]
        on_nodes = {table[index]: index for index, bundle in enumerate(self.layout.bundles) if bundle.gpus}
        return min(self._ask_gpus(_total_memory_gib, on_nodes.values()).values())

    def rank_cores(self) -> int:
        """Return how many cores of its node each learner rank can have, on the node where there are fewest."""
        on_nodes = placement_group_table(self._group)["bundles_to_node_id"]
        ranks = Counter(on_nodes[bundle] for bundle in self.layout.ranks)
        cores = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in ray.nodes()}
        return max(1, min(int(cores[node] // count) for node, count in ranks.items()))

    def elsewhere(self, bundles: Collection[int]) -> dict[str, dict[str, Any]]:
        """Return the options of a task on each node but this one that holds any of these bundles, by the node's name.

        It takes nothing from the actors that are placed there.
        """
        nodes = {
            node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in ray.nodes()
        }
        on_nodes = placement_group_table(self._group)["bundles_to_node_id"]
        here = ray.get_runtime_context().get_node_id()
        found = {on_nodes[bundle]: bundle for bundle in bundles if on_nodes[bundle] != here}
        return {nodes[node]: _options(0.0, 0.0, self._group, bundle) for node, bundle in found.items()}

    @property
    def start_timeout_s(self) -> float:
        return self._config.placement.start_timeout_s

    def gpu_states(self) -> dict[int, list[GpuState]]:
        """Return the GPUs of each bundle as they are now. Call it before actors start."""
        return self._ask_gpus(_gpu_states, [index for index, bundle in enumerate(self.layout.bundles) if bundle.gpus])

    def free_share(self) -> float:
        """Return the share of its memory that the fullest GPU of the run has free; 1 where nobody tells."""
        states = [state for gpus in self.gpu_states().values() for state in gpus]
        return min((state.free_share for state in states), default=1.0)

    def await_memory(self, share: float, *, shares_buffers: bool) -> None:
        """Return when the GPUs have free what the run takes: each generator `share` of its GPU.

        Raises GpuMemoryError past ``placement.start_timeout_s``, and at once where the run `shares_buffers` between
        processes and PyTorch is set to allocate memory that cannot be shared.
        """

        def look() -> dict[int, list[GpuState]]:
            states = self.gpu_states()
            for gpu in (gpu for gpus in states.values() for gpu in gpus):
                if shares_buffers and gpu.allocator:
                    raise GpuMemoryError(gpu.allocator)
            return states

        if self.layout.gpus:
            shares = dict.fromkeys(self.layout.generators, share)
            await_memory(look, shares, self._config.placement.start_timeout_s)

    def _ask_gpus(self, task: Any, bundles: Iterable[int]) -> dict[int, Any]:
        """Run a task in each of these bundles, with all its GPUs, and return the results."""
        names = {f"GPUs of bundle {index}": index for index in bundles}
        calls = {
            name: task.options(
                name=f"{self._config.name}/gpu-memory",
                **_options(0.0, float(self.layout.bundles[index].gpus), self._group, index),
            ).remote()
            for name, index in names.items()
        }
        advice = "look at that node with `rayzero doctor`, or set rollout.gpu_memory_fraction"
        answers = wait_for(calls, "gpu_memory", self._config.placement.start_timeout_s, advice)
        return {names[name]: answer for name, answer in answers.items()}

    def add_generator(self, index: int) -> None:
        """Request a bundle for one more generator. Does not wait: the generator starts when the cluster has room.

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


_total_memory_gib = ray.remote(max_calls=1)(total_memory_gib)  # its process ends with it, and so does its CUDA context
_gpu_states = ray.remote(read_states)


def _options(cpus: float, gpus: float, group: PlacementGroup, bundle: int) -> dict[str, Any]:
    return {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle),
    }


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
