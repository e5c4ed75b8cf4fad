"""A generator lets go of the learner's buffer exactly once, whether an update ends well, fails or is given up."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

HANDLE = (None, (8,), (1,), 0, None, torch.uint8, 0, b"handle", 8, 0, False, "file", 5, b"event", True)


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who let go: the mapping itself when its last reference ends, or the generator by PyTorch's counter."""
    said: list[str] = []

    def rebuild(*args: Any) -> torch.Tensor:
        mapping = torch.zeros(8, dtype=torch.uint8)
        weakref.finalize(mapping, said.append, "mapping")
        return mapping

    monkeypatch.setattr("torch.multiprocessing.reductions.rebuild_cuda_tensor", rebuild)
    monkeypatch.setattr(
        torch.UntypedStorage, "_release_ipc_counter_cuda", lambda file, offset: said.append(f"{file} {offset}")
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="GPU-0"))
    return said


def engine_of(load: Any) -> Any:
    from vllm.distributed.weight_transfer.packed_tensor import PackedBufferImporter

    from rollout.weights.ipc import SettlingIpcWeightTransferEngine

    engine = SettlingIpcWeightTransferEngine.__new__(SettlingIpcWeightTransferEngine)
    engine.packed, engine.device = True, SimpleNamespace(index=0)
    engine._packed_importer = PackedBufferImporter()
    engine.model = SimpleNamespace(load_weights=load)
    return engine


def info(sizes: list[int] | None) -> Any:
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferUpdateInfo

    return IPCWeightTransferUpdateInfo(["a"], ["uint8"], [[8]], ipc_handles={"GPU-0": HANDLE}, tensor_sizes=sizes)


def refuse(weights: Any) -> None:
    raise MemoryError("no room")


def test_several_buckets_of_one_update_hold_the_buffer_once_until_it_is_dropped(let_go: list[str]) -> None:
    engine = engine_of(lambda weights: None)
    engine.receive_weights(info([8]))
    engine.receive_weights(info([8]))
    assert let_go == []
    engine.drop_update()
    engine.drop_update()
    assert let_go == ["mapping"]


def test_a_bucket_that_cannot_be_loaded_is_let_go_of_when_the_update_is_dropped(let_go: list[str]) -> None:
    engine = engine_of(refuse)
    with pytest.raises(MemoryError):
        engine.receive_weights(info([8]))
    assert "file 5" not in let_go
    engine.drop_update()
    assert let_go == ["mapping"]


def test_a_buffer_that_was_not_opened_is_let_go_of_all_the_same(let_go: list[str]) -> None:
    engine = engine_of(lambda weights: None)
    with pytest.raises(ValueError, match="tensor_sizes"):
        engine.receive_weights(info(None))
    engine.drop_update()
    assert let_go == ["file 5"]


def test_giving_up_an_update_gives_up_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    from rollout.weights import object_store

    done: list[str] = []
    monkeypatch.setattr(object_store, "finalize_layerwise_reload", lambda *_: done.append("weights"))
    monkeypatch.setattr(object_store, "set_current_vllm_config", nullcontext)
    worker = object_store.WorkerExtension()
    worker.vllm_config = None
    worker.weight_transfer_engine = SimpleNamespace(
        model=None,
        model_config=None,
        drop_update=lambda: done.append("buffer"),
        reset_weight_update_target=lambda: done.append("target"),
    )
    worker.drop_weight_update()
    assert done == ["weights", "buffer", "target"]
