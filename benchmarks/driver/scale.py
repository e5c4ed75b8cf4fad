"""What a run's driver can handle, against its number of generators: the real loop, with simulated engines and learner.

`python -m benchmarks.driver.scale` prints four tables: groups/s and CPU of the driver in the loop; a pass of the
stream while every generator is busy and nothing is ready; a publish; what the recorder writes. docs/scale.md reads
them, and docs/experiments.md says what is simulated.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import logging
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from statistics import median

from benchmarks.driver.simulated import NumberedPrompts, graded
from benchmarks.driver.simulated_engines import group_of
from benchmarks.driver.simulated_run import PHASES, config_of, run, simulation
from orchestrator.cluster.calls import ready_of
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.heartbeats import EVERY_S
from orchestrator.fleet.rollouts import RolloutStream
from orchestrator.records.run_directory import RunDirectory
from rollout.types.sampling import SamplingRequest

PASSES, PUBLISHES = 200, 20
RECORDED, REPEATS = 64, 5
WATCH_S = 10.0
REWARDS = ("at once", "pool")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "tables", nargs="*", default=["publish", "idle", "record", "loop"], help="publish, idle, record, loop (all)"
    )
    arguments.add_argument("--generators", type=int, nargs="+", default=[1, 8, 64, 256], help="(1 8 64 256)")
    arguments.add_argument("--prompts", type=int, default=512, help="prompts per step (512)")
    arguments.add_argument(
        "--steps", type=int, default=5, help="steps, of which the first and the last are not counted (5)"
    )
    arguments.add_argument("--staleness", type=int, nargs="+", default=[0, 1], help="max_staleness (0 1)")
    arguments.add_argument(
        "--engine-s", type=float, default=0.0, help="median seconds of a group; 0: engines never limit (0)"
    )
    arguments.add_argument(
        "--rewards", nargs="+", choices=REWARDS, default=REWARDS, help="a stand-in for the pool, and the pool (both)"
    )
    arguments.add_argument("--turns", type=int, default=1, help="turns of a completion, with an environment (1)")
    arguments.add_argument("--profile", action="store_true", help="profile the driver's main thread in each loop")
    given = arguments.parse_args()
    if unknown := sorted(set(given.tables) - TABLES.keys()):
        arguments.error(f"no table {', '.join(unknown)}: known are {', '.join(TABLES)}")
    if given.steps < 3:
        arguments.error(f"--steps {given.steps}: the first and the last are not counted; give 3 or more")
    if min(*given.generators, given.prompts) < 1:
        arguments.error("--generators and --prompts must be 1 or more")
    logging.getLogger().setLevel(logging.ERROR)
    with ray_cluster(num_cpus=8), tempfile.TemporaryDirectory() as folder:
        for table in given.tables:
            TABLES[table](given, folder)


class Table:
    """Printed as its rows come, for they take minutes."""

    def __init__(self, title: str, *columns: str) -> None:
        self._columns = columns
        print(f"{title}\n{'  '.join(columns)}", flush=True)

    def row(self, *cells: object) -> None:
        print(
            "  ".join(f"{cell:>{len(column)}}" for cell, column in zip(cells, self._columns, strict=True)), flush=True
        )


def loops(given: argparse.Namespace, folder: str) -> None:
    """Measure the loop: the driver's CPU in ms a group, of its main thread, of all its threads, and these by phase."""
    unit = "group" if given.turns == 1 else f"turn, of {given.turns} in each completion"
    title = (
        f"loop: {given.prompts} prompts a step, {given.steps - 2} steps counted, {given.engine_s:g} s a group; "
        f"CPU in ms a {unit}"
    )
    columns = (
        "generators",
        "staleness",
        "rewards",
        "groups/s",
        "groups a pass",
        "main CPU",
        "all CPU",
        *PHASES,
        "kB on disk",
    )
    table = Table(title, *columns)
    for rewards, staleness, count in itertools.product(given.rewards, given.staleness, given.generators):
        settings = (f"max_staleness={staleness}", f"prompts_per_step={given.prompts}", f"num_steps={given.steps}")
        config = config_of(count, folder, *settings)
        simulated = simulation(config, real_rewards=rewards == "pool", engine_s=given.engine_s, num_turns=given.turns)
        with simulated as (fleet, meter):
            with profiled() if given.profile else nullcontext():
                run(config, fleet, meter, "simulated" if given.turns > 1 else "")
            num_groups = given.prompts * given.steps
            a_pass, kb = num_groups / fleet.rollouts.passes, bytes_written(config) / 1000 / num_groups
        ms = 1000 / meter.num_groups / (1 if given.turns == 1 else given.turns * config.group_size)
        costs = [meter.main_s, sum(meter.process_s.values()), *meter.process_s.values()]
        speed = f"{meter.num_groups / meter.wall_s:.0f}", f"{a_pass:.1f}"
        table.row(count, staleness, rewards, *speed, *(f"{ms * seconds:.2f}" for seconds in costs), f"{kb:.1f}")


