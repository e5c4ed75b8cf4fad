"""A run with simulated engines and learner, and what it costs the driver."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

from rich.console import Console

from benchmarks.driver.simulated import NumberedPrompts, SimulatedFleet
from orchestrator.config.recipe import load
from orchestrator.config.schema import RunConfig
from orchestrator.interrupt import Interrupt
from orchestrator.records.checkpoints import Checkpoints
from orchestrator.records.health.monitor import Health
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import RemoteAdvantages
from orchestrator.records.trackers.files import FileTracker
from orchestrator.train import train
from rewards.workers.pool import RewardPool
from rollout.prompts.stream import PromptStream
from rollout.types.completions import Group

PHASES = ("sample", "update", "publish", "metrics", "write")


class Meter:
    """A tracker that also keeps what the steps between the first and the last cost the driver, by phase."""

    def __init__(self, config: RunConfig, inner: FileTracker) -> None:
        self._last_step, self._inner = config.num_steps, inner
        self._mark = (0.0, 0.0, 0.0)
        self._is_open = False
        self.process_s = dict.fromkeys(PHASES, 0.0)
        """CPU seconds of all threads by phase."""
        self.main_s = self.wall_s = 0.0
        """CPU seconds of the main thread; seconds on the clock."""
        self.num_groups = 0

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        self.lap("metrics")
        self._inner.log(step, metrics, groups, held_out)
        self.lap("write")
        if self._is_open:
            self.num_groups += len(groups)
        self._is_open = 1 <= step < self._last_step - 1  # the last step also evaluates

    def lap(self, phase: str) -> None:
        """Count what was used since the last lap for `phase`."""
        before, self._mark = self._mark, (time.process_time(), time.thread_time(), time.monotonic())
        if self._is_open:
            process_s, main_s, wall_s = (now - then for now, then in zip(self._mark, before, strict=True))
            self.process_s[phase] += process_s
            self.main_s += main_s
            self.wall_s += wall_s

    def flush(self) -> None:
        self._inner.flush()

    def close(self) -> None:
        self._inner.close()


def config_of(num_generators: int, folder: str, *overrides: str) -> RunConfig:
    """Return countdown-tiny with so many generators."""
    fixed = (f"runs_dir={folder}", "group_size=8", f"rollout.num_generators={num_generators}")
    quiet = ("evaluation.every_steps=0", "checkpoint.every_steps=1000000", "learner.algorithm.resample_rounds=0")
    return load("countdown-tiny", [*fixed, *quiet, f"name=scale-{time.monotonic_ns()}", *overrides])


@contextmanager
def simulation(
    config: RunConfig,
    *,
    real_rewards: bool = False,
    engine_s: float = 0.0,
    update_s: float = 0.0,
    num_turns: int = 1,
) -> Iterator[tuple[SimulatedFleet, Meter]]:
    """Yield a fleet and the tracker to train it with. Ray must run; the fleet's actors end with the context."""
    pool = RewardPool(config.rewards, f"{config.name}/reward", ["countdown"]) if real_rewards else None
    meter = Meter(config, FileTracker(RunDirectory(config).open(), config))
    fleet = SimulatedFleet(config, meter.lap, pool, engine_s, update_s, num_turns)
    try:
        yield fleet, meter
    finally:
        fleet.close()
        if pool is not None:
            pool.close()


def run(config: RunConfig, fleet: SimulatedFleet, meter: Meter, environment: str = "") -> None:
    """Run the real loop to its last step."""
    checkpoints = Checkpoints(config.directory / "checkpoints", keep=1)
    prompts, interrupt = cast(PromptStream, NumberedPrompts(environment)), Interrupt(Console(quiet=True))
    train(config, prompts, fleet, checkpoints, meter, Health(config), interrupt)
