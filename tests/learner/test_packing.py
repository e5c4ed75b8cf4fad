from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.microbatches import Batch, Microbatch
from learner.model.policy import load_policy, policy_inputs
from learner.packing import pack
from learner.sequences import TrainingSequence, select_computed
from tests.support.tiny import MODEL, TEMPERATURE, sequence_logprobs

shapes = st.lists(
    st.tuples(
        st.integers(1, 9), st.integers(1, 20), st.sampled_from([0.0, 1.5]), st.sampled_from([False] * 4 + [True])
    ),
    min_size=1,
    max_size=40,
)
"""Prompt tokens, completion tokens, advantage, and whether it is masked."""
LARGEST = 9 + 20
PER_TOKEN = ("rollout_logprobs", "advantages", "old_logprobs", "ref_logprobs", "old_values", "returns")


def make_sequences(shapes: list[tuple[int, int, float, bool]]) -> list[TrainingSequence]:
    """Sequences whose tokens are all different, so that one that is lost or doubled shows."""
    counter = iter(range(10**6))
    return [
        TrainingSequence(
            token_ids=np.array([next(counter) for _ in range(prompt + completion)], np.int32),
            num_prompt_tokens=prompt,
            rollout_logprobs=-np.arange(1, completion + 1, dtype=np.float32),
            advantages=np.full(completion, advantage, np.float32),
            index=index,
            is_masked=is_masked,
        )
        for index, (prompt, completion, advantage, is_masked) in enumerate(shapes)
    ]


def interrupted(sequence: TrainingSequence, every: int) -> TrainingSequence:
    """Return the sequence with an environment's token in place of every so many of its completion's; 0: of none."""
    if not every:
        return sequence
    positions = np.arange(sequence.num_completion_tokens)
    own = positions[positions % every != every - 1]
    arrays = {name: array for name in PER_TOKEN if (array := getattr(sequence, name)) is not None}
    return replace(sequence, policy_tokens=own, **{name: array[own] for name, array in arrays.items()})


def own_tokens(sequence: TrainingSequence) -> list[int]:
    return sequence.token_ids[sequence.num_prompt_tokens :][sequence.policy_tokens].tolist()


def pack_all(
    sequences: list[TrainingSequence], num_ranks: int, layout, skip: bool, max_tokens: int = 64
) -> list[Batch]:
    computed = select_computed(sequences, skip_zero_advantage=skip)
    return [
        pack(sequences, computed=computed, rank=rank, num_ranks=num_ranks, max_tokens=max_tokens, layout=layout)
        for rank in range(num_ranks)
    ]


def microbatches_of(batches: list[Batch]) -> list[Microbatch]:
    return [microbatch for batch in batches for microbatch in batch.microbatches]


@pytest.mark.parametrize("layout", ["rows", "flat"])
@given(shapes=shapes, num_ranks=st.integers(1, 4), skip=st.booleans(), every=st.sampled_from([0, 2, 3]))
@settings(max_examples=50, deadline=None)
def test_every_token_once_in_as_many_microbatches_on_each_rank(
    layout, shapes, num_ranks: int, skip: bool, every: int
) -> None:
    sequences = [interrupted(sequence, every) for sequence in make_sequences(shapes)]
    batches = pack_all(sequences, num_ranks, layout, skip)
    kept = [s for s in sequences if not s.is_masked]
    computed = [s for s in kept if s.advantages[0] or not skip] or (kept or sequences)[:1]
    assert [s.index for s in select_computed(sequences, skip_zero_advantage=skip)] == [s.index for s in computed]
    microbatches = microbatches_of(batches)

    targets = np.concatenate([microbatch.targets for microbatch in microbatches])
    assert sorted(targets) == sorted(token for s in computed for token in own_tokens(s))
    assert len({len(batch.microbatches) for batch in batches}) == 1
    assert all(microbatch.token_ids.size <= 64 for microbatch in microbatches)
    assert {batch.computed_tokens for batch in batches} == {len(targets)}
    assert {batch.total_tokens for batch in batches} == {max(1, sum(len(own_tokens(s)) for s in kept))}
    for microbatch in microbatches:
        # Tokens count upwards, so the predictor of a token holds the number before it.
        np.testing.assert_array_equal(microbatch.token_ids.reshape(-1)[microbatch.predictors], microbatch.targets - 1)
        starts = microbatch.position_ids.reshape(-1)[microbatch.predictors] + 1 + microbatch.rollout_logprobs
        assert (starts >= 0).all() and (starts <= 9).all()


@given(shapes=shapes, num_ranks=st.integers(1, 4), skip=st.booleans())
@settings(max_examples=30, deadline=None)
def test_totals_count_all_but_the_masked(shapes, num_ranks: int, skip: bool) -> None:
    """On every rank those of all ranks: they are the loss's denominators."""
    lengths = [completion for _, completion, _, is_masked in shapes if not is_masked]
    for batch in pack_all(make_sequences(shapes), num_ranks, "rows", skip):
        assert batch.total_tokens == max(1, sum(lengths))
        assert batch.total_completions == max(1, len(lengths))


