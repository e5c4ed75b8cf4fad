"""Print, as JSON, what vLLM decides for our engine arguments on CUDA. Run as a program on a machine without CUDA.

The platform is vLLM's own; the card's properties and the compiled modules are stand-ins.
"""

from __future__ import annotations

import json
import sys
import types
from dataclasses import asdict
from typing import Any

CAPABILITY = (8, 9)
"""Of an RTX 4090."""
COMPILED = (
    "_C_stable_libtorch",
    "_moe_C_stable_libtorch",
    "vllm_flash_attn._vllm_fa2_C",
    "vllm_flash_attn._vllm_fa3_C",
)
"""Modules that only the CUDA wheel has."""


def as_cuda() -> None:
    """Make vLLM believe that it runs on a card.

    After the engine was imported: on CUDA its modules ask compiled operations, which are not there, what they can do.
    """
    import torch

    import rollout.engine.versioned  # noqa: F401

    for name in COMPILED:
        sys.modules[f"vllm.{name}"] = types.ModuleType(f"vllm.{name}")
    import vllm.platforms as platforms
    from vllm.platforms.interface import DeviceCapability

    cuda: Any = __import__("vllm.platforms.cuda", fromlist=["NonNvmlCudaPlatform"])
    platform = cuda.NonNvmlCudaPlatform
    platform.get_device_capability = classmethod(lambda cls, device_id=0: DeviceCapability(*CAPABILITY))
    platform.get_device_name = classmethod(lambda cls, device_id=0: "NVIDIA GeForce RTX 4090")
    platform.get_device_total_memory = classmethod(lambda cls, device_id=0: 24 * 2**30)
    platform.device_count = classmethod(lambda cls: 1)
    platforms._current_platform = platform()
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm.") and "current_platform" in vars(module):
            module.current_platform = platforms._current_platform  # type: ignore[attr-defined]
    torch.cuda.is_available = lambda: True
    # Triton is installed, finds no driver of a card, and would be taken for missing.
    config: Any = __import__("vllm.config.vllm", fromlist=["HAS_TRITON"])
    config.HAS_TRITON = True


def decided(folder: str) -> dict[str, Any]:
    """Return the parts of vLLM's configuration that the engine's correctness hangs on."""
    from rollout.config import RolloutConfig
    from rollout.engine.versioned import engine_args
    from rollout.types.sampling import EngineSpec

    found = {}
    for transport in ("ray", "ipc", "nccl"):
        spec = EngineSpec(folder, "bfloat16", 256, load_weights=False, transport=transport)  # type: ignore[arg-type]
        config = engine_args(spec, RolloutConfig(compile=True)).create_engine_config()
        found[transport] = {
            "platform": type(__import__("vllm.platforms").platforms.current_platform).__name__,
            "uses_v2_model_runner": config.use_v2_model_runner,
            "is_asynchronous": config.scheduler_config.async_scheduling,
            "batches_in_flight": config.max_concurrent_batches,
            "worker": config.parallel_config.worker_cls,
            "executor": config.parallel_config.distributed_executor_backend,
            "has_chunked_prefill": config.scheduler_config.enable_chunked_prefill,
            "has_sleep_mode": config.model_config.enable_sleep_mode,
            "weight_transfer": asdict(config.weight_transfer_config)["backend"],
            "logprobs": config.model_config.logprobs_mode,
            "graphs": str(config.compilation_config.cudagraph_mode),
        }
    return found


if __name__ == "__main__":
    as_cuda()
    print(json.dumps(decided(sys.argv[1])))
