"""Decide which actors share which bundle of a Ray placement group, by what the nodes have; Ray itself is not needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from typing import Literal

from orchestrator.config.schema import RunConfig

Mode = Literal["cpu", "colocated", "pods"]
Actor = Literal["generator", "learner", "reward"]
TRAINING: frozenset[Actor] = frozenset({"generator", "learner", "reward"})
EVALUATION: frozenset[Actor] = frozenset({"generator", "reward"})
SUPERVISED: frozenset[Actor] = frozenset({"learner"})

LEAST_CPUS = 0.001
"""Ray refuses a bundle of nothing: one for an actor that reserves no core holds so much of one."""
TOLERANCE = 1e-6
"""Cores by which sums of fractions may be off; Ray counts in ten-thousandths."""


@dataclass(frozen=True, slots=True, order=True)
class Bundle:
    """Resources of one node that Ray reserves together. The larger one is the harder to place."""

    gpus: int
    cpus: float

    @property
    def resources(self) -> dict[str, float]:
        """The amounts by name, as Ray takes them."""
        cpus = max(self.cpus, LEAST_CPUS) if self.gpus == 0 else self.cpus
        return {name: amount for name, amount in (("CPU", cpus), ("GPU", float(self.gpus))) if amount > 0}


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, and its resources, free or not."""

    name: str
    gpus: int
    cpus: float


@dataclass(frozen=True, slots=True)
class Layout:
    """The bundles of a run, and which of them holds which actor."""

    mode: Mode
    bundles: tuple[Bundle, ...]
    generators: tuple[int, ...]
    """The bundle of each generator, by its index; those of ranks and reward workers likewise."""
    ranks: tuple[int, ...]
    rewards: tuple[int, ...]

    @property
    def strategy(self) -> Literal["PACK", "SPREAD"]:
        """Ray's strategy: colocated pairs side by side, for the ranks' sake; all else spread over the nodes."""
        return "PACK" if self.mode == "colocated" else "SPREAD"

    @property
    def gpus(self) -> int:
        return sum(bundle.gpus for bundle in self.bundles)

    @property
    def cpus(self) -> float:
        return sum(bundle.cpus for bundle in self.bundles)

    def fits(self, nodes: Sequence[Node]) -> bool:
        """Return whether empty nodes hold all bundles.

        They are placed as Ray does it: the largest first, on the node with most room, or on the one with least.
        """
        return _is_placed(self.bundles, nodes, max) or _is_placed(self.bundles, nodes, min)


def choose(config: RunConfig, nodes: Sequence[Node], actors: frozenset[Actor] = TRAINING) -> tuple[Layout, str]:
    """Return the layout that ``placement.mode`` asks for, and why it is this one. It need not fit the nodes."""
    mode = config.placement.mode
    shares = {"generator", "learner"} <= actors
    if mode == "colocated" and shares:
        return colocated_layout(config), "as placement.mode says"
    if mode == "auto":
        return _chosen(config, nodes, actors, shares)
    why = "as placement.mode says" if shares or mode != "colocated" else "nothing is there to share a GPU with"
    return separate_layout(config, nodes, actors, "cpu" if mode == "cpu" else "pods"), why


def _chosen(config: RunConfig, nodes: Sequence[Node], actors: frozenset[Actor], shares: bool) -> tuple[Layout, str]:
    gpus = sum(node.gpus for node in nodes)
    if gpus == 0:
        return separate_layout(config, nodes, actors, "cpu"), "the cluster has no GPU"
    pods = separate_layout(config, nodes, actors, "pods")
    if pods.fits(nodes):
        return pods, f"the cluster's {gpus} GPUs are enough for one owner each, {pods.gpus} in all"
    if shares and can_share(config) and (colocated := colocated_layout(config)).fits(nodes):
        return colocated, f"one GPU for each actor would be {pods.gpus} and the cluster has {gpus}: they take turns"
    if (fewer := _fewer(config, nodes, actors, shares)) is not None:
        return fewer, f"the recipe's numbers are more than the cluster's {gpus} GPUs hold"
    return pods, "the cluster has GPUs"


def _fewer(config: RunConfig, nodes: Sequence[Node], actors: frozenset[Actor], shares: bool) -> Layout | None:
    """Return the layout of as many generators and ranks as the GPUs hold, which computes the same, only slower.

    None where GPUs are not what is short, and where generators and ranks cannot be paired.
    """
    numbers = {"generator": config.rollout.num_generators, "learner": config.learner.num_ranks}
    most = min(
        max(number for actor, number in numbers.items() if actor in actors) - 1,
        sum(node.gpus for node in nodes) // config.rollout.tensor_parallel_size,
    )
    for count in range(most, 0, -1) if can_share(config) or not shares else ():
        smaller = with_counts(config, count, count)
        layout = colocated_layout(smaller) if shares else separate_layout(smaller, nodes, actors, "pods")
        if layout.fits(nodes):
            return layout
    return None


