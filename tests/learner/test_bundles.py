"""A prompt is computed once for its completions, and nothing else about the update changes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.config import LoraConfig
from learner.microbatches import Batch
from learner.model.policy import NO_LIMIT, add_value_head, break_even_length, load_policy, policy_inputs
from learner.packing import pack
from learner.sequences import TrainingSequence
from tests.support.tiny import MODEL, TEMPERATURE

CPU = torch.device("cpu")


def group(rng: np.random.Generator, prompt: int, completions: list[int]) -> list[TrainingSequence]:
    """Sequences of one prompt, with lengths in tokens."""
    asked = rng.integers(2, 60, prompt).astype(np.int32)
    return [
        TrainingSequence(
            token_ids=np.concatenate([asked, rng.integers(2, 60, length).astype(np.int32)]),
            num_prompt_tokens=prompt,
            rollout_logprobs=np.zeros(length, np.float32),
            advantages=rng.normal(size=length).astype(np.float32),
            prompt_id=f"{asked}",
        )
        for length in completions
    ]


def interrupted(sequence: TrainingSequence, rng: np.random.Generator) -> TrainingSequence:
    """Return the sequence with an environment's tokens at random in place of some of the policy's."""
    own = np.flatnonzero(rng.random(sequence.num_completion_tokens) < 0.7)
    arrays = {"rollout_logprobs": sequence.rollout_logprobs[own], "advantages": sequence.advantages[own]}
    return replace(sequence, policy_tokens=own, **arrays)


def packed(
    sequences: list[TrainingSequence], break_even: int, max_tokens: int = 400, num_ranks: int = 1
) -> list[Batch]:
    sequences = [replace(sequence, index=index) for index, sequence in enumerate(sequences)]
    return [
        pack(sequences, rank=rank, num_ranks=num_ranks, max_tokens=max_tokens, layout="rows", break_even=break_even)
        for rank in range(num_ranks)
    ]


GROUPS = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.integers(1, 40), min_size=1, max_size=8)), min_size=1, max_size=6
)


@given(shapes=GROUPS, num_ranks=st.integers(1, 3), break_even=st.sampled_from([0, 30, 5_000]), in_turns=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_completion_is_in_one_row_behind_its_own_prompt(
    shapes, num_ranks: int, break_even: int, in_turns: bool
) -> None:
    rng = np.random.default_rng(len(shapes))
    sequences = [sequence for shape in shapes for sequence in group(rng, *shape)]
    if in_turns:
        sequences = [interrupted(sequence, rng) for sequence in sequences]
    batches = packed(sequences, break_even, max_tokens=120, num_ranks=num_ranks)
    assert len({len(batch.microbatches) for batch in batches}) == 1
    found = [s.index for batch in batches for m in batch.microbatches for s in m.sequences]
    assert sorted(found) == list(range(len(sequences)))
    for microbatch in itertools.chain.from_iterable(batch.microbatches for batch in batches):
        tokens, positions = microbatch.token_ids.reshape(-1), microbatch.position_ids.reshape(-1)
        assert len(tokens) <= 120
        starts = np.cumsum([0, *(s.num_completion_tokens for s in microbatch.sequences)])
        for sequence, (start, end) in zip(microbatch.sequences, itertools.pairwise(starts), strict=True):
            before = microbatch.predictors[start:end]
            own = np.arange(sequence.num_prompt_tokens - 1, sequence.num_tokens - 1)[sequence.policy_tokens]
            assert tokens[before].tolist() == sequence.token_ids[own].tolist()
            assert positions[before].tolist() == own.tolist()


def gradients(policy: torch.nn.Module, batch: Batch) -> tuple[dict[int, torch.Tensor], torch.Tensor, float]:
    """The log-probabilities of each sequence, the gradients in one vector, and the loss."""
    policy.zero_grad()
    logprobs, total = {}, 0.0
    for microbatch in batch.microbatches:
        output = policy(*policy_inputs(microbatch, CPU))
        advantages = torch.from_numpy(microbatch.advantages)
        loss = -(output[0].exp() * advantages + 0.1 * output[1] + 0.3 * output[2] * output[0]).sum()
        loss.backward()
        total += loss.item()
        lengths = [sequence.num_completion_tokens for sequence in microbatch.sequences]
        parts = output[0].detach().split(lengths)
        logprobs |= {sequence.index: part for sequence, part in zip(microbatch.sequences, parts, strict=True)}
    return logprobs, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]).double(), total


@pytest.fixture
def flex_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flex attention as its definition says: not compiled, and with the backward pass that PyTorch refuses on the CPU.

    What is left for a GPU to show is PyTorch's own kernels (tests/gpu/test_learner_memory.py).
    """
    from torch.nn.attention import flex_attention
    from transformers import masking_utils
    from transformers.integrations import flex_attention as integration

    def computed(query, key, value, training: bool = False, **settings):
        return flex_attention.flex_attention(query, key, value, **settings)

    def mask(*args, _compile: bool = False, **settings):
        return flex_attention.create_block_mask(*args, **settings)

    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(masking_utils, "create_block_mask", mask)
    monkeypatch.setattr(integration, "compile_friendly_flex_attention", computed)
    monkeypatch.setattr("learner.model.policy.resolve_attention", lambda config: config.attention)


