"""The update as a GPU would see it: on the meta device, with every operation watched for tensors of the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from learner.algorithm import objective
from learner.algorithm.presets import PRESETS
from learner.algorithm.settings import AlgorithmConfig
from learner.config import LoraConfig
from learner.microbatches import Batch
from learner.model.lora import add_adapters, merged_weights
from learner.model.policy import Distribution, Policy, PolicyOutput, add_value_head, policy_inputs
from learner.packing import pack
from tests.learner.test_packing import make_sequences

CARD = torch.device("meta")
"""Stands for a card: tensors without memory."""


class OnTheCard(TorchDispatchMode):
    """Refuses operations on tensors of both devices, as CUDA does; numbers may come from the CPU.

    Who asks a tensor of the card for its value gets 0: transformers does, to tell packed sequences from one.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and each.dim() > 0]
        if len({tensor.device for tensor in tensors}) > 1:
            raise RuntimeError(f"{func} got tensors of more than one device")
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device == CARD:
            return torch.zeros((), dtype=args[0].dtype).item()
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_a_card() -> Iterator[None]:
    with OnTheCard():
        yield


def batch(layout: Any) -> Batch:
    """Sequences with everything that any objective reads."""
    sequences = make_sequences([(3, 5, 1.0, False), (2, 7, -1.0, False), (4, 3, 0.5, True)])
    known = ("old_logprobs", "ref_logprobs", "old_values", "returns")
    full = [
        replace(each, **{name: np.zeros(each.num_completion_tokens, np.float32) for name in known})
        for each in sequences
    ]
    return pack(full, rank=0, num_ranks=1, max_tokens=64, layout=layout)


def policy_of(folder: Path, *, has_critic: bool = False) -> Policy:
    with CARD:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    policy = Policy(model, temperature=0.8)
    if has_critic:
        add_value_head(policy)
        policy.to(CARD)  # as DeepSpeed does with all of it
    return policy


@pytest.mark.usefixtures("on_a_card")
@pytest.mark.parametrize("layout", ["rows", "flat"])
@pytest.mark.parametrize("preset", PRESETS)
def test_no_tensor_of_the_cpu_reaches_an_update_on_a_card(folder: Path, preset: str, layout: str) -> None:
    config = AlgorithmConfig(preset=preset, kl_beta=0.1, mismatch_correction="truncated", entropy_beta=0.01)
    policy, packed = policy_of(folder, has_critic=config.uses_critic), batch(layout)
    loss_of = objective.Objective(config, packed, kl_beta=0.1, max_completion_tokens=8)
    for microbatch in packed.microbatches:
        output = PolicyOutput(*policy(*policy_inputs(microbatch, CARD)))
        loss, stats = loss_of(output, microbatch)
        loss.backward()
        assert {tensor.device for tensor in (*output, loss, *stats.values())} == {CARD}
    assert {parameter.grad.device for parameter in policy.parameters() if parameter.grad is not None} == {CARD}


@pytest.mark.usefixtures("on_a_card")
def test_a_reference_and_an_exact_kl_stay_on_the_card(folder: Path) -> None:
    policy, reference, packed = policy_of(folder), policy_of(folder), batch("rows")
    (microbatch, *_) = packed.microbatches
    inputs = policy_inputs(microbatch, CARD)
    (hidden_TH,) = reference(*inputs, only_hidden=True)
    output = PolicyOutput(*policy(*inputs, Distribution(hidden_TH.detach(), reference.model.lm_head.weight.detach())))
    output.reference_kl_T.sum().backward()
    assert output.reference_kl_T.device == CARD


@pytest.mark.usefixtures("on_a_card")
def test_merged_weights_are_made_where_the_weights_are(folder: Path) -> None:
    policy = policy_of(folder)
    add_adapters(policy.model, LoraConfig(rank=4))
    policy.to(CARD)  # as DeepSpeed does with the adapters
    assert {weight.value().device for weight in merged_weights(policy.model)} == {CARD}


@pytest.mark.usefixtures("on_a_card")
def test_one_that_does_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "_like", lambda array, tensor: torch.from_numpy(array).to(tensor.dtype))
    policy, packed = policy_of(folder), batch("rows")
    loss_of = objective.Objective(AlgorithmConfig(), packed, kl_beta=0.0, max_completion_tokens=8)
    with pytest.raises(RuntimeError, match="device"):
        loss_of(PolicyOutput(*policy(*policy_inputs(packed.microbatches[0], CARD))), packed.microbatches[0])
