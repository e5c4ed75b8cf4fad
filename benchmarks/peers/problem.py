"""What both sides of trl_grpo_loss.py are given: three sets of weights, ragged groups, rewards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from learner.config import BuildConfig, ModelConfig
from learner.model.build import build_model
from learner.model.policy import Policy, load_policy, policy_inputs
from learner.packing import pack
from learner.sequences import TrainingSequence, sequences_from_groups
from rollout.types.completions import Completion, Group, Reward
from rollout.types.prompts import Prompt

# Wide initial weights: the distributions have peaks, so that entropies differ.
BUILD = BuildConfig(hidden_size=32, num_layers=2, intermediate_size=48, init_std=0.25, max_integer=61, words=("+",))
TEMPERATURE, MAX_COMPLETION_TOKENS = 0.8, 16
NUM_GROUPS, GROUP_SIZE = 3, 6
Settings = dict[str, Any]
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Problem:
    """What both sides are given."""

    folder: Path
    """The reference, and the tokenizer."""
    policy: Policy
    reference: Policy
    old: Weights
    now: Weights
    groups: list[Group]

    def groups_of(self, flat_reward: float) -> list[Group]:
        flat = replace(self.groups[1], rewards=(Reward(flat_reward, ()),) * GROUP_SIZE)
        return [self.groups[0], flat, *self.groups[2:]]


def make_problem(folder: Path) -> Problem:
    """A reference, an old policy and one of now, each some random noise from the last; completions of random tokens."""
    build_model(BUILD, 0, folder)
    config = ModelConfig(path=str(folder), dtype="float32", attention="sdpa")
    policy, reference = (load_policy(folder, config, TEMPERATURE) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    old = moved(reference.model.state_dict(), generator)
    policy.model.load_state_dict(old)
    rng = np.random.default_rng(0)
    groups = [make_group(folder, policy, rng, index) for index in range(NUM_GROUPS)]
    return Problem(folder, policy, reference, old, moved(old, generator), groups)


def moved(weights: Weights, generator: torch.Generator) -> Weights:
    noise = {name: torch.randn(weight.shape, generator=generator) for name, weight in weights.items()}
    return {name: weight + 0.05 * BUILD.init_std * noise[name] for name, weight in weights.items()}


def make_group(folder: Path, policy: Policy, rng: np.random.Generator, index: int) -> Group:
    """Ragged prompts and completions, the first cut off at the limit; rollout logprobs near the policy's."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "+".join(str(number) for number in rng.integers(0, 60, 1 + 2 * index))
    prompt = Prompt(str(index), np.array(tokenizer(text).input_ids, np.int32), text, grader="none", answer={})
    completions = []
    for length in (MAX_COMPLETION_TOKENS, *rng.integers(1, MAX_COMPLETION_TOKENS, GROUP_SIZE - 1)):
        tokens = rng.integers(2, 60, length).astype(np.int32)
        is_cut_off = length == MAX_COMPLETION_TOKENS
        if not is_cut_off:
            tokens[-1] = tokenizer.eos_token_id
        blank = Completion(tokens, np.zeros(length, np.float32), "length" if is_cut_off else "stop", (0,), "")
        logprobs = logprobs_of(policy, sequences_from_groups([Group(prompt, (blank,))])[0])
        noise = rng.normal(0, 0.2, length).astype(np.float32)
        completions.append(replace(blank, rollout_logprobs=logprobs + noise))
    rewards = rng.normal(size=GROUP_SIZE).astype(np.float32)
    return Group(prompt, tuple(completions), tuple(Reward(float(reward), ()) for reward in rewards))


def logprobs_of(policy: Policy, sequence: TrainingSequence) -> np.ndarray:
    """Of the sequence's completion, nats."""
    batch = pack([sequence], rank=0, num_ranks=1, max_tokens=64, layout="rows")
    with torch.no_grad():
        return policy(*policy_inputs(batch.microbatches[0], torch.device("cpu")))[0].numpy()
