"""The stream that an engine computes on is the one that vLLM waits for, also after NCCL was joined.

vLLM caches the current stream when it builds an engine, and waits for that one before it reads what was sampled. Its
own function `current_stream`, which NCCL's communicator calls, sets a new one in a thread that has none.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from rollout.engine.step_loop import StepLoop
from tests.support.streams import Stream, Streams


@pytest.fixture(autouse=True)
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    from vllm.distributed.weight_transfer import nccl_engine
    from vllm.utils.torch_utils import current_stream

    # As the communicator's warm-up does; the rest of it needs GPUs.
    monkeypatch.setattr(nccl_engine, "worker_init_process_group", lambda *_: current_stream())
    return Streams(monkeypatch)


class Engine:
    """What vLLM's engine does with streams. `captures`: whether it captures CUDA graphs while it is built."""

    def __init__(self, weight_transfer: Any, captures: bool) -> None:
        from vllm.utils.torch_utils import current_stream

        self._weight_transfer = weight_transfer.__new__(weight_transfer)
        self._weight_transfer.parallel_config = None
        if captures:
            current_stream()
        self.main_stream: Stream = torch.cuda.current_stream()
        self.computed_on: list[Stream] = []
        self._steps_left = 0

    def add_request(self, request_id: str, prompt: Any, params: int) -> None:
        self._steps_left = params

    def abort_request(self, request_ids: list[str]) -> None:
        self._steps_left = 0

    def has_unfinished_requests(self) -> bool:
        return self._steps_left > 0

    def step(self) -> list[Any]:
        self.computed_on.append(torch.cuda.current_stream())
        self._steps_left -= 1
        return []

    def join(self) -> None:
        from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo

        info = NCCLWeightTransferInitInfo(
            master_address="here", master_port=1, rank_offset=1, world_size=2, packed=True
        )
        self._weight_transfer.init_transfer_engine(info)

    def is_read_in_time(self) -> bool:
        return {*self.computed_on} == {self.main_stream}


def engine_of(captures: bool, *, keeps_stream: bool = True) -> Engine:
    from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

    from rollout.weights.nccl import DeadlineNcclWeightTransferEngine

    return Engine(DeadlineNcclWeightTransferEngine if keeps_stream else NCCLWeightTransferEngine, captures)


def work(loop: StepLoop[Any]) -> Engine:
    """Decode before and after NCCL is joined, as before and after the first publish."""
    for _ in range(2):
        loop.call(lambda engine: engine.add_request("a", None, 2))
        loop.call(lambda engine: [engine.step() for _ in range(2)])
        loop.call(lambda engine: engine.join())
    loop.call(lambda engine: [engine.step() for _ in range(2)])
    loop.close()
    return loop.engine


@pytest.mark.parametrize("captures", [False, True], ids=["eager", "graphs"])
def test_an_engine_computes_on_the_stream_that_is_waited_for(captures: bool) -> None:
    assert work(StepLoop(lambda: engine_of(captures))).is_read_in_time()


def test_an_engine_built_in_another_thread_is_read_too_early() -> None:
    """So that the test above means something."""
    built: list[Engine] = []
    builder = threading.Thread(target=lambda: built.append(engine_of(captures=True)))
    builder.start()
    builder.join()
    assert not work(StepLoop(lambda: built[0])).is_read_in_time()


def test_joining_as_vllm_does_leaves_the_thread_on_another_stream() -> None:
    """So that the first test means something for the second half of the fault, too."""
    assert not work(StepLoop(lambda: engine_of(captures=False, keeps_stream=False))).is_read_in_time()
