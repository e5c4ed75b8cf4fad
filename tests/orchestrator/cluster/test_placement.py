"""Placement groups on a Ray cluster of several nodes, whose GPUs Ray counts without there being any."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from orchestrator.cluster.placement import Placement, PlacementError
from orchestrator.config.recipe import ConfigError, load
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.fleet import RayFleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
# Ray's workers cannot import this file: its actors travel by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

# Not 127.0.0.1, in whose stead Ray takes the machine's outer address when a driver joins a cluster.
ADDRESS = "127.0.0.2"
NODE = {"num_cpus": 16, "num_gpus": 8, "node_ip_address": ADDRESS}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node of 8 GPUs; a second one joins in the test of that."""
    ray.shutdown()  # the cluster that other files share
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray gives away only those that it names
    started = Cluster(
        initialize_head=True,
        head_node_args={
            **NODE,
            "include_dashboard": False,
            "_system_config": {"prestart_worker_first_driver": False},
        },
    )
    ray.init(started.address, _node_ip_address=ADDRESS, log_to_driver=False, logging_level=logging.ERROR)
    yield started
    ray.shutdown()
    started.shutdown()


def groups(config: RunConfig) -> list[dict[str, Any]]:
    """The placement groups of a run that are there or asked for."""
    return [
        group
        for group in placement_group_table().values()
        if group["state"] != "REMOVED" and group["name"].split("/")[0] == config.name
    ]


def nodes_of(placement: Placement) -> dict[str, list[str]]:
    """The node of each actor's bundle."""
    layout = placement.layout
    (group,) = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    nodes = group["bundles_to_node_id"]
    kinds = {"generator": layout.generators, "learner": layout.ranks, "reward": layout.rewards}
    return {kind: [nodes[bundle] for bundle in bundles] for kind, bundles in kinds.items()}


@ray.remote
class Actor:
    """Stands where a generator or a learner rank would."""

    def sees(self) -> tuple[str, str]:
        """Its node, and the GPUs on it."""
        return ray.get_runtime_context().get_node_id(), os.environ["CUDA_VISIBLE_DEVICES"]


