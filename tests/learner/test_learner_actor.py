"""Two ranks in two Ray actors over gloo, through the shell that a run uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from learner.actor import LearnerActor, actor_options
from learner.backend.file_digests import file_digest
from learner.config import LearnerConfig
from learner.parity import ParityError
from learner.weights.gather import tensors_of
from rollout.types.completions import Group
from tests.learner.test_learner import assert_close, stale
from tests.support.marks import only_in_test_all
from tests.support.oracle import oracle_update
from tests.support.remote_groups import for_update
from tests.support.tiny import MAX_COMPLETION_TOKENS, MODEL, TEMPERATURE, learner_config

DEADLINE_S = 120

# Arrays out of Ray's object store cannot be written to, and torch says so.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore:.*not writable")]


class Ranks:
    """Both learner ranks; every call goes to both, as every method of a Learner wants."""

    def __init__(self) -> None:
        options = actor_options(learner_config(cpus_per_rank=0.5), use_gpu=False)
        self.actors = [LearnerActor.options(**options).remote() for _ in range(2)]
        self.master = ray.get(self.actors[0].reserve_address.remote(), timeout=DEADLINE_S)

    def call(self, method: str, *args: Any) -> list[Any]:
        return ray.get([getattr(actor, method).remote(*args) for actor in self.actors], timeout=DEADLINE_S)

    def start(self, config: LearnerConfig, folder: Path) -> None:
        started = [
            actor.start.remote(
                config,
                MODEL,
                folder,
                rank=rank,
                master=self.master,
                num_steps=10,
                temperature=TEMPERATURE,
                max_completion_tokens=MAX_COMPLETION_TOKENS,
            )
            for rank, actor in enumerate(self.actors)
        ]
        ray.get(started, timeout=DEADLINE_S)

    def weights(self) -> dict[str, np.ndarray]:
        # Both streams begin before either is read: gathering from ZeRO 3 takes both ranks.
        streams = [actor.weight_buckets.remote(10_000) for actor in self.actors]
        first, second = ([ray.get(bucket, timeout=DEADLINE_S) for bucket in stream] for stream in streams)
        assert not second
        return {name: tensor.numpy() for bucket in first for name, tensor in tensors_of(bucket)}


@pytest.fixture(scope="module")
def ranks(ray_here: None) -> Iterator[Ranks]:
    ranks = Ranks()
    yield ranks
    for actor in ranks.actors:
        ray.kill(actor)


def two_rank_config(**settings: Any) -> LearnerConfig:
    return learner_config(num_ranks=2, **settings)


def test_a_rank_that_was_not_started_says_so(ranks: Ranks) -> None:
    """It comes first: the other tests start them."""
    with pytest.raises(RuntimeError, match="call start"):
        ray.get(ranks.actors[0].update.remote(1, [], False), timeout=DEADLINE_S)


@pytest.mark.parametrize("zero_stage", [only_in_test_all(0), only_in_test_all(1), 2, 3])
def test_two_ranks_make_the_update_of_one(ranks: Ranks, folder, groups, more_groups, zero_stage: int) -> None:
    config = two_rank_config(zero_stage=zero_stage)
    ranks.start(config, folder)
    updates = [ranks.call("update", 1, *for_update(groups))]
    changes, same = ranks.call("score_again")
    updates.append(ranks.call("update", 2, *for_update(more_groups)))
    assert all(first == second for first, second in updates)
    np.testing.assert_array_equal(changes, same)
    np.testing.assert_array_equal(np.isnan(changes), np.isnan(updates[0][1].logprobs.gaps))
    flat = sum(group.num_completion_tokens for group in groups if not np.ptp(group.totals))
    assert np.isnan(changes).sum() == flat and np.nanmax(np.abs(changes)) > 0.01
    assert_close(ranks.weights(), oracle_update(folder, config, [groups, more_groups]))


def test_a_rank_without_work_keeps_in_step(ranks: Ranks, folder, groups) -> None:
    ranks.start(two_rank_config(zero_stage=2), folder)
    lone = [group for group in groups if not np.ptp(group.totals)]
    first, second = ranks.call("update", 1, *for_update(lone))
    assert first == second
    assert first.peak_gib > 0.1 and second.peak_gib > 0.1
    assert first.metrics["optim/microbatches"] == 1
    assert (~np.isnan(ranks.call("score_again")[1])).sum() == lone[0].completions[0].num_tokens
    ranks.call("release_memory")
    assert all(0.1 < gib < 10 for gib in ranks.call("peak_memory_gib"))


@pytest.mark.parametrize("zero_stage", [only_in_test_all(1), 2])
def test_a_checkpoint_of_two_ranks_goes_on_bit_for_bit(
    ranks: Ranks, folder, groups, more_groups, zero_stage: int, tmp_path
) -> None:
    config = two_rank_config(zero_stage=zero_stage)
    ranks.start(config, folder)
    ranks.call("update", 1, *for_update(groups))
    digests, same = ranks.call("save", tmp_path / "checkpoint")
    files = [path for path in (tmp_path / "checkpoint").rglob("*") if path.is_file()]
    assert digests == same == {str(path.relative_to(tmp_path / "checkpoint")): file_digest(path) for path in files}
    expected = ranks.call("update", 2, *for_update(more_groups))
    weights = ranks.weights()
    ranks.start(config, folder)
    ranks.call("load", tmp_path / "checkpoint")
    assert ranks.call("update", 2, *for_update(more_groups)) == expected
    assert_close(ranks.weights(), weights, atol=0)


def test_parity_errors_reach_the_driver_from_every_rank(ranks: Ranks, folder, groups: list[Group]) -> None:
    ranks.start(two_rank_config(max_logprob_gap=None), folder)
    # Only one group is stale: a rank that has none of it must stop as well.
    pending = [actor.update.remote(1, *for_update([stale(groups[0]), *groups[1:]])) for actor in ranks.actors]
    for reference in pending:
        with pytest.raises(ParityError, match=r"at most; the limit on the average is 0\.001"):
            ray.get(reference, timeout=DEADLINE_S)
