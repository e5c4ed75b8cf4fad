"""What a run survives: real processes of real runs are killed, stopped or starved, and the run is looked at afterwards.

    python -m benchmarks.real_runs.faults                      # every fault, each in a run of its own, and the table
    python -m benchmarks.real_runs.faults generator-killed     # one of them

A fault is *detected* when the run's log speaks of it, and *recovered* from when the next step is logged. *Lost* are
prompts of a step that were not trained on, *twice* those that were trained on more than once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.real_runs.observed import ADDRESS, GENERATOR, LEARNER, ONE_CORE_EACH, REWARD, Run, cluster

Inject = Callable[[Run, Any], object]
"""Does harm to a run, or to the cluster that it has joined. What it returns is kept until the run ends."""


@dataclass(frozen=True)
class Fault:
    """What is done to a run, when, and how its log tells that it was noticed."""

    how: str
    inject: Inject
    story: str
    """A pattern of the log line that tells; empty where nobody is left to write one."""
    after_step: int = 2
    then: Callable[[Run], object] = lambda run: None
    """What is done before the next step is waited for."""
    nodes: tuple[int, ...] = ()
    """Cores of each node of the cluster that the run joins; empty: it starts its own."""
    head: tuple[tuple[str, Any], ...] = ()
    """Further settings of the first node."""
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FaultOutcome:
    """What came of a fault."""

    line: str
    """Of the log, that tells of it; empty where none does."""
    detected_s: float | None
    recovered_s: float
    lost: int
    twice: int


def suffer(name: str, fault: Fault, folder: Path) -> FaultOutcome:
    """Let the fault happen to a run of that name in `folder`."""
    with contextlib.ExitStack() as stack:
        nodes: Any = None
        environment: dict[str, str] = {}
        if fault.nodes:
            nodes, environment = stack.enter_context(cluster(num_cpus=fault.nodes[0], **dict(fault.head)))
            for num_cpus in fault.nodes[1:]:
                nodes.add_node(num_cpus=num_cpus, node_ip_address=ADDRESS)
        run = Run(folder, name, *fault.settings, environment=environment)
        run.wait_for_step(fault.after_step)
        kept = fault.inject(run, nodes)
        injected = time.time()
        fault.then(run)
        before = max(run.steps)
        recovered = run.wait_for(lambda: max(run.steps) > before, "a step")
        run.finish()
        del kept
    line = next((line for line in run.log.splitlines() if fault.story and re.search(fault.story, line)), "")
    assert bool(line) == bool(fault.story), f"the log does not speak of it:\n{run.log}"
    return FaultOutcome(line, moment_of(line) - injected if line else None, recovered - injected, *run.lost_and_twice())


def moment_of(line: str) -> float:
    """Return when a line of log.txt was written, seconds since the epoch."""
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()


def send(number: signal.Signals, kind: str, *, during: tuple[str, str] | None = None, to_all: bool = False) -> Inject:
    """Return what sends a signal to the oldest actor of that kind, or to all of them.

    `during`: first wait until an actor of its first kind runs the method that is named second.
    """

    def inject(run: Run, _: Any) -> None:
        if during is not None:
            run.wait_for(lambda: run.is_in(*during), f"{during[1]} of a {during[0]}")
        pids = run.pids(kind)
        for pid in pids if to_all else pids[:1]:
            os.kill(pid, number)

    return inject


def kill_driver(run: Run, _: Any) -> None:
    run.process.send_signal(signal.SIGKILL)


def start_again(run: Run) -> None:
    run.process.wait()
    run.start()
    run.wait_for(lambda: "resuming run" in run.output, "the resume")


def lose_node(_: Run, nodes: Any) -> None:
    (second,) = nodes.worker_nodes
    nodes.remove_node(second, allow_graceful=False)


def fill_store(_: Run, nodes: Any) -> object:
    """Twice over: 10 objects of 16 MiB in a store of 80 MiB."""
    import ray

    ray.init(nodes.address, _node_ip_address=ADDRESS, log_to_driver=False)
    return [ray.put(os.urandom(16 * 2**20)) for _ in range(10)]


def await_lost_learner(run: Run) -> None:
    run.wait_for(lambda: "the learner is lost" in run.log, "the loss in the log")


kill = partial(send, signal.SIGKILL)
LOST = r"generator-\d is lost"
FAULTS = {
    "generator-killed": Fault(
        "SIGKILL to a generator while it decodes", kill(GENERATOR, during=(GENERATOR, "generate")), LOST
    ),
    "generator-stopped": Fault(
        "SIGSTOP to a generator: it lives, and does nothing",
        send(signal.SIGSTOP, GENERATOR),
        f"{LOST}: its process has not answered",
    ),
    "all-generators-killed": Fault("SIGKILL to every generator at once", kill(GENERATOR, to_all=True), LOST),
    "reward-worker-killed": Fault("SIGKILL to a reward worker", kill(REWARD), r"reward-0.* is replaced"),
    "learner-killed": Fault(
        "SIGKILL to a learner rank, after the step that follows a checkpoint: that step is done again",
        kill(LEARNER),
        "the learner is lost",
        after_step=3,
        then=await_lost_learner,
    ),
    "learner-stopped": Fault(
        "SIGSTOP to a learner rank in an update: it lives, and its peers wait for it",
        send(signal.SIGSTOP, LEARNER, during=(LEARNER, "update")),
        r"learner-\d hangs in update: its process has not answered",
        after_step=3,
        then=await_lost_learner,
    ),
    "publish-interrupted": Fault(
        "SIGKILL to a generator while the learner sends weights",
        kill(GENERATOR, during=(LEARNER, "weight_buckets")),
        LOST,
    ),
    "driver-killed": Fault(
        "SIGKILL to the driver; the same command again", kill_driver, "", after_step=3, then=start_again
    ),
    "node-lost": Fault(
        "SIGKILL to the second node of a cluster, with the generator on it; there is room for it on the first",
        lose_node,
        LOST,
        nodes=(3, 1),
        settings=(ONE_CORE_EACH,),
    ),
    "object-store-full": Fault(
        "Ray's object store filled by somebody else, twice over",
        fill_store,
        "",
        nodes=(2,),
        head=(("object_store_memory", 80 * 2**20),),
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)} (default: all)")
    given = arguments.parse_args()
    if unknown := [name for name in given.faults if name not in FAULTS]:
        arguments.error(f"no such fault: {', '.join(unknown)}. There are {', '.join(FAULTS)}")
    print(
        "| fault | how | detected after | next step after | lost | trained twice |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for name in given.faults or FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            outcome = suffer(name, FAULTS[name], Path(folder))
        detected = "" if outcome.detected_s is None else f"{outcome.detected_s:.1f} s"
        print(
            f"| {name} | {FAULTS[name].how} | {detected} | {outcome.recovered_s:.1f} s | {outcome.lost} "
            f"| {outcome.twice} |",
            flush=True,
        )
        print(f"    {outcome.line[24:]}", file=sys.stderr)


if __name__ == "__main__":
    main()
