"""The parts of a publish: the list of the weights, their buckets, and the group that broadcasts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

TransportName = Literal["ray", "ipc", "nccl"]
"""How the weights of a publish travel: through Ray's object store, within a shared GPU, or between GPUs."""


@dataclass(frozen=True, slots=True)
class WeightManifest:
    """The list of the weights of a version, in the order in which they are sent."""

    names: tuple[str, ...]
    """Names as in the Hugging Face checkpoint. A tied LM head is the embedding, and is listed once."""
    dtypes: tuple[str, ...]
    """The torch dtype of each weight, such as ``bfloat16``."""
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class WeightBucket:
    """Some parameters of the policy, on their way from the learner to the generators through host memory."""

    names: tuple[str, ...]
    """As in a manifest, and so are the dtypes."""
    dtypes: tuple[str, ...]
    arrays: tuple[NDArray[Any], ...]
    """The values. numpy has no bfloat16, so its bits are sent as uint16."""
    checksum: int
    """Checksum of the arrays as they were sent."""

    @classmethod
    def of(cls, names: tuple[str, ...], dtypes: tuple[str, ...], arrays: tuple[NDArray[Any], ...]) -> WeightBucket:
        """Make a bucket, with its checksum."""
        return cls(names, dtypes, arrays, checksum(arrays))

    @property
    def is_intact(self) -> bool:
        """Whether the arrays are equal to those that were sent."""
        return checksum(self.arrays) == self.checksum


def checksum(arrays: Iterable[NDArray[Any]]) -> int:
    """Return a 64-bit sum over the bytes of ``arrays``, at the speed of memory."""
    total = 0
    for array in arrays:
        octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        whole = octets.size // 8 * 8
        words = int(octets[:whole].view(np.uint64).sum()) + int(octets[whole:].sum())
        total = (31 * total + words) % 2**64  # so that the order counts
    return total


@dataclass(frozen=True, slots=True)
class IpcBucket:
    """Some parameters of the policy, packed into a buffer on a GPU that other processes can open."""

    names: tuple[str, ...]
    """As in a manifest, and so are dtypes and shapes."""
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    num_bytes: tuple[int, ...]
    """Size of each weight in the buffer, in order."""
    handles: Mapping[str, tuple[Any, ...]]
    """CUDA IPC handle of the buffer on each GPU, by the GPU's UUID."""


@dataclass(frozen=True, slots=True)
class NcclGroup:
    """The NCCL group in which learner rank 0 (NCCL rank 0) broadcasts weights to the workers of all generators."""

    address: str
    port: int
    world_size: int
    """1 plus the sum of the generators' tensor_parallel_size."""
    buffer_bytes: int
    """Bytes of each of the NUM_BUFFERS buffers on both ends."""

    NUM_BUFFERS: ClassVar[int] = 2
