"""Stand-ins for what vLLM's packers ask of CUDA: streams, a buffer that others can open, its counter, a broadcast."""

from __future__ import annotations

import weakref
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing import reductions

UUID = "GPU-stand-in"


class QueueGroup:
    """Both ends of a broadcast between two threads: what one sends the other receives, byte for byte."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Tensor] = SimpleQueue()
        self.sizes: list[int] = []
        """Bytes of each broadcast."""

    def sender(self) -> SimpleNamespace:
        def broadcast(tensor: Tensor, src: int) -> None:
            self.sizes.append(tensor.numel())
            self._queue.put(tensor.clone())

        return SimpleNamespace(broadcast=broadcast, destroy=lambda: None)

    def receiver(self) -> SimpleNamespace:
        def broadcast(tensor: Tensor, src: int) -> None:
            sent = self._queue.get(timeout=30)
            assert tensor.numel() == sent.numel(), "the two ends pack differently"
            tensor.copy_(sent)

        return SimpleNamespace(broadcast=broadcast, destroy=lambda: None)


class SharedBuffers:
    """CUDA IPC in shared memory, with torch's counter: 1 for an export, less 1 when whoever opened it lets go.

    PyTorch frees a buffer when its counter is exactly 0.
    """

    def __init__(self) -> None:
        self.counters: list[int] = []
        self._buffers: list[Tensor] = []

    def export(self, tensor: Tensor) -> tuple[None, tuple[Any, ...]]:
        """Stand for ``reduce_tensor``; the seventh of the arguments is the device, as there."""
        self.counters.append(1)
        self._buffers.append(tensor.share_memory_())
        return None, (len(self.counters) - 1, None, None, None, None, None, 0)

    def open(self, index: int, *_: Any) -> Tensor:
        """Stand for ``rebuild_cuda_tensor``."""
        opened = self._buffers[index][:]
        weakref.finalize(opened, self._let_go, index)
        return opened

    def _let_go(self, index: int) -> None:
        self.counters[index] -= 1


@pytest.fixture
def shared_buffers(monkeypatch: pytest.MonkeyPatch) -> SharedBuffers:
    """Have CUDA's functions do nothing, its memory be the host's, and its IPC go through ``SharedBuffers``."""
    from vllm.distributed.weight_transfer import packed_tensor

    buffers, empty = SharedBuffers(), torch.empty

    def empty_anywhere(*size: Any, device: Any = None, **settings: Any) -> Tensor:
        return empty(*size, device="cpu" if str(device).startswith("cuda") else device, **settings)

    idle = SimpleNamespace(synchronize=lambda: None)
    for name in ("synchronize", "ipc_collect", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: idle)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(uuid=UUID))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch, "empty", empty_anywhere)
    monkeypatch.setattr(packed_tensor, "_get_streams", lambda device, count: (idle,) * count)
    monkeypatch.setattr(packed_tensor, "reduce_tensor", buffers.export)
    monkeypatch.setattr(reductions, "rebuild_cuda_tensor", buffers.open)
    return buffers
