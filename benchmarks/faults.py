"""What a run survives: real processes of real runs are killed, stopped or starved, and the run is looked at afterwards.

    python -m benchmarks.faults                      # every fault, each in a run of its own, and the table
    python -m benchmarks.faults generator-killed     # one of them

A fault is *detected* when the run's log speaks of it, and *recovered* from when the next step is logged. *Lost* are
prompts of a step that were not trained on, *twice* those that were trained on more than once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import zstandard

WARM_START = Path(__file__).resolve().parents[1] / "tests" / "data" / "countdown-warm-start"
SETTINGS = (
    f'model={{"path"="{WARM_START}","dtype"="float32"}}',
    "warm_start.num_steps=0",
    "num_steps=6",
    "prompts_per_step=16",
    "prompts.num_held_out=8",
    "evaluation.every_steps=0",
    "evaluation.completions_per_prompt=2",
    "checkpoint.every_steps=2",
    "rollout.hang_timeout_s=10",
)
ADDRESS = "127.0.0.2"
"""Of the clusters' nodes. Not 127.0.0.1, in whose stead Ray takes the machine's outer address when a driver joins."""
ONE_CORE_EACH = "rollout.cpus_per_generator=1"
"""Fills a node of one core with a generator, and one of two cores with a generator and all that is no generator."""
PATIENCE_S = 400.0
"""Longest wait for anything, seconds."""


class Run:
    """A training run as a command of its own, seen from outside."""

    def __init__(self, folder: Path, name: str, *settings: str, environment: dict[str, str] | None = None) -> None:
        self.directory = folder / name
        self._command = [
            *(sys.executable, "-m", "orchestrator.cli", "train"),
            *(f"runs_dir={folder}", f"name={name}", *SETTINGS, *settings),
        ]
        self._environment = os.environ | (environment or {})
        self._output = folder / f"{name}.out"
        self.start()

    def start(self, *settings: str) -> None:
        """Run the command, with these settings too; the same one again resumes the run."""
        with self._output.open("a") as output:
            self.process = subprocess.Popen(
                [*self._command, *settings], env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def log(self) -> str:
        file = self.directory / "log.txt"
        return file.read_text() if file.exists() else ""

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl."""
        file = self.directory / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    @property
    def steps(self) -> list[int]:
        """The steps that were logged; 0 is the evaluation before the first."""
        return [int(line["step"]) for line in self.metrics]

    def trained(self) -> dict[int, list[str]]:
        """The prompts that each step trained on."""
        found = {}
        for file in sorted((self.directory / "rollouts").glob("step_*.zst")):
            rows = [json.loads(line) for line in zstandard.decompress(file.read_bytes()).decode().splitlines()]
            found[int(file.name[5:11])] = list(dict.fromkeys(row["prompt_id"] for row in rows))
        return found

    def wait_for(self, what: Callable[[], object], said: str) -> float:
        """When `what` became true, seconds since the epoch. Fails when the run ends before, or it takes too long."""
        deadline = time.monotonic() + PATIENCE_S
        while not what():
            assert self.process.poll() is None or what(), f"the run ended before {said}:\n{self.output}\n{self.log}"
            assert time.monotonic() < deadline, f"{said} never came:\n{self.output}\n{self.log}"
            time.sleep(0.005)
        return time.time()

    def wait_for_step(self, step: int) -> float:
        return self.wait_for(lambda: step in self.steps, f"step {step}")

    def finish(self) -> None:
        """Wait for its end, which must be a good one."""
        assert self.process.wait(timeout=PATIENCE_S) == 0, f"{self.output}\n{self.log}"

    def pids(self, kind: str) -> list[int]:
        """Processes of the run's actors whose Ray title holds `kind`, the oldest first."""
        found = [pid for pid, title in self._processes() if title.startswith("ray::") and kind in title]
        return sorted(found, key=started)

    def is_in(self, kind: str, method: str) -> bool:
        """Whether an actor of that kind runs that method now: Ray writes it into the process's title."""
        return any(kind in title and title.rstrip("()").endswith(method) for _, title in self._processes())

    def _processes(self) -> Iterator[tuple[int, str]]:
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    waiting += [int(child) for child in (thread / "children").read_text().split()]
                yield pid, Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0 ")


