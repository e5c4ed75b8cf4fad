"""The update in plain PyTorch: no packing, no DeepSpeed, one sequence at a time, formulas written out again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from learner.config import AlgorithmConfig, LearnerConfig
from rollout.types.completions import Group
from tests.support.tiny import MAX_COMPLETION_TOKENS, TEMPERATURE


@dataclass
class Row:
    """One completion."""

    prompt: np.ndarray
    tokens: np.ndarray
    """Of an environment too."""
    mask: np.ndarray
    """Whether the policy wrote each of them."""
    rollout: torch.Tensor
    reward: float
    group: int
    advantages: torch.Tensor | None = None
    returns: torch.Tensor | None = None

    @property
    def length(self) -> int:
        return int(self.mask.sum())


@dataclass
class Said:
    """Return a model's log-probabilities over the vocabulary and its values, for a row's tokens."""

    log_p: torch.Tensor
    tokens: torch.Tensor
    values: torch.Tensor | None

    @property
    def logprobs(self) -> torch.Tensor:
        return self.log_p.gather(1, self.tokens[:, None])[:, 0]


class Critic(torch.nn.Module):
    """Two layers; the last begins at zero, so the first one's weights are what a seed of 0 draws."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(hidden_size, hidden_size), torch.nn.Linear(hidden_size, 1)
        torch.manual_seed(0)
        torch.nn.init.normal_(self.first.weight, std=hidden_size**-0.5)
        for tensor in (self.first.bias, self.last.weight, self.last.bias):
            torch.nn.init.zeros_(tensor)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(hidden)))[:, 0]


def oracle_update(
    folder: Path, config: LearnerConfig, steps: list[list[Group]], teacher: Path | None = None
) -> dict[str, np.ndarray]:
    """Return the weights after one update for each of ``steps``, at a constant learning rate."""
    policy, reference = (AutoModelForCausalLM.from_pretrained(model) for model in (folder, teacher or folder))
    critic = Critic(policy.config.hidden_size) if config.algorithm.baseline == "value" else None
    parameters = [{"params": list(policy.parameters())}]
    if critic is not None:
        factor = config.algorithm.value_lr_factor
        parameters.append({"params": list(critic.parameters()), "lr": config.learning_rate * factor})
    trained = [parameter for group in parameters for parameter in group["params"]]
    optimizer = torch.optim.AdamW(
        parameters, config.learning_rate, config.adam_betas, config.adam_eps, config.weight_decay
    )
    for groups in steps:
        rows = [row for index, group in enumerate(groups) for row in rows_of(group, index)]
        with torch.no_grad():
            old = [say(policy, row, critic) for row in rows]
            # What weighs nothing needs no pass.
            ref = [say(reference, row) for row in rows] if config.algorithm.kl_beta or teacher else old
        credit(rows, old, ref, config.algorithm)
        per_update = len(rows) // config.updates_per_step
        for start in range(0, len(rows), per_update):
            part = range(start, start + per_update)
            now = [(say(policy, rows[i], critic), old[i], ref[i], rows[i]) for i in part]
            loss = step_loss(now, config.algorithm)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
            optimizer.step()
    return {name: parameter.detach().numpy() for name, parameter in policy.named_parameters()}


def rows_of(group: Group, index: int) -> list[Row]:
    rows = []
    for c, r in zip(group.completions, group.rewards, strict=True):
        spans = c.turns or [(0, len(c.token_ids), 0, 0)]
        mask = np.array([any(start <= t < end for start, end, *_ in spans) for t in range(len(c.token_ids))])
        logprobs = torch.from_numpy(c.rollout_logprobs).double()
        rows.append(Row(group.prompt.token_ids, c.token_ids, mask, logprobs, r.total, index))
    return rows


def say(model: torch.nn.Module, row: Row, critic: Critic | None = None) -> Said:
    ids = torch.from_numpy(np.concatenate([row.prompt, row.tokens])).long()
    output = model(input_ids=ids[None], output_hidden_states=True)
    here = slice(len(row.prompt) - 1, -1)
    log_p = (output.logits[0, here] / TEMPERATURE).double().log_softmax(-1)[row.mask]
    values = None if critic is None else critic(output.hidden_states[-1][0, here]).double()[row.mask]
    return Said(log_p, ids[len(row.prompt) :][row.mask], values)


