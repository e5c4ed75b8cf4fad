"""A rank: one process of the learner, its place among the others, and its share of a GPU."""

from __future__ import annotations

import gc
import os
import warnings
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

if not torch.cuda.is_available():
    # Read once, when deepspeed is imported, which otherwise guesses from the packages it finds.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
from deepspeed.utils import logger

from learner.backend.interface import interface_towards


@dataclass(frozen=True, slots=True)
class Rank:
    """A process's place among the learner's ranks."""

    index: int = 0
    world_size: int = 1
    master_addr: str = "127.0.0.1"
    master_port: int = 29500

    @property
    def is_first(self) -> bool:
        return self.index == 0


def join_ranks(rank: Rank) -> None:
    """Join the process group of all ranks: nccl with GPUs, gloo without. Do nothing the second time."""
    if dist.is_initialized():
        return
    if (interface := interface_towards(rank.master_addr)) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    # DeepSpeed 0.19 calls collectives that torch 2.13 renamed, and torch says so at every call.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # LOCAL_RANK is 0 always: a rank sees one GPU, the one that Ray gave it in CUDA_VISIBLE_DEVICES.
    os.environ |= {
        "RANK": str(rank.index),
        "WORLD_SIZE": str(rank.world_size),
        "LOCAL_RANK": "0",
        "MASTER_ADDR": rank.master_addr,
        "MASTER_PORT": str(rank.master_port),
    }
    logger.setLevel("WARNING")
    # DeepSpeed would compile its shared-memory collectives at start (90 s, and a C++ compiler), and they spin while
    # they wait; gloo does neither.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # The driver has a deadline for every call, and must learn from it which rank is late, not from a rank that gave up
    # first.
    deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=timedelta(days=1))


def release_memory() -> None:
    """Free what nothing refers to, and hand cached GPU memory back to the device.

    Models are in reference cycles, and vLLM's allocator cannot see blocks that PyTorch only caches.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def limit_memory(fraction: float | None) -> None:
    """Limit this process's tensors to a share of the GPU, and leave the rest to others. None: no limit.

    PyTorch's caching allocator counts; the CUDA context and NCCL's buffers, which it does not see, do not.
    """
    if fraction is not None and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(fraction)
