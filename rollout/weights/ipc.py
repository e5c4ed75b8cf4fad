"""vLLM's weight transfer within a GPU. It releases the learner's buffer exactly once, also after a failure.

PyTorch counts who may hold an exported buffer: 1 when it is exported, one less when its one consumer lets go of it.
The learner's memory is free again only at exactly 0.
"""

from __future__ import annotations

import torch
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine, IPCWeightTransferUpdateInfo

REF_COUNTER = slice(11, 13)
"""Where file and offset of the counter are among the arguments of PyTorch's ``rebuild_cuda_tensor``."""


class SettlingIpcWeightTransferEngine(IPCWeightTransferEngine):
    """Lets go of a buffer that it was sent, also where it could not open it and where the update is given up."""

    def receive_weights(self, update_info: IPCWeightTransferUpdateInfo) -> None:
        try:
            super().receive_weights(update_info)
        except BaseException:
            if self._packed_importer._entry is None and isinstance(update_info.ipc_handles, dict):
                uuid = str(torch.cuda.get_device_properties(self.device.index).uuid)
                if (arguments := update_info.ipc_handles.get(uuid)) is not None:
                    torch.UntypedStorage._release_ipc_counter_cuda(*arguments[REF_COUNTER])
            raise

    def drop_update(self) -> None:
        """Let go of the buffer of an update that will not be completed."""
        self._packed_importer.close()
