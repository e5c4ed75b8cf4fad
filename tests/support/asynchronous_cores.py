"""vLLM's asynchronous scheduling on the CPU, whose platform switches it off. A run gets it as a plugin of vLLM's.

Real is all but the device: a GPU's events and streams become stand-ins that have nothing to wait for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

RECORD = "RAYZERO_TEST_ENGINES"
"""Environment variable: a file that gets a line of JSON from each engine, once its step has left a batch in flight."""
ENTRY_POINTS = f"[vllm.general_plugins]\nasynchronous_cores = {__name__}:plugin\n"
ROOT = Path(__file__).resolve().parents[2]


class Idle:
    """A stream or an event of a device that has nothing to wait for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        import torch

        self.device = torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def switch_on(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Have the engines of this process schedule a batch ahead of the one that is computed."""
    import torch
    from vllm.platforms.cpu import CpuPlatform

    as_it_is = CpuPlatform.check_and_update_config.__func__

    def check_and_update_config(cls: Any, config: Any) -> None:
        as_it_is(cls, config)
        config.scheduler_config.async_scheduling = True

    replace(CpuPlatform, "check_and_update_config", classmethod(check_and_update_config))
    replace(torch.cuda, "Event", Idle)
    replace(torch.cuda, "current_stream", Idle)
    replace(torch.cuda, "stream", nullcontext)


def plugin() -> None:
    """Switch it on in every process of a run that starts an engine, and record what those engines do."""
    from vllm.v1.engine.core import EngineCore

    switch_on()
    step, told = EngineCore.step_with_batch_queue, set()

    def step_and_tell(self: Any) -> Any:
        done = step(self)
        if self.batch_queue and id(self) not in told:
            told.add(id(self))
            line = {
                "pid": os.getpid(),
                "is_asynchronous": self.async_scheduling,
                "batch_queue_size": self.batch_queue_size,
            }
            with Path(os.environ[RECORD]).open("a") as lines:
                lines.write(json.dumps(line) + "\n")
        return done

    EngineCore.step_with_batch_queue = step_and_tell  # type: ignore[method-assign]


def installed(folder: Path) -> dict[str, str]:
    """Install the plugin into an empty folder, and return the environment of runs whose engines load it."""
    package = folder / "asynchronous_cores-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: asynchronous-cores\nVersion: 1\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", RECORD: str(folder / "engines.jsonl")}


def engines(environment: dict[str, str]) -> list[dict[str, Any]]:
    """Return what the engines of such runs recorded."""
    return [json.loads(line) for line in Path(environment[RECORD]).read_text().splitlines()]
