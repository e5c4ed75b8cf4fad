"""The weights that a learner announces and sends between GPUs, as far as that can be tested without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from learner.backend import forward_backward
from learner.config import LoraConfig
from learner.learner import Learner
from learner.weights.gather import device_weights, tensors_of
from learner.weights.senders import check_allocator, largest_bytes
from rollout.types.completions import Group
from tests.support import learners
from tests.support.learners import sharing_all
from tests.support.tiny import MODEL, learner_config


@pytest.fixture(autouse=True)
def _nothing_is_too_small_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_backward, "deepspeed_settings", sharing_all(forward_backward.deepspeed_settings))


def start(folder: Path, zero_stage: int = 0, lora: LoraConfig | None = None) -> Learner:
    return learners.start(folder, learner_config(zero_stage=zero_stage), MODEL.model_copy(update={"lora": lora}))


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)], ids=["whole", "lora"])
@pytest.mark.parametrize("zero_stage", [0, 3])
def test_the_manifest_announces_what_is_sent_which_is_what_goes_through_the_object_store(
    folder: Path, groups: list[Group], zero_stage: int, lora: LoraConfig | None
) -> None:
    learner = start(folder, zero_stage, lora)
    learner.update(1, groups)
    announced = learner.weight_manifest()
    sent = list(device_weights(learner._backend))
    assert announced.names == tuple(name for name, _ in sent)
    assert announced.dtypes == tuple(str(tensor.dtype).removeprefix("torch.") for _, tensor in sent)
    assert announced.shapes == tuple(tuple(tensor.shape) for _, tensor in sent)
    stored = {name: tensor for bucket in learner.weight_buckets(10_000) for name, tensor in tensors_of(bucket)}
    # All at once: what was sent first must still be there when the last has been gathered.
    assert stored.keys() == dict(sent).keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in sent)
    assert largest_bytes(learner._backend) == max(tensor.numel() * 4 for tensor in stored.values())
    learner.close()


def test_every_bucket_carries_the_checksum_of_what_it_holds(folder: Path) -> None:
    learner = start(folder)
    buckets = list(learner.weight_buckets(10_000))
    assert len(buckets) > 1 and all(bucket.is_intact for bucket in buckets)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_weights_are_copied_into_buckets_only_where_their_memory_is_let_go(folder: Path, zero_stage: int) -> None:
    learner = start(folder, zero_stage)
    parameters = dict(learner._backend.policy.model.named_parameters())
    for bucket in learner.weight_buckets(10_000):
        for name, array in zip(bucket.names, bucket.arrays, strict=True):
            assert np.shares_memory(array, parameters[name].detach().numpy()) is (zero_stage < 3), name


@pytest.mark.parametrize("key", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_memory_that_no_other_process_can_open_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} = 'max_split_size_mb:64, expandable_segments: True' with .*unset it"):
        check_allocator({key: "max_split_size_mb:64, expandable_segments: True"})
    check_allocator({key: "expandable_segments:False"})
    check_allocator({})


def test_what_was_not_begun_says_so(folder: Path) -> None:
    learner = start(folder)
    with pytest.raises(RuntimeError, match=r"call begin\(\) first"):
        learner.ipc.next_bucket()