@pytest.mark.usefixtures("flex_on_the_cpu")
@pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
@pytest.mark.parametrize("kind", ["full", "checkpointing", "lora", "critic"])
def test_sharing_a_prompt_changes_neither_loss_nor_gradients(kind: str, attention: str, folder) -> None:
    lora = LoraConfig(rank=4) if kind == "lora" else None
    config = MODEL.model_copy(update={"attention": attention, "lora": lora})
    policy = load_policy(folder, config, TEMPERATURE)
    for name, weights in policy.named_parameters():
        if "lora_B" in name:  # zeros at first, of which A has no gradient
            torch.nn.init.normal_(weights, std=0.1)
    if kind == "critic":
        add_value_head(policy)
        torch.nn.init.normal_(policy.value_head[2].weight, std=0.1)
    if kind == "checkpointing":
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
    rng = np.random.default_rng(0)
    sequences = [*group(rng, 30, [5, 17, 1, 9, 9]), *group(rng, 3, [12, 4]), *group(rng, 11, [7])]
    (alone,), (shared,) = packed(sequences, 0), packed(sequences, 10_000)
    sizes = [sum(m.token_ids.size for m in batch.microbatches) for batch in (alone, shared)]
    assert sizes[1] < 0.75 * sizes[0]
    assert all(m.parts is None for m in alone.microbatches) and any(m.parts is not None for m in shared.microbatches)
    (expected, expected_grad, expected_loss), (found, grad, loss) = (
        gradients(policy, each) for each in (alone, shared)
    )
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    for index, logprobs in expected.items():
        torch.testing.assert_close(found[index], logprobs, rtol=0, atol=1e-5)
    assert (grad - expected_grad).norm() < 1e-5 * expected_grad.norm()


def test_in_bfloat16_sharing_differs_by_no_more_than_rounding_does(folder) -> None:
    rng = np.random.default_rng(0)
    sequences = group(rng, 30, [5, 17, 1, 9, 9])
    exact = gradients(load_policy(folder, MODEL, TEMPERATURE), packed(sequences, 0)[0])[1]
    policy = load_policy(folder, MODEL.model_copy(update={"dtype": "bfloat16"}), TEMPERATURE)
    alone, shared = (gradients(policy, packed(sequences, each)[0])[1] for each in (0, 10_000))
    assert (shared - exact).norm() < 1.5 * (alone - exact).norm()


def test_long_completions_get_rows_of_their_own_where_attention_would_cost_more_than_the_prompt() -> None:
    rng = np.random.default_rng(0)

    def bundle_sizes(prompt: int, completion: int, break_even: int) -> set[int]:
        (batch,) = packed([s for _ in range(4) for s in group(rng, prompt, [completion] * 8)], break_even, 10**6)
        return {len(m.sequences) // len(m.token_ids) for m in batch.microbatches}

    assert bundle_sizes(45, 18, break_even=3_000) == {8}
    assert bundle_sizes(45, 2_000, break_even=3_000) == {1}
    assert bundle_sizes(1_000, 500, break_even=3_000) == {4}


@pytest.mark.parametrize(("prompt", "num_ranks"), [(118, 1), (70, 1), (70, 3)])
def test_a_prompt_that_fills_a_microbatch_has_it_with_one_completion(prompt: int, num_ranks: int) -> None:
    """Also where it fits a microbatch, and is longer than a rank's share of all tokens."""
    sequences = group(np.random.default_rng(0), prompt, [2, 1, 2])
    batches = packed(sequences, 10_000, max_tokens=120, num_ranks=num_ranks)
    microbatches = [microbatch for batch in batches for microbatch in batch.microbatches if microbatch.sequences]
    together = {118: [1, 1, 1], 70: [3] if num_ranks == 1 else [1, 1, 1]}[prompt]
    assert [len(microbatch.sequences) for microbatch in microbatches] == together
    assert all(microbatch.token_ids.size <= 120 for microbatch in microbatches)


def test_a_model_that_looks_back_through_a_window_shares_nothing(folder) -> None:
    model = load_policy(folder, MODEL, TEMPERATURE).model
    assert break_even_length(model) > 50
    model.config.layer_types = ["full_attention", "sliding_attention"]
    assert break_even_length(model) == 0


@pytest.mark.usefixtures("flex_on_the_cpu")
@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_gpu_shares_prompts_with_flex_attention_only(folder, monkeypatch, on_gpu: bool) -> None:
    lengths = {}
    for attention in ("sdpa", "flex_attention"):
        model = load_policy(folder, MODEL.model_copy(update={"attention": attention}), TEMPERATURE).model
        monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
        lengths[attention] = break_even_length(model)
    assert (lengths["sdpa"] == 0) == on_gpu and lengths["flex_attention"] > 10**9


def test_with_flex_attention_all_completions_that_fit_are_in_one_row() -> None:
    sequences = group(np.random.default_rng(0), 1_000, [500] * 8)
    (batch,) = packed(sequences, NO_LIMIT, 10**6)
    assert [len(m.sequences) // len(m.token_ids) for m in batch.microbatches] == [8]
