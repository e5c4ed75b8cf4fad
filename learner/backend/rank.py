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
    # deepspeed reads it once, when it is imported; without it, deepspeed guesses from the installed packages.
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
    # DeepSpeed 0.19 calls collectives that torch 2.13 renamed, and torch warns at every call.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # LOCAL_RANK is always 0: a rank sees only the GPU that Ray put into CUDA_VISIBLE_DEVICES.
    os.environ |= {
        "RANK": str(rank.index),
        "WORLD_SIZE": str(rank.world_size),
        "LOCAL_RANK": "0",
        "MASTER_ADDR": rank.master_addr,
        "MASTER_PORT": str(rank.master_port),
    }
    logger.setLevel("WARNING")
    # DeepSpeed would compile its shared-memory collectives at start, which takes 90 s and needs a C++ compiler; they
    # also spin while they wait. gloo does neither.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # The driver's deadlines must end before this one, so that the driver reports which rank is late.
    deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=timedelta(days=1))


def release_memory() -> None:
    """Collect garbage, and return cached GPU memory to the device.

    Models are in reference cycles, and vLLM's allocator cannot use blocks in PyTorch's cache.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def limit_memory(fraction: float | None) -> None:
    """Limit this process's tensors to a share of the GPU's memory. None: no limit.

    The limit covers the memory of PyTorch's caching allocator, but not the CUDA context and NCCL's buffers.
    """
    if fraction is not None and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(fraction)
