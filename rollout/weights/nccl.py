"""vLLM's NCCL weight transfer with a deadline: a broadcast whose sender or other receivers died would wait forever."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch
from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine, NCCLWeightTransferUpdateInfo


@dataclass
class DeadlineUpdateInfo(NCCLWeightTransferUpdateInfo):
    """What will be sent, and how long it may take."""

    timeout_s: float = field(kw_only=True)


class DeadlineNcclWeightTransferEngine(NCCLWeightTransferEngine):
    """Leaves the group when the weights have not come by the deadline; the group must then be formed again."""

    update_info_cls = DeadlineUpdateInfo  # type: ignore[assignment]

    def init_transfer_engine(self, init_info: NCCLWeightTransferInitInfo) -> None:
        # Joining leaves the thread on a new stream. vLLM waits for the one that was current when the engine was built.
        with torch.cuda.stream(torch.cuda.current_stream()):
            super().init_transfer_engine(init_info)

    def receive_weights(self, update_info: NCCLWeightTransferUpdateInfo) -> None:
        assert isinstance(update_info, DeadlineUpdateInfo)
        is_late = threading.Event()

        def leave() -> None:
            is_late.set()
            # Aborting the communicator is what ends kernels that wait for a peer; what they leave behind is no weight.
            self.shutdown()

        timer = threading.Timer(update_info.timeout_s, leave)
        timer.daemon = True
        timer.start()
        try:
            super().receive_weights(update_info)
        finally:
            timer.cancel()
        if is_late.is_set():
            raise TimeoutError(f"the weights did not come within {update_info.timeout_s:g} s")
