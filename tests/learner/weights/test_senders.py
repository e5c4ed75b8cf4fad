"""The weights that a learner announces and sends between GPUs, as far as that can be tested without one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from learner.backend import forward_backward
from learner.config import LoraConfig
from learner.learner import Learner
from learner.weights.gather import device_weights, tensors_of
from learner.weights.senders import NcclSender, check_allocator, largest_bytes
from rollout.types.completions import Group
from rollout.types.publishing import NcclGroup
from tests.support import learners
from tests.support.learners import sharing_all
from tests.support.streams import Streams
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


def test_who_joins_nccl_goes_on_computing_on_the_stream_that_was_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM joins, the thread is left on another one, and the next update would not wait for the last."""
    from vllm.distributed.weight_transfer import nccl_common
    from vllm.utils.torch_utils import current_stream

    # As the communicator's warm-up does; the rest of it needs GPUs.
    monkeypatch.setattr(nccl_common, "stateless_init_process_group", lambda *_: current_stream())
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    group = NcclGroup("127.0.0.1", 29500, world_size=2, buffer_bytes=2**20)
    backend: Any = SimpleNamespace(rank=SimpleNamespace(is_first=True))
    joins = {
        "vLLM": lambda: nccl_common.trainer_init(
            {"master_address": group.address, "master_port": group.port, "world_size": group.world_size}
        ),
        "ours": lambda: NcclSender(backend).join(group),
    }
    is_kept = {}
    for name, join in joins.items():
        streams = Streams(monkeypatch)
        before = streams.current()
        join()
        is_kept[name] = streams.current() is before
    assert is_kept == {"vLLM": False, "ours": True}


def test_what_was_not_begun_says_so(folder: Path) -> None:
    learner = start(folder)
    with pytest.raises(RuntimeError, match=r"call begin\(\) first"):
        learner.ipc.next_bucket()
