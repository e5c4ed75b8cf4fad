"""vLLM's own packing and unpacking of our weights, between a learner and vLLM's receiving engines, without CUDA."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.backend import forward_backward
from learner.config import LoraConfig
from learner.learner import Learner
from learner.weights.gather import tensors_of
from rollout.engine.engine import names_and_shapes
from rollout.types.completions import Group
from rollout.types.publishing import NcclGroup
from tests.support import learners
from tests.support.cuda_stand_ins import QueueGroup, SharedBuffers, shared_buffers  # noqa: F401  a fixture
from tests.support.learners import sharing_all
from tests.support.tiny import MODEL, learner_config

BUCKET_BYTES = 4096
"""Below the embedding's, which has a bucket of its own."""


class Receiving:
    """Parts of a worker: vLLM's engine of a transport, and a model that keeps what is loaded, and when."""

    def __init__(self, engine_class: type, **state: Any) -> None:
        self.loaded: dict[str, Tensor] = {}
        self.loads = 0
        self.engine: Any = engine_class.__new__(engine_class)
        model = SimpleNamespace(load_weights=self._load)
        self.engine.__dict__ |= {"model": model, "device": torch.device("cpu", 0), "packed": True, **state}

    def _load(self, weights: Any) -> None:
        self.loads += 1
        # Copied, as vLLM's layers do: views of a buffer are overwritten by the next bucket.
        self.loaded |= {name: tensor.clone() for name, tensor in weights}


LORA = LoraConfig(rank=4)
KINDS = {
    "zero0": (0, None),
    "zero1": (1, None),
    "zero2": (2, None),
    "zero3": (3, None),
    "lora": (1, LORA),
    "lora-zero3": (3, LORA),
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def learner(request: pytest.FixtureRequest, folder: Path, groups: list[Group]) -> Iterator[Learner]:
    """One that has learned, so that adapters count."""
    zero_stage, lora = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward_backward, "deepspeed_settings", sharing_all(forward_backward.deepspeed_settings))
        model = MODEL.model_copy(update={"lora": lora})
        started = learners.start(folder, learner_config(zero_stage=zero_stage), model)
        started.update(1, groups)
    yield started
    started.close()


def expected(learner: Learner) -> dict[str, Tensor]:
    """What goes through the object store."""
    return {name: tensor for bucket in learner.weight_buckets(10_000) for name, tensor in tensors_of(bucket)}


def assert_equal_bytes(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name


@pytest.mark.usefixtures("shared_buffers")
def test_a_broadcast_arrives_byte_for_byte(learner: Learner) -> None:
    """Both ends cut the weights into the same pieces, the one from tensors, the other from their list."""
    from rollout.weights.nccl import DeadlineNcclWeightTransferEngine, DeadlineUpdateInfo

    group = QueueGroup()
    sizes = {"packed_buffer_size_bytes": BUCKET_BYTES, "packed_num_buffers": NcclGroup.NUM_BUFFERS}
    receiving = Receiving(DeadlineNcclWeightTransferEngine, model_update_group=group.receiver(), **sizes)
    info = DeadlineUpdateInfo(**names_and_shapes(learner.weight_manifest()), timeout_s=30)
    learner.nccl._group, learner.nccl._buffer_bytes = group.sender(), BUCKET_BYTES
    receiver = threading.Thread(target=receiving.engine.receive_weights, args=(info,))
    receiver.start()
    learner.nccl.broadcast(timeout_s=30)
    receiver.join(timeout=30)
    assert not receiver.is_alive()
    assert_equal_bytes(receiving.loaded, expected(learner))
    assert len(group.sizes) == receiving.loads > 3 and max(group.sizes) > BUCKET_BYTES


def send_by_ipc(learner: Learner, receiving: Receiving) -> None:
    """As a generator loads a publish; see `Engine.load`."""
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferUpdateInfo

    learner.ipc.begin(BUCKET_BYTES)
    while (bucket := learner.ipc.next_bucket()) is not None:
        buffer = {"ipc_handles": dict(bucket.handles), "tensor_sizes": list(bucket.num_bytes)}
        receiving.engine.receive_weights(IPCWeightTransferUpdateInfo(**names_and_shapes(bucket) | buffer))
    receiving.engine._packed_importer.close()
    learner.ipc.end(opened=[0])


def test_buckets_of_ipc_arrive_byte_for_byte_and_their_buffer_can_be_freed(
    learner: Learner,
    shared_buffers: SharedBuffers,  # noqa: F811
) -> None:
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine
    from vllm.distributed.weight_transfer.packed_tensor import PackedBufferImporter

    receiving = Receiving(IPCWeightTransferEngine, _packed_importer=PackedBufferImporter())
    for _ in range(2):
        receiving.loaded.clear()
        send_by_ipc(learner, receiving)
        assert_equal_bytes(receiving.loaded, expected(learner))
        assert shared_buffers.counters and not any(shared_buffers.counters)
    assert receiving.loads > 3
