"""countdown-tiny under each preset: what it learns, how far it moves, how long its answers get, what it costs.

`python -m benchmarks.real_runs.presets` trains one run after the other (each about five minutes on two cores) and
prints a table. A run that is complete is not trained again, so the table can be had from runs that are there.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from learner.algorithm.losses import kl_estimate
from learner.algorithm.presets import PRESETS
from learner.config import ModelConfig
from learner.model.policy import load_policy, policy_inputs
from learner.packing import pack
from learner.sequences import TrainingSequence
from orchestrator.config.recipe import load
from orchestrator.records.run_directory import RunDirectory, read_records

ABLATIONS = {
    "grpo-no-std": ["learner.algorithm.preset=grpo", "learner.algorithm.advantage_scale=none"],
    "grpo-no-length": ["learner.algorithm.preset=grpo", "learner.algorithm.loss_aggregation=constant"],
}
"""One half of Dr. GRPO each."""
VARIANTS = {preset: [f"learner.algorithm.preset={preset}"] for preset in PRESETS} | ABLATIONS


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("variants", nargs="*", default=list(VARIANTS), help=f"out of {', '.join(VARIANTS)}")
    arguments.add_argument("--steps", type=int, default=30)
    arguments.add_argument("--updates", type=int, default=2, help="optimizer steps a step, so that ratios matter")
    arguments.add_argument("--base", required=True, help="folder of the warm start, which the KL is measured to")
    arguments.add_argument("--set", nargs="*", default=[], help="further key=value settings for every run")
    given = arguments.parse_args()
    print(
        "preset | pass@1 before → after | greedy | format | KL, nats a token | tokens | clipped | s a step", flush=True
    )
    for variant in given.variants:
        overrides = [
            f"name=preset-{variant}-{given.steps}",
            f"num_steps={given.steps}",
            f"learner.updates_per_step={given.updates}",
            f"evaluation.every_steps={given.steps}",
            *VARIANTS[variant],
            *given.set,
        ]
        train = [sys.executable, "-m", "orchestrator.cli", "train", "countdown-tiny", *overrides]
        subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
        print(row(variant, overrides, given.base), flush=True)


def row(variant: str, overrides: list[str], base: str) -> str:
    """The run's line of the table."""
    config = load("countdown-tiny", overrides)
    steps = {int(line["step"]): line for line in RunDirectory(config).metrics()}
    before, after = steps[0], steps[config.num_steps]
    rollouts = read_records(RunDirectory(config).rollouts_file(config.num_steps))
    seconds = statistics.median(steps[step]["time/step_s"] for step in range(2, config.num_steps))
    clipped = statistics.mean(line["optim/clip_fraction"] for step, line in steps.items() if step)
    return " | ".join(
        [
            variant,
            f"{rate(before, 'pass_at_1')} → {rate(after, 'pass_at_1')}",
            f"{100 * before['eval/greedy_pass_at_1']:.1f} → {100 * after['eval/greedy_pass_at_1']:.1f}%",
            rate(after, "format_rate"),
            f"{kl_to_base(rollouts, base, config.model):.3f}",
            f"{before['eval/completion_tokens']:.0f} → {after['eval/completion_tokens']:.0f}",
            f"{100 * clipped:.1f}%",
            f"{seconds:.1f}",
        ]
    )


def rate(line: dict[str, float], name: str) -> str:
    return f"{100 * line[f'eval/{name}']:.1f}% ± {100 * line[f'eval/{name}_ci95']:.1f}"


def kl_to_base(rollouts: list[dict[str, Any]], base: str, model: ModelConfig) -> float:
    """k3 estimate of KL(policy || warm start), mean over the tokens of a step's completions."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    policy = load_policy(base, model.model_copy(update={"lora": None}), temperature=1.0)
    sequences = [sequence(record, tokenizer.encode(record["prompt"])) for record in rollouts]
    batch = pack(sequences, rank=0, num_ranks=1, max_tokens=4096, layout="rows")
    total = 0.0
    for microbatch in batch.microbatches:
        with torch.no_grad():
            base_T = policy(*policy_inputs(microbatch, torch.device("cpu")))[0]
        total += float(kl_estimate(torch.from_numpy(microbatch.rollout_logprobs), base_T, "k3").sum())
    return total / batch.computed_tokens


def sequence(record: dict[str, Any], prompt_ids: list[int]) -> TrainingSequence:
    tokens = len(record["token_ids"])
    return TrainingSequence(
        token_ids=np.array([*prompt_ids, *record["token_ids"]], dtype=np.int32),
        num_prompt_tokens=len(prompt_ids),
        rollout_logprobs=np.array(record["rollout_logprobs"], dtype=np.float32),
        advantages=np.zeros(tokens, dtype=np.float32),
    )


if __name__ == "__main__":
    main()
