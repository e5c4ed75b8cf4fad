from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.build import build_model
from learner.packing import Batch, Sequence, pack
from learner.policy import load_policy, policy_inputs
from tests.learner.tiny import BUILD, MODEL, TEMPERATURE, sequence_logprobs

shapes = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 20), st.sampled_from([0.0, 1.5])), min_size=1, max_size=40
)


def make_sequences(shapes: list[tuple[int, int, float]]) -> list[Sequence]:
    """Sequences whose tokens are all different, so that one that is lost or doubled shows."""
    counter = iter(range(10**6))
    return [
        Sequence(
            token_ids=np.array([next(counter) for _ in range(prompt + completion)], np.int32),
            num_prompt_tokens=prompt,
            rollout_logprobs=-np.arange(1, completion + 1, dtype=np.float32),
            advantage=advantage,
        )
        for prompt, completion, advantage in shapes
    ]


def pack_all(sequences: list[Sequence], num_ranks: int, layout, skip: bool, max_tokens: int = 64) -> list[Batch]:
    return [
        pack(sequences, rank=rank, num_ranks=num_ranks, max_tokens=max_tokens, layout=layout, skip_zero_advantage=skip)
        for rank in range(num_ranks)
    ]


@pytest.mark.parametrize("layout", ["rows", "flat"])
@given(shapes=shapes, num_ranks=st.integers(1, 4), skip=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_token_once_in_as_many_microbatches_on_each_rank(layout, shapes, num_ranks: int, skip: bool) -> None:
    sequences = make_sequences(shapes)
    batches = pack_all(sequences, num_ranks, layout, skip)
    computed = [s for s in sequences if s.advantage or not skip] or sequences[:1]
    microbatches = [microbatch for batch in batches for microbatch in batch.microbatches]

    targets = np.concatenate([microbatch.targets for microbatch in microbatches])
    expected = np.concatenate([s.token_ids[s.num_prompt_tokens :] for s in computed])
    assert sorted(targets) == sorted(expected)
    assert len({len(batch.microbatches) for batch in batches}) == 1
    assert all(microbatch.token_ids.size <= 64 for microbatch in microbatches)
    assert {batch.total_tokens for batch in batches} == {sum(s.num_completion_tokens for s in sequences)}
    assert {batch.computed_tokens for batch in batches} == {len(targets)}
    for microbatch in microbatches:
        # Tokens count upwards, so the predictor of a token holds the number before it.
        np.testing.assert_array_equal(microbatch.token_ids.reshape(-1)[microbatch.predictors], microbatch.targets - 1)
        starts = microbatch.position_ids.reshape(-1)[microbatch.predictors] + 1 + microbatch.rollout_logprobs
        assert (starts >= 0).all() and (starts <= 9).all()


@given(shapes=shapes)
@settings(deadline=None)
def test_ranks_differ_by_one_sequence_at_most(shapes) -> None:
    batches = pack_all(make_sequences(shapes), 3, "flat", skip=False)
    loads = [sum(microbatch.token_ids.size for microbatch in batch.microbatches) for batch in batches]
    assert max(loads) - min(loads) <= 29 + 1


def test_no_advantage_at_all_still_computes_one_sequence() -> None:
    (batch,) = pack_all(make_sequences([(3, 5, 0.0), (3, 4, 0.0)]), 1, "rows", skip=True)
    assert batch.computed_tokens == 5
    assert batch.total_tokens == 9


def test_a_sequence_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens_per_microbatch is 64: raise it to 70"):
        pack_all(make_sequences([(10, 60, 1.0)]), 1, "rows", skip=True)
    with pytest.raises(ValueError, match="empty prompt"):
        pack_all(make_sequences([(0, 6, 1.0)]), 1, "rows", skip=True)


@pytest.mark.parametrize("layout", ["rows", "flat"])
def test_packed_forward_equals_one_sequence_at_a_time(layout, tmp_path) -> None:
    build_model(BUILD, 0, tmp_path)
    policy = load_policy(tmp_path, MODEL, TEMPERATURE)
    rng = np.random.default_rng(0)
    sequences = [
        Sequence(rng.integers(2, 60, prompt + 7).astype(np.int32), prompt, np.zeros(7, np.float32), float(prompt))
        for prompt in (3, 9, 1, 5, 4)
    ]
    (batch,) = pack_all(sequences, 1, layout, skip=False, max_tokens=40)
    assert 1 < len(batch.microbatches) < len(sequences)
    for microbatch in batch.microbatches:
        packed, _ = policy(*policy_inputs(microbatch, torch.device("cpu")))
        # The advantage is the prompt's length here, and so tells which sequence a token belongs to.
        present = [s for s in sequences if s.advantage in microbatch.advantages]
        present.sort(key=lambda s: list(microbatch.advantages).index(s.advantage))
        alone = [sequence_logprobs(policy.model, *np.split(s.token_ids, [s.num_prompt_tokens])) for s in present]
        torch.testing.assert_close(packed.double(), torch.cat(alone), rtol=0, atol=1e-5)
