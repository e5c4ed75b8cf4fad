"""The generator's end of publishing, within vLLM: weight-transfer backends, and ways out of an update that failed.

vLLM has backends that move weights within a GPU (`ipc`) and between GPUs (`nccl`). The one here, `ray`, takes arrays
that Ray's object store has already brought to the process: the CPU's transport, and the fallback anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vllm.config import set_current_vllm_config
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from rollout.types.publishing import TransportName, WeightBucket

ENGINES: dict[TransportName, str] = {"ray": "ray", "ipc": "ipc", "nccl": "nccl_with_deadline"}
"""vLLM's name of the weight-transfer engine of each transport."""


@dataclass
class ArrayInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand."""


@dataclass
class ArrayUpdateInfo(WeightTransferUpdateInfo):
    """Some of the weights."""

    bucket: WeightBucket


class ArrayWeightTransferEngine(WeightTransferEngine[ArrayInitInfo, ArrayUpdateInfo]):
    """Loads buckets of arrays through vLLM's layerwise reload."""

    init_info_cls = ArrayInitInfo
    update_info_cls = ArrayUpdateInfo

    def init_transfer_engine(self, init_info: ArrayInitInfo) -> None:
        """Nothing to set up: there is no connection."""

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: ArrayUpdateInfo) -> None:
        bucket = update_info.bucket
        weights = zip(bucket.names, bucket.dtypes, bucket.arrays, strict=True)
        model: Any = self.model
        model.load_weights((name, as_tensor(array, dtype).to(self.device)) for name, dtype, array in weights)

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        rebuild_tied_lm_head(self.model)

    def shutdown(self) -> None:
        """Nothing to release."""


class WorkerExtension:
    """What vLLM's workers can do besides, through `collective_rpc`; vLLM mixes it into its Worker class."""

    vllm_config: Any
    weight_transfer_engine: Any
    _weight_update_active: bool

    def drop_weight_update(self) -> None:
        """End an update that will not be completed. The weights are then a mixture, but the next update starts clean:
        without this it would go on counting where layers that were half loaded had stopped."""
        engine = self.weight_transfer_engine
        with set_current_vllm_config(self.vllm_config):
            finalize_layerwise_reload(engine.model, engine.model_config)
        engine.reset_weight_update_target()
        self._weight_update_active = False


def as_tensor(array: np.ndarray, dtype: str) -> torch.Tensor:
    """The tensor of `array`; numpy has no bfloat16, so that arrives as its bits in uint16."""
    # Copied: arrays out of the object store are read-only views that the store may reclaim.
    tensor: torch.Tensor = torch.from_numpy(array.copy())
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def rebuild_tied_lm_head(model: Any) -> None:
    """Repack the LM head of a model with tied embeddings.

    On the CPU linear layers multiply by a repacked copy of their weight. The layerwise reload repacks a layer when
    its own weight arrives, and a tied head's never does, so its copy would stay at the old version.
    """
    head = getattr(model, "lm_head", None)
    embedding = getattr(getattr(model, "model", None), "embed_tokens", None)
    if head is not None and embedding is not None and getattr(head, "weight", None) is embedding.weight:
        head.quant_method.process_weights_after_loading(head)


def register() -> None:
    """Make the backends known to vLLM. Safe to call twice."""
    if ENGINES["ray"] not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(ENGINES["ray"], ArrayWeightTransferEngine)
        WeightTransferEngineFactory.register_engine(
            ENGINES["nccl"], "rollout.weights.nccl", "DeadlineNcclWeightTransferEngine"
        )


# On import, because the workers of a tensor-parallel engine are processes of their own, which import this module for the
# extension and for nothing else.
register()
