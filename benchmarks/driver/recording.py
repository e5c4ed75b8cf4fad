"""What recording costs a run: processor time of the driver and beside it, and bytes on disk, from the run's own files.

python -m benchmarks.driver.recording runs/countdown-tiny

Some of the run's steps are recorded once more, into a folder of their own: without the learner's logprobs, with them,
and with what the update changed. Where the run has none of its own, gaps and changes are drawn as in bfloat16.
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from learner.logprob_record import LogprobRecord
from learner.metrics import Update
from orchestrator.batches import StepBatch
from orchestrator.config.recipe import ConfigError, load
from orchestrator.records.run_directory import RunDirectory, read_records
from orchestrator.report.reading.recorded_run import RecordedRun, read_run
from orchestrator.report.report import write_report
from rollout.types.completions import Completion, Group, RemoteGroup, Reward, RewardPart
from rollout.types.prompts import Prompt

GAP, CHANGE = 0.01, 0.1
"""Standard deviations of what is drawn, nats."""
KINDS = ("without the learner's logprobs", "with them", "and what the update changed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=5, help="steps that are recorded once more")
    given = parser.parse_args()
    try:
        run = read_run(given.run)
    except ConfigError as error:
        parser.error(str(error))
    if given.steps < 1 or not run.rollouts:
        parser.error(f"--steps {given.steps} of {len(run.rollouts)} recorded steps of {given.run}: nothing to do")
    step_s = median(row["time/step_s"] for row in run.rows if "time/step_s" in row)
    steps = list(run.rollouts)[:: max(1, len(run.rollouts) // given.steps)][: given.steps]
    print(f"{run.name}: a step takes {step_s:.1f} s (median); {len(steps)} steps are recorded once more")
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(load("countdown-tiny", [f"runs_dir={folder}", "name=again"])).open()
        found = [measured(directory, read_records(run.rollouts[step])) for step in steps]
        for kind, name in enumerate(KINDS):
            driver, recorder, size = (mean(each[kind][n] for each in found) for n in range(3))
            print(
                f"{name}: driver {1000 * driver:.2f} ms a step ({driver / step_s:.3%}), "
                f"recorder {1000 * recorder:.0f} ms ({recorder / step_s:.2%}), {size:.0f} bytes a completion"
            )
        reported(run, Path(folder) / "copy", step_s)
    again = [row["time/score_again_s"] for row in run.rows if "time/score_again_s" in row]
    if again:
        share = sum(again) / sum(row.get("time/step_s", 0.0) for row in run.rows)
        print(f"scoring again: {mean(again):.2f} s at each of {len(again)} evaluations, {share:.2%} of all steps")


def measured(directory: RunDirectory, records: Sequence[dict[str, Any]]) -> list[tuple[float, float, float]]:
    """Return seconds of the driver's and the recorder's processor, and bytes a completion, for each of KINDS."""
    groups = [group_of(list(found)) for _, found in groupby(records, key=lambda record: record["prompt_id"])]
    gaps = values_of(records, "logprob_gaps", GAP)
    kinds = [None, LogprobRecord(gaps), LogprobRecord(gaps, values_of(records, "logprob_changes", CHANGE))]
    return [recorded(directory, groups, kind) for kind in kinds]


def recorded(
    directory: RunDirectory, groups: Sequence[Group], logprobs: LogprobRecord | None
) -> tuple[float, float, float]:
    advantages = [[0.5] * len(group.completions) for group in groups]
    headers = [
        RemoteGroup(group.prompt, tuple(each.header for each in group.completions), group.rewards) for group in groups
    ]
    batch, update = StepBatch(headers, [], 0), Update({}, advantages, logprobs=logprobs)

    def hand_over() -> bytes:
        learned = batch.learned(update)
        return pickle.dumps([(each.group.rewards, each.logprobs) for each in learned])

    split = [each.logprobs for each in batch.learned(update)]
    driver = seconds_of(hand_over)
    recorder = seconds_of(lambda: directory.write_rollouts(1, list(zip(groups, advantages, strict=True)), split))
    size = (directory.rollouts / "step_000001.jsonl.zst").stat().st_size
    return driver, recorder, size / sum(len(group.completions) for group in groups)


def seconds_of(call: Callable[[], object], repeats: int = 3) -> float:
    """Return the least seconds of this thread's processor: other processes only add."""
    found = []
    for _ in range(repeats):
        start = time.thread_time()
        call()
        found.append(time.thread_time() - start)
    return min(found)


def values_of(records: Sequence[dict[str, Any]], name: str, spread: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate(list(lists_of(records, name, spread, rng))).astype(np.float16)


def lists_of(
    records: Sequence[dict[str, Any]], name: str, spread: float, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    is_recorded = any(name in record for record in records)
    for record in records:
        count = len(record["token_ids"])
        unknown = np.full(count, np.nan) if is_recorded else rng.normal(0, spread, count)
        yield np.array(record[name], float) if name in record else unknown


def group_of(records: Sequence[dict[str, Any]]) -> Group:
    first = records[0]
    prompt = Prompt(first["prompt_id"], np.zeros(1, np.int32), first["prompt"], "", first["answer"])
    completions = tuple(
        Completion(
            np.array(record["token_ids"], np.int32),
            np.array(record["rollout_logprobs"], np.float32),
            record["finish_reason"],
            tuple(record["policy_versions"]),
            record["completion"],
        )
        for record in records
    )
    rewards = tuple(
        Reward(
            record["reward"],
            tuple(RewardPart(name, part["value"], part["status"]) for name, part in record["parts"].items()),
            markers=tuple(record.get("markers") or ()),
        )
        for record in records
    )
    return Group(prompt, completions, rewards)


def reported(run: RecordedRun, copy: Path, step_s: float) -> None:
    """Print what the report at an evaluation takes, where the step before it was read already."""
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("checkpoints", "final", "report.html", ".report*"))
    write_report([copy])
    start = time.process_time()
    write_report([copy])
    print(f"a report: {time.process_time() - start:.1f} s of an idle processor at each evaluation, beside the loop")


if __name__ == "__main__":
    main()