def with_counts(config: RunConfig, num_generators: int, num_ranks: int) -> RunConfig:
    """Return the settings with other numbers of generators and ranks; 0 leaves a number as it is."""
    rollout, learner = config.rollout, config.learner
    return config.model_copy(
        update={
            "rollout": rollout.model_copy(update={"num_generators": num_generators or rollout.num_generators}),
            "learner": learner.model_copy(update={"num_ranks": num_ranks or learner.num_ranks}),
        }
    )


def can_share(config: RunConfig) -> bool:
    """Return whether generator i and learner rank i can take turns on GPU i."""
    is_paired = config.rollout.num_generators == config.learner.num_ranks and config.rollout.tensor_parallel_size == 1
    return is_paired and config.max_staleness == 0


def colocated_layout(config: RunConfig) -> Layout:
    """Return the layout with a GPU for each pair of generator and learner rank."""
    pairs, workers = config.learner.num_ranks, config.rewards.num_workers
    pair = Bundle(1, config.rollout.cpus_per_generator + config.learner.cpus_per_rank)
    bundles = [pair] * pairs + [Bundle(0, config.rewards.cpus_per_worker)] * workers
    both = tuple(range(pairs))
    return Layout("colocated", tuple(bundles), both, both, tuple(range(pairs, pairs + workers)))


def separate_layout(
    config: RunConfig, nodes: Sequence[Node], actors: frozenset[Actor], mode: Literal["cpu", "pods"]
) -> Layout:
    """Return the layout with a bundle for each generator, for each reward worker, and for all learner ranks of a node.

    The ranks are on as few nodes as possible.
    """
    gpus = 0 if mode == "cpu" else 1
    rank = Bundle(gpus, config.learner.cpus_per_rank)
    generator = Bundle(gpus * config.rollout.tensor_parallel_size, config.rollout.cpus_per_generator)
    worker = Bundle(0, config.rewards.cpus_per_worker)
    num_generators = config.rollout.num_generators if "generator" in actors else 0
    num_workers = config.rewards.num_workers if "reward" in actors else 0
    num_ranks = config.learner.num_ranks if "learner" in actors else 0
    layout = None
    for sizes in _splits(num_ranks, rank, nodes):
        parts = [Bundle(size * rank.gpus, round(size * rank.cpus, 4)) for size in sizes]
        ends = list(accumulate([len(parts), num_generators, num_workers]))
        layout = Layout(
            mode,
            tuple(parts + [generator] * num_generators + [worker] * num_workers),
            generators=tuple(range(ends[0], ends[1])),
            ranks=tuple(part for part, size in enumerate(sizes) for _ in range(size)),
            rewards=tuple(range(ends[1], ends[2])),
        )
        if layout.fits(nodes):
            break
    assert layout is not None
    return layout


def _splits(num_ranks: int, rank: Bundle, nodes: Sequence[Node]) -> Iterator[tuple[int, ...]]:
    """Yield the ways to split the ranks over bundles, those of fewest nodes first and each rank by itself last."""
    if num_ranks == 0:
        yield ()
        return
    room = sorted((_room(rank, node, num_ranks) for node in nodes), reverse=True)
    left, filled = num_ranks, []
    for ranks in room:
        if left and ranks:
            filled.append(min(left, ranks))
            left -= filled[-1]
    if not left:
        yield tuple(filled)
    for parts in range(num_ranks if left else len(filled), num_ranks + 1):
        yield tuple(num_ranks // parts + (part < num_ranks % parts) for part in range(parts))


def _room(rank: Bundle, node: Node, most: int) -> int:
    """Return how many ranks an empty node holds, ``most`` at most."""
    by_gpus = node.gpus // rank.gpus if rank.gpus else most
    by_cpus = math.floor((node.cpus + TOLERANCE) / rank.cpus) if rank.cpus else most
    return min(by_gpus, by_cpus, most)


def _is_placed(bundles: Sequence[Bundle], nodes: Sequence[Node], pick: Callable[..., list[float]]) -> bool:
    """Return whether all bundles find room, each on the node with most or least free, as ``pick`` (max or min) says."""
    free = [[float(node.gpus), node.cpus] for node in nodes]
    for bundle in sorted(bundles, reverse=True):
        roomy = [node for node in free if node[0] >= bundle.gpus and node[1] + TOLERANCE >= bundle.cpus]
        if not roomy:
            return False
        chosen = pick(roomy, key=itemgetter(0, 1) if bundle.gpus else itemgetter(1))
        chosen[0] -= bundle.gpus
        chosen[1] -= bundle.cpus
    return True