def what_they_see(options: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Of actors with these options, all alive at once."""
    actors = [Actor.options(**each).remote() for each in options]
    seen: list[tuple[str, str]] = ray.get([actor.sees.remote() for actor in actors], timeout=120)
    for actor in actors:
        ray.kill(actor)
    return seen


def test_a_cluster_that_is_too_small_is_refused_before_anything_is_requested(cluster: Cluster) -> None:
    config = load("countdown-2x8gpu", ["learner.num_ranks=40"])
    before = placement_group_table().keys()
    with pytest.raises(PlacementError, match="the run reserves 52 GPUs in bundles of 52 × 1; the cluster's"):
        Placement.of(config)
    assert placement_group_table().keys() == before


def test_nodes_are_waited_for_only_so_long(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    config = load("countdown-2x8gpu", ["learner.num_ranks=40", "placement.wait_for_resources_s=1.5"])
    with pytest.raises(PlacementError, match=r"waited placement\.wait_for_resources_s = 1\.5 s for nodes"):
        Placement.of(config)
    assert "waiting for nodes, " in caplog.text and "52 GPUs" in caplog.text


def test_the_recipe_for_one_node_has_a_gpu_for_each_actor(cluster: Cluster) -> None:
    config = load("countdown-8gpu")
    with Placement.of(config) as placement:
        assert placement.layout.mode == "pods"
        assert len({*nodes_of(placement)["learner"]}) == 1
        assert [group["name"] for group in groups(config)] == ["countdown-8gpu"]
    assert groups(config) == []


def test_a_node_that_joins_is_waited_for_ranks_are_packed_and_generators_spread(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    config = load("countdown-2x8gpu", ["placement.wait_for_resources_s=120"])
    # Ray starts nodes in the main thread only.
    with ThreadPoolExecutor() as aside:
        placing = aside.submit(Placement.of, config)
        while "waiting for nodes" not in caplog.text:
            time.sleep(0.1)
        cluster.add_node(**NODE)
        with placing.result(timeout=120) as placement:
            nodes = nodes_of(placement)
    (learner,) = {*nodes["learner"]}
    (other,) = {*nodes["generator"]} - {learner}
    assert Counter(nodes["generator"]) == {learner: 4, other: 8}
    assert {*nodes["reward"]} == {learner, other}
    assert groups(config) == []


@pytest.mark.long
def test_ranks_of_a_node_and_engines_over_several_cards_have_gpus_of_their_own(cluster: Cluster) -> None:
    config = load(
        "countdown-8gpu", ["learner.num_ranks=2", "rollout.num_generators=1", "rollout.tensor_parallel_size=2"]
    )
    with Placement.of(config) as placement:
        options = [placement.learner_options(0), placement.learner_options(1), placement.generator_options(0)]
        first, second, generator = what_they_see(options)
        (again,) = what_they_see(options[:1])
        cores = placement.rank_cores()
    assert first[0] == second[0] and cores == NODE["num_cpus"] // 2
    cards = [(node, card) for node, seen in (first, second, generator) for card in seen.split(",")]
    assert len({*cards}) == len(cards) == 4
    assert again[0] == first[0] and len(again[1].split(",")) == 1


@pytest.mark.long
def test_pairs_that_take_turns_see_the_same_gpu(cluster: Cluster) -> None:
    config = load("countdown-80gb", ["rollout.num_generators=2", "learner.num_ranks=2"])
    with Placement.of(config) as placement:
        assert placement.layout.mode == "colocated"
        kinds = (placement.generator_options, placement.learner_options)
        seen = what_they_see([options(index) for options in kinds for index in (0, 1)])
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]


def test_a_generator_is_added_and_removed(cluster: Cluster) -> None:
    config = load("countdown-8gpu", ["rollout.num_generators=1", "learner.num_ranks=1"])
    with Placement.of(config) as placement:
        what_they_see([placement.generator_options(index) for index in (0, 1)])
        assert {group["name"] for group in groups(config)} == {"countdown-8gpu", "countdown-8gpu/generator-1"}
        placement.remove_generator(1)
        placement.remove_generator(0)
        assert {group["name"] for group in groups(config)} == {"countdown-8gpu"}
        placement.generator_options(2)
    assert groups(config) == []


@pytest.mark.long
def test_a_busy_cluster_is_waited_for_and_it_is_said_who_holds_it(cluster: Cluster) -> None:
    all_but_one = int(ray.cluster_resources()["GPU"]) - 1
    config = load("countdown-8gpu", ["placement.start_timeout_s=1"])
    other = load("countdown-8gpu", ["name=other", f"rollout.num_generators={all_but_one - 4}", "rewards.num_workers=1"])
    with Placement.of(other):
        with pytest.raises(PlacementError) as caught:
            Placement.of(config)
        assert groups(config) == []
    message = str(caught.value)
    assert "'countdown-8gpu' needs 10 CPUs and 8 GPUs" in message
    # Ray tries again and again to have all bundles at once, and holds what it got for the moment of a try.
    assert re.search(r"\b[01] GPUs are free", message)
    assert "held by placement groups: 'other' 4 + " in message
    assert "placement.start_timeout_s = 1 s" in message


def test_the_group_goes_when_the_driver_fails(cluster: Cluster, tmp_path) -> None:
    config = load("countdown-8gpu")
    with pytest.raises(KeyError), Placement.of(config):
        raise KeyError
    assert groups(config) == []
    # A fleet that fails while it starts leaves none behind either.
    colocated = load("countdown-80gb", [f"model.path={tmp_path / 'nowhere'}"])
    with pytest.raises(ConfigError):
        RayFleet.start(colocated, str(tmp_path))
    assert groups(colocated) == []


DRIVER = f"""
import ray, sys, time
from orchestrator.cluster.placement import Placement
from orchestrator.config.recipe import load
ray.init(sys.argv[1], _node_ip_address="{ADDRESS}", log_to_driver=False)
placement = Placement.of(load("countdown-8gpu", ["name=killed"]))
print("placed", flush=True)
time.sleep(600)
"""


def test_the_group_goes_with_a_driver_that_is_killed(cluster: Cluster) -> None:
    config = load("countdown-8gpu", ["name=killed"])
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, cluster.address], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None and driver.stdout.readline() == "placed\n"
    assert len(groups(config)) == 1
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 60
    while groups(config):
        assert time.monotonic() < deadline, "the killed driver's group is still there"
        time.sleep(0.1)