def sample_std(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def credit(rows: list[Row], old: list[Said], ref: list[Said], algorithm: AlgorithmConfig) -> None:
    paid = []
    for row, before, reference in zip(rows, old, ref, strict=True):
        in_reward = algorithm.kl_beta if algorithm.kl_placement == "reward" else 0.0
        rewards = -in_reward * kl(before.logprobs, reference.logprobs, algorithm.kl_estimator)
        rewards[-1] += row.reward
        paid.append(rewards)
    if algorithm.baseline in ("group_mean", "leave_one_out"):
        totals = [rewards.sum().item() for rewards in paid]
        for i, row in enumerate(rows):
            row.advantages = torch.full((row.length,), against_group(i, rows, totals, algorithm))
        return
    for row, before, rewards in zip(rows, old, paid, strict=True):
        n = len(rewards)
        if algorithm.baseline == "batch_mean":
            row.advantages = torch.stack([rewards[t:].sum() for t in range(n)])
            continue
        following = torch.cat([before.values[1:], torch.zeros(1)])
        delta = rewards + algorithm.gae_gamma * following - before.values
        decay = algorithm.gae_gamma * algorithm.gae_lambda
        row.advantages = torch.stack([sum(decay ** (u - t) * delta[u] for u in range(t, n)) for t in range(n)])
        row.returns = row.advantages + before.values
    everything = torch.cat([row.advantages for row in rows]).tolist()
    for row in rows:
        row.advantages = (row.advantages - sum(everything) / len(everything)) / (sample_std(everything) + 1e-4)


def against_group(i: int, rows: list[Row], totals: list[float], algorithm: AlgorithmConfig) -> float:
    group = [total for row, total in zip(rows, totals, strict=True) if row.group == rows[i].group]
    if max(group) == min(group):
        return 0.0
    others = (sum(group) - totals[i]) / (len(group) - 1)
    baseline = others if algorithm.baseline == "leave_one_out" else sum(group) / len(group)
    scale = {"none": 1.0, "group_std": sample_std(group) + 1e-4, "batch_std": sample_std(totals) + 1e-4}
    return (totals[i] - baseline) / scale[algorithm.advantage_scale]


def step_loss(rows: list[tuple[Said, Said, Said, Row]], algorithm: AlgorithmConfig) -> torch.Tensor:
    """Return the loss of an optimizer step, from what policy, old policy and reference say of each row."""
    part = [row for *_, row in rows]
    return sum(row_loss(*each, algorithm).div(denominator(part, each[-1], algorithm)).sum() for each in rows)


def denominator(part: list[Row], row: Row, algorithm: AlgorithmConfig) -> float:
    return {
        "token_mean": sum(other.length for other in part),
        "sequence_mean": row.length * len(part),
        "constant": len(part) * MAX_COMPLETION_TOKENS,
    }[algorithm.loss_aggregation]


def row_loss(now: Said, old: Said, ref: Said, row: Row, algorithm: AlgorithmConfig) -> torch.Tensor:
    logprobs, advantages = now.logprobs, row.advantages
    log_ratio = logprobs - old.logprobs
    if algorithm.ratio_level == "sequence":
        log_ratio = log_ratio.mean().expand(len(logprobs))
    ratio = log_ratio.exp()
    bounded = torch.clip(ratio, 1 - algorithm.clip_eps_low, 1 + algorithm.clip_eps_high)
    loss = {
        "ppo_clip": -torch.min(ratio * advantages, bounded * advantages),
        "cispo": -bounded.detach() * advantages * logprobs,
        "policy_gradient": -advantages * logprobs,
        "none": 0 * logprobs,
    }[algorithm.surrogate]
    if algorithm.mismatch_correction == "truncated":
        loss = loss * (old.logprobs - row.rollout).exp().clip(max=algorithm.mismatch_high)
    loss = loss + algorithm.entropy_beta * (now.log_p.exp() * now.log_p).sum(-1)
    if algorithm.kl_placement == "loss" and algorithm.kl_estimator == "exact":
        loss = loss + algorithm.kl_beta * (now.log_p.exp() * (now.log_p - ref.log_p)).sum(-1)
    elif algorithm.kl_placement == "loss":
        loss = loss + algorithm.kl_beta * kl(logprobs, ref.logprobs, algorithm.kl_estimator)
    if now.values is not None:
        held = old.values + (now.values - old.values).clip(-algorithm.value_clip_eps, algorithm.value_clip_eps)
        error = torch.max((now.values - row.returns) ** 2, (held - row.returns) ** 2)
        loss = loss + algorithm.value_loss_weight * error / 2
    return loss


def kl(logprobs: torch.Tensor, ref: torch.Tensor, estimator: str) -> torch.Tensor:
    if estimator == "k1":
        return logprobs - ref
    if estimator == "k2":
        return (logprobs - ref) ** 2 / 2
    return (ref - logprobs).exp() - 1 - (ref - logprobs)
