"""Find what a cluster or the installation lacks for a layout before anything is requested, and who holds resources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import ray
from ray.util.placement_group import placement_group_table

from orchestrator.cluster.layout import Bundle, Layout, Node, can_share, colocated_layout
from orchestrator.config.schema import RunConfig
from orchestrator.doctor.libraries import VLLM, installed_vllms

SPELLED_OUT = 3
"""Up to this many equal amounts are written one by one."""


def shortage(config: RunConfig, layout: Layout, nodes: Sequence[Node]) -> str | None:
    """Return why ``layout`` can never be placed on ``nodes``, and what to change. None if it can."""
    if layout.fits(nodes):
        return None
    only_gpus = replace(layout, bundles=tuple(Bundle(bundle.gpus, 0) for bundle in layout.bundles))
    if not only_gpus.fits(nodes):
        return f"{lack('GPU', layout, nodes)}: {', or '.join(gpu_fixes(config, layout, nodes))}"
    return f"{lack('CPU', layout, nodes)}: {', or '.join(cpu_fixes(layout))}"


def wrong_build(config: RunConfig, layout: Layout) -> str | None:
    """Return why generators cannot sample on the CPU with the installed vLLM, and the fix. None if they can.

    The CUDA build has no CPU kernels, and would take the first GPU, even if another process uses it.
    """
    if layout.mode != "cpu" or not layout.generators or installed_vllms() != [VLLM["gpu"]]:
        return None
    install = "install the CPU set: RAYZERO_INSTALL=cpu make install"
    if config.placement.mode == "cpu":
        what = 'placement.mode = "cpu", but the installed vLLM is built for CUDA and does not run on the CPU'
        return f'{what}: set placement.mode = "auto", which uses the GPUs, or {install}'
    what = "Ray sees no GPU, and the installed vLLM is built for CUDA and does not run on the CPU"
    return f"{what}: `rayzero doctor` says why the GPU is not found; or {install}"


def lack(resource: str, layout: Layout, nodes: Sequence[Node]) -> str:
    """Return how much of a resource is needed, bundle by bundle, and how much exists, node by node."""
    if resource == "GPU":
        total: float = layout.gpus
        wanted: list[float] = [bundle.gpus for bundle in layout.bundles if bundle.gpus]
        there: list[float] = [node.gpus for node in nodes]
    else:
        total, wanted = layout.cpus, [bundle.cpus for bundle in layout.bundles]
        there = [node.cpus for node in nodes]
    what = f"{total:g} {resource}{'s' * (total != 1)}"
    have = f"the cluster's {len(nodes)} nodes have" if len(nodes) != 1 else "the cluster's node has"
    text = f"the run reserves {what} in bundles of {amounts(wanted)}; {have} {amounts(there) or 'nothing'}"
    if resource == "CPU" and layout.gpus:
        # A bundle's cores and GPUs are one node's.
        beside = amounts([bundle.cpus for bundle in layout.bundles if bundle.gpus])
        text += f" (beside GPUs {beside}, where there are {amounts([node.cpus for node in nodes if node.gpus])})"
    return text


def gpu_fixes(config: RunConfig, layout: Layout, nodes: Sequence[Node]) -> Iterator[str]:
    """Yield what to change if GPUs are missing, the cheapest first."""
    have_their_own = layout.mode == "pods" and layout.generators and layout.ranks
    if not any(node.gpus for node in nodes):
        yield 'set placement.mode = "cpu"'
    elif have_their_own and can_share(config) and colocated_layout(config).fits(nodes):
        yield 'set placement.mode = "colocated", which takes half as many'
    counts = [("rollout.num_generators", layout.generators), ("learner.num_ranks", layout.ranks)]
    keys = [f"{key} (now {len(held)})" for key, held in counts if held]
    if layout.generators and config.rollout.tensor_parallel_size > 1:
        keys.append(f"rollout.tensor_parallel_size (now {config.rollout.tensor_parallel_size})")
    yield f"lower {' or '.join(keys)}"
    yield "add nodes, and have the run wait for them with placement.wait_for_resources_s"


def cpu_fixes(layout: Layout) -> Iterator[str]:
    """Yield what to change if cores are missing, the cheapest first."""
    keys = {
        "rollout.cpus_per_generator": layout.generators,
        "learner.cpus_per_rank": layout.ranks,
        "rewards.cpus_per_worker": layout.rewards,
    }
    yield f"lower {' or '.join(key for key, held in keys.items() if held)} (fractions share a core)"
    yield "add nodes, and have the run wait for them with placement.wait_for_resources_s"


def amounts(values: Sequence[float]) -> str:
    """Return the sum as text, such as ``4 + 4`` and ``8 + 12 × 1``, the largest first."""
    terms = []
    for value, count in sorted(Counter(values).items(), reverse=True):
        terms += [f"{value:g}"] * count if count <= SPELLED_OUT else [f"{count} × {value:g}"]
    return " + ".join(terms)


def busy(name: str, layout: Layout) -> str:
    """Return what is needed, what is free, and who holds the rest, as far as Ray reports it."""
    wanted = {"CPU": layout.cpus, "GPU": layout.gpus}
    free = ray.available_resources()
    wants = " and ".join(f"{amount:g} {unit}s" for unit, amount in wanted.items() if amount)
    has = " and ".join(f"{free.get(unit, 0.0):g} {unit}s" for unit, amount in wanted.items() if amount)
    return f"{name!r} needs {wants}, and of the cluster {has} are free{held_by_others(name)}"


def held_by_others(name: str) -> str:
    """Name the other placement groups that hold resources. Actors outside of any group may hold the rest."""
    holders = []
    for group in placement_group_table().values():
        if group["state"] in ("CREATED", "PREPARED", "RESCHEDULING") and group["name"] != name:
            bundles: Mapping[int, Mapping[str, float]] = group["bundles"]
            held = {unit: [bundle[unit] for bundle in bundles.values() if bundle.get(unit)] for unit in ("CPU", "GPU")}
            parts = [f"{amounts(values)} {unit}s" for unit, values in held.items() if values]
            holders.append(f"{group['name'] or group['placement_group_id'][:8]!r} {' and '.join(parts)}")
    if not holders:
        return "; no other placement group holds any: actors or tasks of other jobs do (`ray status`, `ray job list`)"
    return f"; held by placement groups: {', '.join(sorted(holders))}"
