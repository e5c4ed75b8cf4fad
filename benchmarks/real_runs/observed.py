"""A real run, watched from outside as an operator would: its processes, its log, its metrics, what it trained on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import zstandard

WARM_START = Path(__file__).resolve().parents[2] / "tests" / "data" / "countdown-warm-start"
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
GENERATOR, LEARNER, REWARD = "enerator", "earner", "eward"
"""What the title of such an actor's process holds: its class or its name."""
LONGEST_WAIT_S = 400.0
"""Longest wait for anything, seconds."""


class Run:
    """A training run as a command of its own, seen from outside."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *settings: str,
        environment: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start it. `prefix`: a command that runs commands elsewhere."""
        self.directory = folder / name
        self._command = [
            *(*prefix, sys.executable, "-m", "orchestrator.cli", "train", "countdown-tiny"),
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
        """Return the prompts that each step trained on."""
        found = {}
        for file in sorted((self.directory / "rollouts").glob("step_*.zst")):
            rows = [json.loads(line) for line in zstandard.decompress(file.read_bytes()).decode().splitlines()]
            found[int(file.name[5:11])] = list(dict.fromkeys(row["prompt_id"] for row in rows))
        return found

    def lost_and_twice(self) -> tuple[int, int]:
        """Return how many prompts were taken from the stream and not trained on, and how many were trained on again.

        Without dynamic sampling, step s trains on the prompts (s - 1) P to s P - 1 of the stream, each once.
        """
        by_step = self.trained()
        size = len(by_step[1])
        wrong_step = [
            prompt
            for step, prompts in by_step.items()
            for prompt in prompts
            if (int(prompt.removeprefix("train/")) // size) + 1 != step
        ]
        assert not wrong_step, f"trained on in another step than its own: {wrong_step}"
        counts = Counter(prompt for prompts in by_step.values() for prompt in prompts)
        expected = {f"train/{position:06d}" for position in range(size * len(by_step))}
        return len(expected - counts.keys()), sum(count - 1 for count in counts.values())

    def wait_for(self, what: Callable[[], object], said: str) -> float:
        """Return when `what` became true, in seconds of the epoch. Fails when the run ends before, or too late."""
        deadline = time.monotonic() + LONGEST_WAIT_S
        while not what():
            assert self.process.poll() is None or what(), f"the run ended before {said}:\n{self.output}\n{self.log}"
            assert time.monotonic() < deadline, f"{said} never came:\n{self.output}\n{self.log}"
            time.sleep(0.02)  # a look reads the files of every process
        return time.time()

    def wait_for_step(self, step: int) -> float:
        return self.wait_for(lambda: step in self.steps, f"step {step}")

    def finish(self) -> None:
        """Wait for its end, which must be a good one."""
        assert self.process.wait(timeout=LONGEST_WAIT_S) == 0, f"{self.output}\n{self.log}"

    def pids(self, kind: str) -> list[int]:
        """Return the processes of the run's actors whose Ray title holds `kind`, the oldest first."""
        found = [pid for pid, title in self._processes() if title.startswith("ray::") and kind in title]
        return sorted(found, key=start_of)

    def is_in(self, kind: str, method: str) -> bool:
        """Return whether an actor of that kind runs that method now: Ray writes it into the process's title."""
        return any(kind in title and title.rstrip("()").endswith(method) for _, title in self._processes())

    def _processes(self) -> Iterator[tuple[int, str]]:
        # In a cluster that it has joined, a run's actors are no children of its driver, but of the cluster's nodes.
        return processes(os.getpid() if "RAY_ADDRESS" in self._environment else self.process.pid)


def processes(root: int) -> Iterator[tuple[int, str]]:
    """Yield `root` and all processes below it, each with its title, which is empty once it ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        found = psutil.Process(root)
        for process in (found, *found.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                yield process.pid, " ".join(process.cmdline()).rstrip()


def start_of(pid: int) -> int:
    """Return when a process was started, in ticks since the machine was."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@contextlib.contextmanager
def cluster(**head: Any) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield a Ray cluster beside the run, and the environment that makes the run join it."""
    import ray
    from ray.cluster_utils import Cluster

    started = Cluster(
        initialize_head=True, head_node_args={"include_dashboard": False, "node_ip_address": ADDRESS, **head}
    )
    # A later ray.init() of this process may turn token authentication on for its children; this cluster keeps its own.
    mode = os.environ.get("RAY_AUTH_MODE", "disabled")
    try:
        yield started, {"RAY_ADDRESS": started.address, "RAY_AUTH_MODE": mode}
    finally:
        ray.shutdown()
        started.shutdown()
