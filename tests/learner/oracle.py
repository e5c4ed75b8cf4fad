"""The update in plain PyTorch: no packing, no DeepSpeed, one sequence at a time, formulas written out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from learner.config import LearnerConfig
from rollout.types import Group
from tests.learner.tiny import MAX_COMPLETION_TOKENS, sequence_logprobs


def oracle_update(folder: Path, config: LearnerConfig, steps: list[list[Group]]) -> dict[str, np.ndarray]:
    """The weights after one update for each of ``steps``, at a constant learning rate."""
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder) for _ in range(2))
    optimizer = torch.optim.AdamW(
        policy.parameters(), config.learning_rate, config.adam_betas, config.adam_eps, config.weight_decay
    )
    for groups in steps:
        rows = [row for group in groups for row in _rows(group, config)]
        with torch.no_grad():
            old = [sequence_logprobs(policy, prompt, tokens) for prompt, tokens, _ in rows]
            ref = [sequence_logprobs(reference, prompt, tokens) for prompt, tokens, _ in rows]
        per_update = len(rows) // config.updates_per_step
        for start in range(0, len(rows), per_update):
            part = range(start, start + per_update)
            loss = sum(
                _loss(policy, *rows[i], old[i], ref[i], config, _denominator(rows, part, i, config)) for i in part
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
            optimizer.step()
    return {name: parameter.detach().numpy() for name, parameter in policy.named_parameters()}


def _rows(group: Group, config: LearnerConfig) -> list[tuple[np.ndarray, np.ndarray, float]]:
    rewards = [reward.total for reward in group.rewards]
    mean = sum(rewards) / len(rewards)
    std = (sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)) ** 0.5
    scale = std + 1e-4 if config.algorithm.advantage_scale == "group_std" else 1.0
    credits = [(reward - mean) / scale for reward in rewards]
    return [(group.prompt.token_ids, c.token_ids, credit) for c, credit in zip(group.completions, credits, strict=True)]


def _denominator(rows: list, part: range, i: int, config: LearnerConfig) -> float:
    lengths = [len(rows[j][1]) for j in part]
    return {
        "token_mean": sum(lengths),
        "sequence_mean": len(rows[i][1]) * len(lengths),
        "constant": len(lengths) * MAX_COMPLETION_TOKENS,
    }[config.algorithm.loss_aggregation]


def _loss(policy, prompt, tokens, credit, old, ref, config, denominator) -> torch.Tensor:
    algorithm = config.algorithm
    logprobs = sequence_logprobs(policy, prompt, tokens)
    ratio = (logprobs - old).exp()
    bounded = torch.clip(ratio, 1 - algorithm.clip_eps_low, 1 + algorithm.clip_eps_high)
    surrogate = torch.min(ratio * credit, bounded * credit)
    kl = (ref - logprobs).exp() - 1 - (ref - logprobs)
    return (algorithm.kl_beta * kl - surrogate).sum() / denominator
