"""What is learned from equally many completions, here and in TRL: same model, prompts, rewards, batch and limits.

    PYTHONPATH="$PEERS:." python -m benchmarks.peers.trl_learning --into FOLDER [--seeds 0 1 2] [--recipe RECIPE]

benchmarks/peers/trl_step.py says how to install TRL, and what differs. For each seed both train as many steps as the
recipe has, one after the other. Then `rayzero eval` asks the base model and both trained ones the same held-out
problems, and compares them in pairs. What is in the folder already is not done again: about half an hour a seed on two
cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.trl_trainer import Grader, prompts_of, trainer
from benchmarks.peers.trl_version import missing_trl
from orchestrator.config.recipe import DEFAULT_RECIPE, load
from orchestrator.config.schema import RunConfig

PASS_AT = 4


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--recipe", default=DEFAULT_RECIPE)
    arguments.add_argument("--into", type=Path, required=True)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("overrides", nargs="*")
    given = arguments.parse_args()
    if (missing := missing_trl()) is not None:
        print(missing, file=sys.stderr)
        return 2
    folder = given.into.absolute()
    overrides = [f"runs_dir={folder}", *given.overrides]
    if given.peer is not None:
        config = load(given.recipe, [*overrides, f"seed={given.peer}"])
        train_peer(config, folder / f"trl-{given.peer}")
        return 0
    for seed in given.seeds:
        compare(given.recipe, overrides, folder, seed)
    return 0


def compare(recipe: str, overrides: Sequence[str], folder: Path, seed: int) -> None:
    """Train both with one seed, unless that was done, and print how they and the base model answer."""
    rayzero = [sys.executable, "-m", "orchestrator.cli"]
    ours, theirs, figures = (folder / name for name in (f"rayzero-{seed}", f"trl-{seed}", f"compared-{seed}.json"))
    if not (ours / "final").is_dir():
        run(rayzero, "train", recipe, *overrides, f"seed={seed}", f"name={ours.name}")
    if not theirs.is_dir():
        peer = [sys.executable, "-m", "benchmarks.peers.trl_learning", "--peer", str(seed), "--into", str(folder)]
        run(peer, "--recipe", recipe, *overrides)
    if not figures.is_file():
        models = [f"base:{load(recipe, overrides).model.path}", f"trl:{theirs}", f"rayzero:{ours / 'final'}"]
        run(rayzero, "eval", *models, "--recipe", recipe, "--pass-at", "1", str(PASS_AT), "--json", str(figures))


def run(command: Sequence[str], *more: str) -> None:
    subprocess.run([*command, *more], check=True)


def train_peer(config: RunConfig, final: Path) -> None:
    """Train as many steps as the run would, print one line a step, and save the model."""
    from transformers import TrainerCallback

    prompts = prompts_of(config, config.num_steps)
    grader = Grader(config, prompts)

    class Report(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            figures = {"seconds": round(time.perf_counter() - self.start, 1), "right": grader.right}
            print(json.dumps({"step": state.global_step} | figures | {"tokens": grader.tokens}), flush=True)

    started = trainer(config, config.num_steps, prompts, grader, Report())
    started.train()
    started.save_model(str(final.with_suffix(".part")))
    final.with_suffix(".part").rename(final)


if __name__ == "__main__":
    sys.exit(main())