@pytest.mark.parametrize("layout", ["rows", "flat"])
@given(shapes=shapes, num_ranks=st.integers(1, 4), every=st.sampled_from([0, 2, 3]))
@settings(max_examples=30, deadline=None)
def test_what_is_known_of_a_token_stays_with_it(layout, shapes, num_ranks: int, every: int) -> None:
    rng = np.random.default_rng(len(shapes))
    sequences = [
        replace(s, **{name: rng.normal(size=s.num_completion_tokens).astype(np.float32) for name in PER_TOKEN})
        for s in (interrupted(sequence, every) for sequence in make_sequences(shapes))
    ]
    for microbatch in microbatches_of(pack_all(sequences, num_ranks, layout, skip=False)):
        length_of = [s.num_completion_tokens for s in microbatch.sequences]
        assert microbatch.completion.tolist() == [i for i, length in enumerate(length_of) for _ in range(length)]
        assert microbatch.completion_lengths.tolist() == [length for length in length_of for _ in range(length)]
        masks = [0.0 if s.is_masked else 1.0 for s in microbatch.sequences for _ in range(s.num_completion_tokens)]
        assert microbatch.loss_mask.tolist() == masks
        assert microbatch.thirds().tolist() == [3 * t // length for length in length_of for t in range(length)]
        assert microbatch.targets.tolist() == [token for s in microbatch.sequences for token in own_tokens(s)]
        for name in PER_TOKEN:
            known = [x for s in microbatch.sequences for x in getattr(sequences[s.index], name)]
            assert getattr(microbatch, name).tolist() == known
            assert getattr(microbatch, name).dtype == np.float32


def test_what_is_not_known_is_none() -> None:
    (batch,) = pack_all(make_sequences([(3, 5, 1.0, False), (3, 4, 1.0, False)]), 1, "rows", skip=True)
    (microbatch,) = batch.microbatches
    assert {getattr(microbatch, name) is None for name in PER_TOKEN[2:]} == {True}


@given(shapes=shapes, num_ranks=st.sampled_from([2, 3, 4]))
@settings(deadline=None)
def test_ranks_differ_by_one_sequence_at_most(shapes, num_ranks: int) -> None:
    batches = pack_all(make_sequences(shapes), num_ranks, "flat", skip=False)
    loads = [sum(s.num_tokens for microbatch in batch.microbatches for s in microbatch.sequences) for batch in batches]
    assert max(loads) - min(loads) <= LARGEST


def test_the_longest_first_goes_to_the_least_loaded_rank() -> None:
    lengths = [20, 7, 6, 5, 4, 3]
    batches = pack_all(make_sequences([(1, length - 1, 1.0, False) for length in lengths]), 2, "flat", skip=False)
    found = [[s.num_tokens for m in batch.microbatches for s in m.sequences] for batch in batches]
    assert found == [[20, 3], [7, 6, 5, 4]]


def test_no_advantage_at_all_still_computes_one_sequence() -> None:
    (batch,) = pack_all(make_sequences([(3, 5, 0.0, False), (3, 4, 0.0, False)]), 1, "rows", skip=True)
    assert batch.computed_tokens == 5
    assert batch.total_tokens == 9


def test_nothing_but_masked_sequences_computes_one_that_counts_for_nothing() -> None:
    (batch,) = pack_all(make_sequences([(3, 5, 1.0, True), (3, 4, 1.0, True)]), 1, "rows", skip=True)
    assert batch.computed_tokens == 5
    assert not batch.microbatches[0].loss_mask.any()
    assert (batch.total_tokens, batch.total_completions) == (1, 1)


def test_a_sequence_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"learner\.max_tokens_per_microbatch is 64: raise it to at least 70"):
        pack_all(make_sequences([(10, 60, 1.0, False)]), 1, "rows", skip=True)
    with pytest.raises(ValueError, match="raise it to at least 70, or sample shorter completions"):
        pack_all(make_sequences([(63, 7, 1.0, False)]), 1, "rows", skip=True)
    with pytest.raises(ValueError, match="raise it to at least 70, or use shorter prompts"):
        pack_all(make_sequences([(64, 6, 1.0, False)]), 1, "rows", skip=True)
    with pytest.raises(ValueError, match="empty prompt"):
        pack_all(make_sequences([(0, 6, 1.0, False)]), 1, "rows", skip=True)


@pytest.mark.parametrize("layout", ["rows", "flat"])
def test_packed_forward_equals_one_sequence_at_a_time(layout, folder) -> None:
    policy = load_policy(folder, MODEL, TEMPERATURE)
    rng = np.random.default_rng(0)
    sequences = [
        TrainingSequence(
            token_ids=rng.integers(2, 60, prompt + 7).astype(np.int32),
            num_prompt_tokens=prompt,
            rollout_logprobs=np.zeros(7, np.float32),
            advantages=np.ones(7, np.float32),
        )
        for prompt in (3, 9, 1, 5, 4)
    ]
    (batch,) = pack_all(sequences, 1, layout, skip=False, max_tokens=40)
    assert 1 < len(batch.microbatches) < len(sequences)
    for microbatch in batch.microbatches:
        packed, entropy, values, reference_kl = policy(*policy_inputs(microbatch, torch.device("cpu")))
        alone = [
            sequence_logprobs(policy.model, *np.split(s.token_ids, [s.num_prompt_tokens])) for s in microbatch.sequences
        ]
        torch.testing.assert_close(packed.double(), torch.cat(alone), rtol=0, atol=1e-5)
        assert entropy.shape == packed.shape and (entropy > 0).all()
        assert not values.any() and not reference_kl.any()  # neither critic nor reference
