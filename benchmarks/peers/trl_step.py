"""Seconds of a training step, here and in TRL, on the same model, prompts, rewards, batch and limits, in turns.

TRL stays out of the project's environment, in a folder "$PEERS"; what it requires is there already:

    pip install --no-deps --target "$PEERS" trl==1.16.0
    PYTHONPATH="$PEERS:." python -m benchmarks.peers.trl_step [--recipe RECIPE] [--rounds 2] [key=value …]

TRL's side is its ``GRPOTrainer`` with transformers' generation, on the CPU in float32, in a process of its own that
waits while this project trains. This project's side is ``rayzero train``, resumed for two more steps in each round.
Both hand the same texts to the same grader. TRL knows no stop texts (transformers wants a tokenizer for them, which
TRL does not pass), so its completions are longer: the time for each token that was sampled stands beside that of a
step, and the smaller ratio is the claim. A recipe must have a model of its own: no warm start.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.peers.trl_trainer import Grader, prompts_of, trainer
from benchmarks.peers.trl_version import missing_trl
from orchestrator.config.recipe import DEFAULT_RECIPE, load
from orchestrator.config.schema import RunConfig
from orchestrator.records.run_directory import RunDirectory

STEPS_A_ROUND = 2
"""Of this project; TRL takes one."""
STEP = "step of the peer: "
"""Begins a line of the peer's output that has a step; libraries write other lines there."""


class Step(NamedTuple):
    """A step of either side."""

    seconds: float
    tokens: int
    """Sampled by all completions."""
    right: float


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--recipe", default=DEFAULT_RECIPE)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    arguments.add_argument("overrides", nargs="*")
    given = arguments.parse_args()
    if (missing := missing_trl()) is not None:
        print(missing, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        quiet = ("evaluation.every_steps=0", "prompts.num_held_out=2", "evaluation.completions_per_prompt=1")
        overrides = [f"runs_dir={folder}", "name=ours", "checkpoint.every_steps=2", *quiet, *given.overrides]
        if given.peer:
            train_peer(load(given.recipe, overrides), given.rounds)
        else:
            compare(given.recipe, overrides, given.rounds)
    return 0


def compare(recipe: str, overrides: Sequence[str], rounds: int) -> None:
    """Let both sides train in turns, and print their steps and ratios."""
    command = [sys.executable, "-m", "benchmarks.peers.trl_step"]
    command += ["--recipe", recipe, "--peer", "--rounds", str(rounds), *overrides]
    ours: list[Step] = []
    theirs: list[Step] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin and peer.stdout
        for turn in range(rounds):
            ours += steps_of(recipe, [*overrides, f"num_steps={STEPS_A_ROUND * (turn + 1)}"])[-STEPS_A_ROUND:]
            peer.stdin.write("\n")
            peer.stdin.flush()
            theirs.append(next(filter(None, map(parse_step, peer.stdout))))
            print(
                f"round {turn + 1}  Rayzero {describe(ours[-STEPS_A_ROUND:])}   TRL {describe(theirs[-1:])}", flush=True
            )
    by_step = statistics.median(step.seconds for step in theirs) / statistics.median(step.seconds for step in ours)
    by_token = statistics.median(step.seconds / step.tokens for step in theirs) / statistics.median(
        step.seconds / step.tokens for step in ours
    )
    print(f"TRL takes {by_step:.1f} times as long for a step, {by_token:.1f} times for a token that is sampled")
    print(f"the claim: {min(by_step, by_token):.1f}")


def parse_step(line: str) -> Step | None:
    """Return the step of a line of the peer's output, or None for a line that has none."""
    return Step(*json.loads(line.removeprefix(STEP))) if line.startswith(STEP) else None


def describe(steps: Sequence[Step]) -> str:
    return ", ".join(f"{step.seconds:.1f} s ({step.tokens} tokens, {step.right:.0%} right)" for step in steps)


def steps_of(recipe: str, overrides: Sequence[str]) -> list[Step]:
    """Train, or go on, to the end, and return all steps of the run."""
    train = [sys.executable, "-m", "orchestrator.cli", "train", recipe, *overrides, "checkpoint.allow_changes=true"]
    subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
    lines = RunDirectory(load(recipe, overrides)).metrics()[1:]
    return [
        Step(
            line["time/step_s"] - line.get("time/evaluation_s", 0.0),
            int(line["rollout/sampled_tokens"]),
            line["reward/correctness"],
        )
        for line in lines
    ]


def train_peer(config: RunConfig, steps: int) -> None:
    """Take one step of TRL for each line of standard input; print each as JSON."""
    from transformers import TrainerCallback

    prompts = prompts_of(config, steps)
    grader = Grader(config, prompts)

    class Turns(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            sys.stdin.readline()
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            print(f"{STEP}{json.dumps([time.perf_counter() - self.start, grader.tokens, grader.right])}", flush=True)

    trainer(config, steps, prompts, grader, Turns()).train()


if __name__ == "__main__":
    sys.exit(main())
