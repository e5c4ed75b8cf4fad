"""Receive a publish within vLLM: a weight-transfer engine for each transport, and the way out of a failed update.

vLLM has engines that move weights within a GPU (`ipc`) and between GPUs (`nccl`). The one here, `ray`, takes arrays
that Ray's object store has already brought to the process: the CPU's transport, and the fallback anywhere.
"""

from __future__ import annotations

import warnings
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

# PyTorch warns of arrays that it must not write to; those of the object store are only read.
warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)

ENGINES: dict[TransportName, str] = {"ray": "ray", "ipc": "settling_ipc", "nccl": "nccl_with_deadline"}
"""vLLM's name of the weight-transfer engine of each transport."""


@dataclass
class ArrayInitInfo(WeightTransferInitInfo):
    """Empty: there is nothing to agree on beforehand."""


@dataclass
class ArrayUpdateInfo(WeightTransferUpdateInfo):
    """Some of the weights."""

    bucket: WeightBucket


class ArrayWeightTransferEngine(WeightTransferEngine[ArrayInitInfo, ArrayUpdateInfo]):
    """Loads buckets of arrays through vLLM's layerwise reload."""

    init_info_cls = ArrayInitInfo
    update_info_cls = ArrayUpdateInfo

    def init_transfer_engine(self, init_info: ArrayInitInfo) -> None:
        """Do nothing: there is no connection to set up."""

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
        """Do nothing: there is nothing to release."""


class WorkerExtension:
    """Methods that vLLM mixes into its Worker class, to be called through `collective_rpc`."""

    vllm_config: Any
    weight_transfer_engine: Any
    _weight_update_active: bool

    def drop_weight_update(self) -> None:
        """End an update that will not be completed, so that the next one starts clean. The weights are a mixture then.

        Without this, the next update would go on counting where layers that were half loaded had stopped.
        """
        engine = self.weight_transfer_engine
        with set_current_vllm_config(self.vllm_config):
            finalize_layerwise_reload(engine.model, engine.model_config)
        if hasattr(engine, "drop_update"):
            engine.drop_update()
        engine.reset_weight_update_target()
        self._weight_update_active = False


def as_tensor(array: np.ndarray, dtype: str) -> torch.Tensor:
    """Return the tensor of `array`, to be read only. numpy has no bfloat16, so that arrives as its bits in uint16.

    It is a view of the object store, which keeps what is viewed; loaders copy it into the model.
    """
    tensor: torch.Tensor = torch.from_numpy(array)
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
    """Make the engines known to vLLM. It may be called twice."""
    if ENGINES["ray"] not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(ENGINES["ray"], ArrayWeightTransferEngine)
        WeightTransferEngineFactory.register_engine(
            ENGINES["ipc"], "rollout.weights.ipc", "SettlingIpcWeightTransferEngine"
        )
        WeightTransferEngineFactory.register_engine(
            ENGINES["nccl"], "rollout.weights.nccl", "DeadlineNcclWeightTransferEngine"
        )


# On import, because the workers of a tensor-parallel engine are processes of their own, which import this module for
# the extension and for nothing else.
register()