def bytes_written(config: RunConfig) -> int:
    """Return the size of all rollouts."""
    return sum(file.stat().st_size for file in RunDirectory(config).rollouts.iterdir())


def idle(given: argparse.Namespace, folder: str) -> None:
    """Measure passes that look at everything and find nothing, and the heartbeats that are asked for meanwhile."""
    title = f"idle: {given.prompts} prompts in flight, none ready; medians of {PASSES} passes"
    columns = ("generators", "a pass, ms", "its main CPU, ms", "watching, % of a core", "abandon, s")
    table = Table(title, *columns)
    for count in given.generators:
        config = config_of(count, folder)
        with simulation(config, engine_s=3600.0) as (fleet, _):
            stream = fleet.rollouts
            fleet.publish(version=0)
            prompts = tuple(NumberedPrompts().take(given.prompts))
            stream.submit(SamplingRequest(prompts, config.sampling, config.group_size, config.seed))
            wall, main = seconds_of(partial(look, stream, 0.0), PASSES)
            watched = share_of_core(stream, WATCH_S)
            abandoned, _ = seconds_of(stream.abandon, 1)
        table.row(count, f"{1000 * wall:.2f}", f"{1000 * main:.2f}", f"{100 * watched:.1f}", f"{abandoned:.2f}")


def publishes(given: argparse.Namespace, folder: str) -> None:
    """Measure publishes with nothing else going on."""
    title = f"publish: 4 kB by the ray transport, nothing else going on; medians of {PUBLISHES}"
    table = Table(title, "generators", "a publish, ms", "its main CPU, ms")
    for count in given.generators:
        with simulation(config_of(count, folder)) as (fleet, _):
            wall, main = seconds_of(partial(fleet.publish, 0), PUBLISHES)
        table.row(count, f"{1000 * wall:.1f}", f"{1000 * main:.1f}")


def recorded(given: argparse.Namespace, folder: str) -> None:
    """Measure what the recorder does with a group, without the recorder."""
    table = Table(f"record: rollouts of {RECORDED} groups; medians of {REPEATS}", "its CPU, ms a group")
    config = config_of(1, folder)
    directory = RunDirectory(config).open()
    prompts = NumberedPrompts().take(RECORDED)
    groups = [(graded(group_of(prompt, config.group_size, (0,))), [0.5] * config.group_size) for prompt in prompts]
    _, main = seconds_of(partial(directory.write_rollouts, 1, groups), REPEATS)
    table.row(f"{1000 * main / RECORDED:.1f}")


def look(stream: RolloutStream, timeout_s: float) -> None:
    """One pass, as `gather` makes it."""
    stream.advance(ready_of(stream.refs(), timeout_s))


def seconds_of(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return medians of seconds on the clock, and of the main thread's CPU."""
    walls, mains = [], []
    for _ in range(repeats):
        start, start_main = time.monotonic(), time.thread_time()
        call()
        walls.append(time.monotonic() - start)
        mains.append(time.thread_time() - start_main)
    return median(walls), median(mains)


def share_of_core(stream: RolloutStream, seconds: float) -> float:
    """Return the CPU of all threads, while the stream waits as it does in `gather`."""
    start, start_cpu = time.monotonic(), time.process_time()
    while time.monotonic() < start + seconds:
        look(stream, EVERY_S)
    return (time.process_time() - start_cpu) / (time.monotonic() - start)


@contextmanager
def profiled() -> Iterator[None]:
    """Print where the main thread's CPU went."""
    with cProfile.Profile(time.thread_time) as profile:
        yield
    pstats.Stats(profile).sort_stats("tottime").print_stats(30)


TABLES = {"loop": loops, "idle": idle, "publish": publishes, "record": recorded}

if __name__ == "__main__":
    main()
