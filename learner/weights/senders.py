"""The learner's side of a publish between GPUs: buckets in a buffer that others can open (ipc), or a broadcast (nccl).

Both send the weights of ``manifest`` in its order. vLLM's functions pack them, so that its engines can unpack them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from learner.backend.forward_backward import Backend
from learner.weights.gather import device_weights, manifest
from rollout.types.allocator import expandable_segments, refusal
from rollout.types.publishing import IpcBucket, NcclGroup


class IpcSender:
    """A sender to the generator on this rank's GPU: it packs the weights into one buffer there, a bucket at a time.

    Every rank sends on its own GPU. All buckets use the same buffer: request a bucket only after all generators have
    copied the previous one. The memory is freed when its only consumer, the generator on this GPU, has released it. If
    there is no generator or it is dead, the rank itself releases it.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._buckets: Iterator[Any] | None = None
        self._exported: tuple[Any, ...] | None = None
        """The handle with which the consumer opens the buffer."""
        self._held: tuple[Any, ...] | None = None
        """The handle of an earlier publish, whose consumer may not have released it yet."""

    def begin(self, bucket_bytes: int, lost: Collection[int] = ()) -> None:
        """Prepare a buffer of ``bucket_bytes``, or of the largest weight if that is more. Bucket one allocates it.

        Args:
            lost: ranks whose generator held the buffer of the previous publish, and is dead.

        Raises ValueError if PyTorch is set to allocate memory that other processes cannot open.
        """
        from vllm.distributed.weight_transfer.packed_tensor import packed_ipc_producer

        check_allocator(os.environ)
        if self._held is not None and self._backend.rank.index in lost:
            release(self._held)
        self._held = None
        torch.cuda.synchronize()  # the optimizer's last writes are on another stream
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        self._buckets = packed_ipc_producer(
            device_weights(self._backend),
            str(device.uuid),
            post_iter_func=lambda named: named[1],
            buffer_size_bytes=max(bucket_bytes, largest_bytes(self._backend)),
        )

    def next_bucket(self) -> IpcBucket | None:
        """Return the next bucket, or None after the last. Collective. Raises RuntimeError before ``begin``."""
        if self._buckets is None:
            raise RuntimeError("no transfer was started: call begin() first")
        chunk = next(self._buckets, None)
        if chunk is None:
            return None
        (self._exported,) = chunk.ipc_handle.values()
        return IpcBucket(
            names=tuple(chunk.names),
            dtypes=tuple(chunk.dtype_names),
            shapes=tuple(tuple(shape) for shape in chunk.shapes),
            num_bytes=tuple(chunk.tensor_sizes),
            handles=chunk.ipc_handle,
        )

    def end(self, opened: Collection[int] = ()) -> None:
        """Free the buffer when its consumer has released it. This also ends an incomplete publish.

        Args:
            opened: ranks whose generator got the buffer and is alive.
        """
        self._held, self._exported = self._exported, None
        if self._held is not None and self._backend.rank.index not in opened:
            release(self._held)
            self._held = None
        self._buckets = None
        torch.cuda.ipc_collect()
        torch.cuda.empty_cache()


class NcclSender:
    """A sender to generators on other GPUs: rank 0 broadcasts to all their workers; the other ranks help to gather."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._group: Any = None
        self._buffer_bytes = 0

    def join(self, group: NcclGroup) -> None:
        """Leave the previous group if there is one, and join ``group`` as its rank 0. Wait for all other members."""
        if not self._backend.rank.is_first:
            return
        from vllm.distributed.weight_transfer.nccl_common import trainer_init

        self.leave()
        init_info = {"master_address": group.address, "master_port": group.port, "world_size": group.world_size}
        # Joining changes the thread's current stream: restore it, or the update would not wait for earlier work.
        with torch.cuda.stream(torch.cuda.current_stream()):
            self._group = trainer_init(init_info)
        self._buffer_bytes = group.buffer_bytes

    def broadcast(self, timeout_s: float) -> None:
        """Send all weights. Collective.

        Raises:
            TimeoutError: the receivers did not take them within ``timeout_s``; create and join a new group.
            RuntimeError: no group was joined.
        """
        torch.cuda.synchronize()  # the optimizer's last writes are on another stream
        if not self._backend.rank.is_first:
            for _ in device_weights(self._backend):
                pass
            return
        if self._group is None:
            raise RuntimeError("no transfer group: call join() first")
        is_late = threading.Event()

        def leave() -> None:
            is_late.set()
            # Only aborting the communicator ends kernels that wait for a receiver.
            self.leave()

        timer = threading.Timer(timeout_s, leave)
        timer.daemon = True
        timer.start()
        try:
            self._send()
        finally:
            timer.cancel()
        if is_late.is_set():
            raise TimeoutError(f"the generators did not take the weights within {timeout_s:g} s")

    def leave(self) -> None:
        """Leave the group, also in the middle of a broadcast."""
        group, self._group = self._group, None
        if group is not None:
            group.destroy()

    def _send(self) -> None:
        from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer

        packed_nccl_broadcast_producer(
            device_weights(self._backend),
            group=self._group,
            src=0,
            post_iter_func=lambda named: named[1],
            buffer_size_bytes=self._buffer_bytes,
            num_buffers=NcclGroup.NUM_BUFFERS,
        )


def release(exported: tuple[Any, ...]) -> None:
    """Decrease a buffer's reference count in place of its consumer: PyTorch frees the buffer at exactly 0."""
    counter_file, counter_offset = exported[11:13]
    torch.UntypedStorage._release_ipc_counter_cuda(counter_file, counter_offset)


def largest_bytes(backend: Backend) -> int:
    """Return the size of the largest weight, in bytes."""
    announced = manifest(backend)
    return max(
        torch.Size(shape).numel() * getattr(torch, dtype).itemsize
        for dtype, shape in zip(announced.dtypes, announced.shapes, strict=True)
    )


def check_allocator(environment: Mapping[str, str]) -> None:
    """Raise ValueError if PyTorch is set to allocate memory that other processes cannot open. Runs check it early."""
    if (key := expandable_segments(environment)) is not None:
        raise ValueError(refusal(key, environment[key]))
