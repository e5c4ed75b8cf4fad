"""On-policy against pipelined on two generators over two Ray nodes of this machine: the curve, and who works when.

    python -m benchmarks.real_runs.overlap --staleness 0 1 --seeds 0 1 --picture docs/images/overlap.png
    python -m benchmarks.real_runs.overlap --staleness 0 1 --slow       # one of the generators is stopped half the time

countdown-tiny from its warm-started policy. Who works is seen from outside: the CPU time of each actor's process,
read off /proc twenty times a second. *Overlap* is the share of the learner's working time in which a generator works;
*its share* is that of the first generator, which --slow stops, in the CPU time of both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.real_runs.observed import ADDRESS, GENERATOR, LEARNER, ONE_CORE_EACH, WARM_START, Run, cluster

EVERY_S = 0.05
BUSY = 0.2
"""Share of a core from which on a process counts as working; waiting ones poll at some percent."""
NUM_STEPS = 10
DEFAULT = (
    f'model={{"path"="{WARM_START}","dtype"="float32"}}',
    "warm_start.num_steps=0",
    f"num_steps={NUM_STEPS}",
    "prompts_per_step=32",
    "prompts.num_held_out=256",
    "evaluation.completions_per_prompt=8",
    f"checkpoint.every_steps={NUM_STEPS}",
)
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Activity:
    """Seconds since the start of training, and for each process whether it worked then."""

    times: list[float]
    busy: dict[str, list[bool]]
    rewards: list[float]
    """The mean reward of each step."""
    share: float
    """Of the first generator in the CPU time of all."""

    def overlap(self) -> float:
        """Share of the learner's working time in which a generator works."""
        learner = self._any(LEARNER)
        both = [a and b for a, b in zip(learner, self._any(GENERATOR), strict=True)]
        return sum(both) / max(1, sum(learner))

    def _any(self, kind: str) -> list[bool]:
        rows = [row for name, row in self.busy.items() if kind in name]
        return [any(at_once) for at_once in zip(*rows, strict=True)]


def watched(run: Run, is_slow: bool) -> Activity:
    """Watch the run's actors from its first step to its last but one.

    `is_slow`: the first generator is stopped half of the time.
    """
    run.wait_for_step(0)
    pids = {f"{kind}-{index}": pid for kind in (GENERATOR, LEARNER) for index, pid in enumerate(run.pids(kind))}
    assert {name.rpartition("-")[0] for name in pids} == {GENERATOR, LEARNER}, f"only {pids} were found"
    start = time.monotonic()
    times: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in pids}
    with stopped_half_of_the_time(pids[f"{GENERATOR}-0"]) if is_slow else contextlib.nullcontext():
        while run.process.poll() is None and NUM_STEPS - 1 not in run.steps:  # the last step evaluates too
            times.append(time.monotonic() - start)
            for name, pid in pids.items():
                seconds[name].append(cpu_seconds(pid))
            time.sleep(EVERY_S)
    run.finish()
    busy = {name: [False, *map(works, used, used[1:], times, times[1:])] for name, used in seconds.items()}
    worked = [used[-1] - used[0] for name, used in seconds.items() if GENERATOR in name]
    return Activity(times, busy, [line["reward/total"] for line in run.metrics[1:]], worked[0] / sum(worked))


@contextlib.contextmanager
def stopped_half_of_the_time(pid: int) -> Iterator[None]:
    """For much less than `rollout.hang_timeout_s` at once."""
    is_over = threading.Event()

    def alternate() -> None:
        with contextlib.suppress(ProcessLookupError):  # a run that ends takes it along
            while not is_over.wait(EVERY_S):
                os.kill(pid, signal.SIGSTOP)
                is_over.wait(EVERY_S)
                os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=alternate)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def works(used_before: float, used: float, before: float, now: float) -> bool:
    return (used - used_before) / (now - before) > BUSY


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def draw(activities: dict[str, Activity], seconds: float, file: Path) -> None:
    """Draw a panel for each run, with a bar for each process that is coloured while it works, and the rewards below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4 + 1.5 * len(activities)), layout="constrained")
    *axes, curves = figure.subplots(len(activities) + 1, 1, height_ratios=[1] * len(activities) + [2])
    for axis, (title, activity) in zip(axes, activities.items(), strict=True):
        curves.plot(range(1, len(activity.rewards) + 1), activity.rewards, marker=".", label=title)
        for row, (name, busy) in enumerate(activity.busy.items()):
            spans = [
                (begin, end - begin)
                for begin, end, works in zip(activity.times, activity.times[1:], busy[1:], strict=False)
                if works and begin < seconds
            ]
            axis.broken_barh(spans, (row - 0.4, 0.8), color="tab:blue" if GENERATOR in name else "tab:orange")
        names = [name.replace(GENERATOR, "generator").replace(LEARNER, "learner") for name in activity.busy]
        axis.set_yticks(range(len(names)), names)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlim(0, seconds)
    axes[-1].set_xlabel("seconds of training")
    curves.set_xlabel("step")
    curves.set_ylabel("reward")
    curves.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--staleness", type=int, choices=range(9), nargs="+", default=[0, 1], help="each max_staleness (default: 0 1)"
    )
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the runs (default: 0)")
    arguments.add_argument("--seconds", type=float, default=40, help="shown in the picture (default: 40)")
    arguments.add_argument("--picture", type=Path, help="where to draw who works when, of the first seed")
    arguments.add_argument("--slow", action="store_true", help="stop one generator half of the time")
    given = arguments.parse_args()
    activities: dict[str, Activity] = {}
    print(
        "| max_staleness | seed | held-out before | after | staleness, mean | max | mixed versions | overlap "
        "| its share | s a step |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for seed in given.seeds:
        for staleness in given.staleness:
            with tempfile.TemporaryDirectory() as folder, cluster(num_cpus=2) as (nodes, environment):
                nodes.add_node(num_cpus=1, node_ip_address=ADDRESS)
                settings = (*DEFAULT, ONE_CORE_EACH, f"max_staleness={staleness}", f"seed={seed}")
                run = Run(Path(folder), f"staleness-{staleness}", *settings, environment=environment)
                activity = watched(run, given.slow)
                print(row(run, staleness, seed, activity), flush=True)
                activities.setdefault(f"max_staleness = {staleness}", activity)
    if given.picture:
        draw(activities, given.seconds, given.picture)


def row(run: Run, staleness: int, seed: int, activity: Activity) -> str:
    """Return a line of the table."""
    steps = run.metrics[1:]
    before, after = (
        f"{100 * line['eval/pass_at_1']:.1f} ± {100 * line['eval/pass_at_1_ci95']:.1f}%"
        for line in (run.metrics[0], steps[-1])
    )
    means = {
        key: sum(line[key] for line in steps) / len(steps)
        for key in ("rollout/staleness", "rollout/mixed_versions", "time/step_s")
    }
    most = max(line["rollout/staleness_max"] for line in steps)
    return (
        f"| {staleness} | {seed} | {before} | {after} | {means['rollout/staleness']:.2f} | {most:g} | "
        f"{100 * means['rollout/mixed_versions']:.0f}% | {100 * activity.overlap():.0f}% | "
        f"{100 * activity.share:.0f}% | {means['time/step_s']:.1f} |"
    )


if __name__ == "__main__":
    main()
