"""Measure how fast the reward pool grades, against its number of workers, and what hanging completions cost it.

`python -m benchmarks.grading.reward_pool` prints the tables and writes benchmarks/results/reward-pool.txt. Countdown
is graded by its own function and a tag check, tens of microseconds a completion, so the pool's own work is most of it;
`busy` burns 5 ms of CPU, so a pool that scales shows it, up to the machine's cores. Then 1% of its completions hang
until their deadline of 1 s: asleep, or in a backtracking regular expression in C. Runs with and without them alternate
on the same pool, and the medians are compared. The time is that until all others are graded, for the last to hang has
its second to go; the time until all are graded is given too.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "reward-pool.txt"
GROUP_SIZE = 8
DEADLINE_S = 1.0
HANGING_SHARE = 0.01
BUSY_S = 0.005
COUNTDOWN_TEXT = "Let me try 3 * 9 = 27, and 27 + 7 = 34.\n" * 12 + "</think><answer>3 * 9 + 7</answer>"
COUNTDOWN_ANSWER = {"numbers": [3, 7, 9], "target": 34}


def busy(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Burn BUSY_S of CPU, or hangs as the text says."""
    if text == "sleeps":
        time.sleep(3600)
    if text == "backtracks":
        re.match(r"(a+)+$", "a" * 40 + "b")  # this pattern is wrong on purpose
    end = time.process_time() + BUSY_S
    while time.process_time() < end:
        pass
    return {"correctness": 1.0}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--seconds", type=float, default=8.0, help="about how long each measurement lasts (default: 8)"
    )
    arguments.add_argument("--repeats", type=int, default=3, help="measurements of each kind (default: 3)")
    given = arguments.parse_args()
    if given.seconds <= 0 or given.repeats < 1:
        arguments.error("--seconds must be above 0, --repeats 1 or more")
    logging.getLogger("rewards").setLevel(logging.ERROR)  # a timeout is a warning there, and here what is measured
    from orchestrator.cluster.ray_cluster import ray_cluster  # here, as each worker imports this module

    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # where the workers find this module
    with ray_cluster(num_cpus=8):
        lines = [f"{os.cpu_count()} cores; groups of {GROUP_SIZE}; medians of {given.repeats}", ""]
        for lines_of in (throughput, hanging):
            for line in lines_of(given.seconds, given.repeats):
                print(line, flush=True)
                lines.append(line)
    changed = [f"{name}={os.environ[name]}" for name in ("RAY_worker_niceness",) if name in os.environ]
    command = shlex.join([*changed, "python", "-m", "benchmarks.grading.reward_pool", *sys.argv[1:]])
    RESULTS.write_text("\n".join([f"# {command}", *lines, ""]))


def throughput(seconds: float, repeats: int) -> Iterator[str]:
    yield "completions/s          1 worker   2 workers   4 workers"
    for task, text, answer in (("countdown", COUNTDOWN_TEXT, COUNTDOWN_ANSWER), ("busy", "works", {})):
        rates = []
        for num_workers in (1, 2, 4):
            with pool_of(task, num_workers) as pool:
                number = sized(pool, task, text, answer, seconds)
                batches = [groups(task, [text] * number, answer) for _ in range(repeats)]
                rates.append(statistics.median(number / time_of(pool, batch)[0] for batch in batches))
        yield f"  {task:<16}" + "".join(f"{rate:12.0f}" for rate in rates)


def hanging(seconds: float, repeats: int) -> Iterator[str]:
    yield ""
    yield f"busy, {HANGING_SHARE:.0%} of the completions hang (deadline {DEADLINE_S:g} s)"
    yield "                     completions/s   of none   timeouts   all graded after the last other"
    for num_workers in (1, 2):
        with pool_of("busy", num_workers) as pool:
            number = sized(pool, "busy", "works", {}, seconds)
            rates: dict[str, list[float]] = {"none": [], "sleeps": [], "backtracks": []}
            tails: dict[str, list[float]] = {kind: [] for kind in rates}
            timeouts = dict.fromkeys(rates, 0)
            for _ in range(repeats):
                for kind in rates:
                    before = pool.timeouts
                    took, tail = time_of(pool, groups("busy", texts_with(kind, number), {}), skip=kind)
                    rates[kind].append(number / took)
                    tails[kind].append(tail)
                    timeouts[kind] += pool.timeouts - before
        for kind, measured in rates.items():
            rate = statistics.median(measured)
            share = rate / statistics.median(rates["none"])
            tail = statistics.median(tails[kind])
            yield f"  {num_workers} × {kind:<14}{rate:14.0f}{share:10.1%}{timeouts[kind]:11}{tail:10.2f} s"


@contextmanager
def pool_of(task: str, num_workers: int) -> Iterator[Any]:
    from rewards.config import RewardsConfig
    from rewards.workers.pool import RewardPool

    settings = RewardsConfig(
        weights={"correctness": 0.9, "answer_tags": 0.1} if task == "countdown" else {"correctness": 1.0},
        tasks={"busy": "benchmarks.grading.reward_pool:busy"},
        num_workers=num_workers,
        deadline_s=DEADLINE_S,
    )
    pool = RewardPool(settings, f"bench-{task}-{num_workers}-{time.monotonic_ns()}", [task])
    try:
        yield pool
    finally:
        pool.close()


def sized(pool: Any, task: str, text: str, answer: Mapping[str, Any], seconds: float) -> int:
    """Warm the pool up and return how many completions take about so many seconds, a multiple of 100 groups."""
    time_of(pool, groups(task, [text] * 400, answer))
    took, _ = time_of(pool, groups(task, [text] * 800, answer))
    return max(1, round(seconds * 800 / took / (100 * GROUP_SIZE))) * 100 * GROUP_SIZE


def texts_with(kind: str, number: int) -> list[str]:
    """Return texts of which one in a hundred hangs, evenly spread, never the last."""
    every = round(1 / HANGING_SHARE)
    return [kind if kind != "none" and index % every == every // 2 else "works" for index in range(number)]


def groups(task: str, texts: Sequence[str], answer: Mapping[str, Any]) -> list[Any]:
    import numpy as np

    from rollout.types.completions import Completion, Group
    from rollout.types.prompts import Prompt

    tokens, logprobs = np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.float32)
    made = [Completion(tokens, logprobs, "stop", (0,), text) for text in texts]
    return [
        Group(Prompt(str(start), tokens, "", task, answer), tuple(made[start : start + GROUP_SIZE]))
        for start in range(0, len(made), GROUP_SIZE)
    ]


def time_of(pool: Any, batch: Sequence[Any], skip: str = "none") -> tuple[float, float]:
    """Return the seconds until all groups without a completion ``skip`` are graded, and from then until all are."""
    import ray

    from rewards.workers.pool import stored

    others = {group.prompt.id for group in batch if all(completion.text != skip for completion in group.completions)}
    start = time.monotonic()
    for group in batch:
        pool.submit(stored(group))
    others_done = start
    while pool.num_pending:
        ray.wait(pool.refs(), num_returns=1, timeout=pool.next_deadline())
        others -= {group.prompt.id for group in pool.poll()}
        if others:
            others_done = time.monotonic()
    end = time.monotonic()
    return others_done - start, end - others_done


if __name__ == "__main__":
    main()
