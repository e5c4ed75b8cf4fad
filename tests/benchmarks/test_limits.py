"""What a machine allows: how much a step must compute at least."""

import pytest

from benchmarks.speed.limits import GroupLengths, Rates, forward_operations, group_lengths, rollout_floor, update_floor
from rollout.types.model_shape import ModelShape

SHAPE = ModelShape("llama", 64, 3, 4, 2, 16, 96, 128, tie_embeddings=True)


def test_operations_are_those_that_torch_counts_but_for_what_causal_attention_leaves_out() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=96,
            vocab_size=128,
            tie_word_embeddings=True,
            attn_implementation="eager",
        )
    )
    length = 24
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.long))
    masked = 2 * SHAPE.query_size * length**2 * SHAPE.num_layers
    assert counter.get_total_flops() == forward_operations(SHAPE, GroupLengths(0, [length], True)) + masked


def test_a_prompt_counts_once_for_its_group_and_groups_without_spread_only_where_they_are_sampled() -> None:
    rates = Rates(1e9, 1e15)
    alone, shared = GroupLengths(40, [8], True), GroupLengths(40, [8] * 4, True)
    assert rollout_floor(SHAPE, [shared], rates) < 4 * rollout_floor(SHAPE, [alone], rates)
    flat = GroupLengths(40, [8] * 4, False)
    assert rollout_floor(SHAPE, [flat], rates) == rollout_floor(SHAPE, [shared], rates)
    assert update_floor(SHAPE, [flat, shared], rates) == update_floor(SHAPE, [shared], rates) > 0


def test_weights_are_read_once_for_each_token_of_the_longest_completion() -> None:
    floor = rollout_floor(SHAPE, [GroupLengths(40, [2, 8], True)], Rates(1e15, 1e6))
    assert floor == pytest.approx(8 * 4 * SHAPE.num_parameters / 1e6)


def test_lengths_come_from_the_records_of_a_step() -> None:
    records = [
        {"prompt_id": prompt, "prompt": prompt * 3, "token_ids": [1] * count, "advantage": advantage}
        for prompt, count, advantage in (("a", 2, 0.0), ("b", 3, -1.0), ("a", 4, 0.0), ("b", 1, 1.0))
    ]
    assert group_lengths(records, len) == [GroupLengths(3, [2, 4], False), GroupLengths(3, [3, 1], True)]