def started(pid: int) -> int:
    """When a process was started, ticks since the machine was."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


GENERATOR, LEARNER, REWARD = "enerator", "earner", "eward"


@dataclass
class Outcome:
    """What came of a fault."""

    injected: float
    """Seconds since the epoch."""
    story: str
    """A pattern of the log line that tells that it was noticed; empty where nobody is left to write one."""
    run: Run
    detected_s: float | None = None
    recovered_s: float = 0.0
    lost: int = 0
    twice: int = 0
    notes: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Wait for the end of the run, and count."""
        before = max(self.run.steps, default=0)
        self.recovered_s = self.run.wait_for(lambda: max(self.run.steps, default=0) > before, "a step") - self.injected
        self.run.finish()
        if self.story:
            line = next(line for line in self.run.log.splitlines() if re.search(self.story, line))
            self.detected_s = moment_of(line) - self.injected
            self.notes.append(line[24:])
        self.lost, self.twice = lost_and_twice(self.run)


def moment_of(line: str) -> float:
    """When a line of log.txt was written, seconds since the epoch."""
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()


def lost_and_twice(run: Run) -> tuple[int, int]:
    """Prompts that were taken from the stream and not trained on, and those trained on more than once.

    Without dynamic sampling, step s trains on the prompts (s - 1) P to s P - 1 of the stream, each once.
    """
    trained = Counter(prompt for prompts in run.trained().values() for prompt in prompts)
    size = len(run.trained()[1])
    expected = {f"train/{position:06d}" for position in range(size * len(run.trained()))}
    misplaced = [
        prompt
        for step, prompts in run.trained().items()
        for prompt in prompts
        if (int(prompt.removeprefix("train/")) // size) + 1 != step
    ]
    assert not misplaced, f"trained on in another step than its own: {misplaced}"
    return len(expected - trained.keys()), sum(count - 1 for count in trained.values())


@contextlib.contextmanager
def generator_killed(folder: Path) -> Iterator[Outcome]:
    """SIGKILL to a generator while it decodes."""
    run = Run(folder, "generator-killed")
    run.wait_for_step(2)
    run.wait_for(lambda: run.is_in(GENERATOR, "generate"), "decoding")
    os.kill(run.pids(GENERATOR)[0], signal.SIGKILL)
    yield Outcome(time.time(), r"generator-\d is lost", run)


@contextlib.contextmanager
def generator_stopped(folder: Path) -> Iterator[Outcome]:
    """SIGSTOP to a generator: it lives, and does nothing."""
    run = Run(folder, "generator-stopped")
    run.wait_for_step(2)
    os.kill(run.pids(GENERATOR)[0], signal.SIGSTOP)
    yield Outcome(time.time(), r"generator-\d is lost: its process has not answered", run)


@contextlib.contextmanager
def all_generators_killed(folder: Path) -> Iterator[Outcome]:
    """SIGKILL to every generator at once."""
    run = Run(folder, "all-generators-killed")
    run.wait_for_step(2)
    for pid in run.pids(GENERATOR):
        os.kill(pid, signal.SIGKILL)
    yield Outcome(time.time(), r"generator-\d is lost", run)


@contextlib.contextmanager
def reward_worker_killed(folder: Path) -> Iterator[Outcome]:
    """SIGKILL to a reward worker."""
    run = Run(folder, "reward-worker-killed")
    run.wait_for_step(2)
    os.kill(run.pids(REWARD)[0], signal.SIGKILL)
    yield Outcome(time.time(), r"reward-0.* is replaced", run)


@contextlib.contextmanager
def learner_killed(folder: Path) -> Iterator[Outcome]:
    """SIGKILL to a learner rank, after the step that follows a checkpoint: that step is done again."""
    run = Run(folder, "learner-killed")
    run.wait_for_step(3)
    os.kill(run.pids(LEARNER)[0], signal.SIGKILL)
    outcome = Outcome(time.time(), r"the learner is lost", run)
    run.wait_for(lambda: "the learner is lost" in run.log, "the loss in the log")
    yield outcome


@contextlib.contextmanager
def publish_interrupted(folder: Path) -> Iterator[Outcome]:
    """SIGKILL to a generator while the learner sends weights."""
    run = Run(folder, "publish-interrupted")
    run.wait_for_step(2)
    run.wait_for(lambda: run.is_in(LEARNER, "weight_buckets"), "a publish")
    os.kill(run.pids(GENERATOR)[0], signal.SIGKILL)
    yield Outcome(time.time(), r"generator-\d is lost", run)


@contextlib.contextmanager
def driver_killed(folder: Path) -> Iterator[Outcome]:
    """SIGKILL to the driver; the same command again."""
    run = Run(folder, "driver-killed")
    run.wait_for_step(3)
    run.process.send_signal(signal.SIGKILL)
    injected = time.time()
    run.process.wait()
    run.start()
    outcome = Outcome(injected, "", run)
    run.wait_for(lambda: "resuming run" in run.output, "the resume")
    yield outcome


@contextlib.contextmanager
def cluster(**head: Any) -> Iterator[tuple[Any, dict[str, str]]]:
    """A Ray cluster beside the run, which joins it; and the environment that makes it do so."""
    from ray.cluster_utils import Cluster

    started = Cluster(
        initialize_head=True, head_node_args={"include_dashboard": False, "node_ip_address": ADDRESS, **head}
    )
    try:
        yield started, {"RAY_ADDRESS": started.address}
    finally:
        started.shutdown()


@contextlib.contextmanager
def node_lost(folder: Path) -> Iterator[Outcome]:
    """SIGKILL to the second node of a cluster, with the generator on it; there is room for it on the first."""
    with cluster(num_cpus=3) as (nodes, environment):
        second = nodes.add_node(num_cpus=1, node_ip_address=ADDRESS)
        run = Run(folder, "node-lost", ONE_CORE_EACH, environment=environment)
        run.wait_for_step(2)
        nodes.remove_node(second, allow_graceful=False)
        yield Outcome(time.time(), r"generator-\d is lost", run)


@contextlib.contextmanager
def object_store_full(folder: Path) -> Iterator[Outcome]:
    """Ray's object store filled by somebody else, twice over."""
    import ray

    with cluster(num_cpus=2, object_store_memory=80 * 2**20) as (nodes, environment):
        run = Run(folder, "object-store-full", environment=environment)
        run.wait_for_step(2)
        ray.init(nodes.address, _node_ip_address=ADDRESS, log_to_driver=False)
        held = [ray.put(os.urandom(16 * 2**20)) for _ in range(10)]
        yield Outcome(time.time(), "", run, notes=[f"{len(held)} objects of 16 MiB in a store of 80 MiB"])
        ray.shutdown()


FAULTS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Outcome]]] = {
    "generator-killed": generator_killed,
    "generator-stopped": generator_stopped,
    "all-generators-killed": all_generators_killed,
    "reward-worker-killed": reward_worker_killed,
    "learner-killed": learner_killed,
    "publish-interrupted": publish_interrupted,
    "driver-killed": driver_killed,
    "node-lost": node_lost,
    "object-store-full": object_store_full,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)} (default: all)")
    given = arguments.parse_args()
    print(
        "| fault | how | detected after | next step after | lost | trained twice |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name in given.faults or FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            with FAULTS[name](Path(folder)) as outcome:
                outcome.settle()
            detected = "" if outcome.detected_s is None else f"{outcome.detected_s:.1f} s"
            how = (FAULTS[name].__doc__ or "").splitlines()[0].rstrip(".")
            print(f"| {name} | {how} | {detected} | {outcome.recovered_s:.1f} s | {outcome.lost} | {outcome.twice} |")
            for note in outcome.notes:
                print(f"    {note}", file=sys.stderr)


if __name__ == "__main__":
    main()
