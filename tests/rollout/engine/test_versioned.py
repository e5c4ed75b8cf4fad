"""An engine whose batches run beside the caller: nobody touches its weights before they have ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rollout.engine.versioned import VersionedEngine


class AsynchronousEngine:
    """Stands for vLLM's engine on a GPU: after each step the next batch runs. Records what happens while it does."""

    def __init__(self) -> None:
        self.is_idle = False
        self.touched: list[str] = []
        self.touched_too_early: list[str] = []

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> None:
        if method == "synchronize_device":
            self.is_idle = True
        else:
            self._touch(method)

    def is_sleeping(self) -> bool:
        return True

    def wake_up(self, tags: list[str]) -> None:
        self._touch("wake_up")

    def sleep(self, level: int) -> None:
        self._touch("sleep")

    def abort_request(self, request_ids: list[str]) -> None:
        """Change only what is scheduled next."""

    def reset_prefix_cache(self) -> None:
        """Change only what is scheduled next."""

    def _touch(self, method: str) -> None:
        self.touched.append(method)
        if not self.is_idle:
            self.touched_too_early.append(method)


@pytest.mark.parametrize(
    "action",
    [
        lambda engine: engine.replace_weights([{"bucket": "weights"}], 3),  # object store and NCCL
        lambda engine: (engine.begin_update(), engine.load({}), engine.finish_update(3)),  # IPC
        lambda engine: engine.drop_update(),
        lambda engine: engine.sleep(),
    ],
    ids=["commit", "bucket by bucket", "drop", "sleep"],
)
def test_weights_are_touched_when_no_batch_is_in_flight(action: Callable[[VersionedEngine], Any]) -> None:
    engine = VersionedEngine.__new__(VersionedEngine)
    engine._engine = asynchronous = AsynchronousEngine()  # type: ignore[assignment]
    engine._versions = {}
    action(engine)
    assert asynchronous.touched and not asynchronous.touched_too_early
