"""The formulas of the papers, token by token, in Python floats: what the learner's tests hold it against.

No torch, no numpy, and nothing of the learner but its settings. Functions that end in ``_slope`` are derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from learner.algorithm.settings import AlgorithmConfig

Floats = list[float]
STD_EPS = 1e-4
"""What the learner adds to standard deviations; the papers divide by these alone."""


def clip(x: float, low: float, high: float) -> float:
    return low if x < low else high if x > high else x


def mean(values: Floats) -> float:
    return math.fsum(values) / len(values)


def sample_std(values: Floats) -> float:
    if len(values) == 1:
        return 0.0
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


# --- surrogates, as losses: minus the papers' objectives ---


def token_ratio(new: float, old: float) -> float:
    """``pi(token) / pi_old(token)``."""
    return math.exp(new) / math.exp(old)


def sequence_ratio(new: Floats, old: Floats) -> float:
    """GSPO, arXiv:2507.18071, equation 7: the ratio of the completions' probabilities, to the power ``1 / |y|``."""
    ratio = 1.0
    for new_t, old_t in zip(new, old, strict=True):
        ratio *= token_ratio(new_t, old_t)
    return ratio ** (1 / len(new))


def ppo_clip(ratio: float, advantage: float, eps_low: float, eps_high: float, dual_clip: float | None = None) -> float:
    """arXiv:1707.06347, equation 7; arXiv:2503.14476, equation 8; arXiv:1912.09729, equation 5."""
    objective = min(ratio * advantage, clip(ratio, 1 - eps_low, 1 + eps_high) * advantage)
    if advantage < 0 and dual_clip is not None:
        objective = max(objective, dual_clip * advantage)
    return -objective


def is_clipped(ratio: float, advantage: float, eps_low: float, eps_high: float, dual_clip: float | None = None) -> bool:
    """Return whether the ratio has gone as far as the advantage may drive it, or too far for a dual clip."""
    if advantage > 0:
        return ratio > 1 + eps_high
    return advantage < 0 and (ratio < 1 - eps_low or (dual_clip is not None and ratio > dual_clip))


def ppo_clip_slope(
    ratio: float, advantage: float, eps_low: float, eps_high: float, dual_clip: float | None = None
) -> float:
    """By the log of the ratio."""
    return 0.0 if is_clipped(ratio, advantage, eps_low, eps_high, dual_clip) else -ratio * advantage


def cispo_weight(ratio: float, eps_low: float, eps_high: float) -> float:
    """arXiv:2506.13585, equation 5. The loss is ``-weight * advantage * logprob``, its slope the first two of these."""
    return clip(ratio, 1 - eps_low, 1 + eps_high)


# --- divergences ---


def kl(log_p: float, log_q: float, estimator: str) -> float:
    """Schulman, "Approximating KL divergence", of KL(p || q) at a token that p sampled; his ``r`` is ``q / p``."""
    r = math.exp(log_q) / math.exp(log_p)
    return {"k1": -math.log(r), "k2": math.log(r) ** 2 / 2, "k3": (r - 1) - math.log(r)}[estimator]


def kl_slope(log_p: float, log_q: float, estimator: str) -> float:
    """By ``log_p``."""
    return {"k1": 1.0, "k2": log_p - log_q, "k3": 1 - math.exp(log_q) / math.exp(log_p)}[estimator]


def exact_kl(log_p: Floats, log_q: Floats) -> float:
    """KL(p || q) over the vocabulary."""
    return math.fsum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))


# --- weights for what the sampler's own distribution was ---


def mismatch_weights(old: Floats, rollout: Floats, correction: str, low: float, high: float) -> tuple[Floats, int]:
    """Of a completion's tokens, and how many of them a bound was taken for."""
    weights = [token_ratio(old_t, rollout_t) for old_t, rollout_t in zip(old, rollout, strict=True)]
    if correction == "masked":  # arXiv:2510.18855, section 2.3.2, equation 2
        outside = [not low <= weight <= high for weight in weights]
        return [0.0 if is_out else weight for weight, is_out in zip(weights, outside, strict=True)], sum(outside)
    if correction == "sequence":
        product = 1.0
        for weight in weights:
            product *= weight
        weights = [product] * len(weights)
    return [min(weight, high) for weight in weights], sum(weight > high for weight in weights)


# --- the critic ---


def value_loss(value: float, old_value: float, target: float, clip_eps: float | None) -> float:
    """Half of the greater of two squared errors, that of the value and that of the value within its bounds."""
    errors = [(value - target) ** 2]
    if clip_eps is not None:
        errors.append((clip(value, old_value - clip_eps, old_value + clip_eps) - target) ** 2)
    return max(errors) / 2


def value_is_clipped(value: float, old_value: float, target: float, clip_eps: float | None) -> bool:
    if clip_eps is None or abs(value - old_value) <= clip_eps:
        return False
    bound = old_value + math.copysign(clip_eps, value - old_value)
    return abs(bound - target) > abs(value - target)


def value_loss_slope(value: float, old_value: float, target: float, clip_eps: float | None) -> float:
    return 0.0 if value_is_clipped(value, old_value, target, clip_eps) else value - target


# --- tokens to one number ---


def aggregated(losses: list[Floats], mode: str, limit: int) -> float:
    """Return the mean of the losses.

    ``token_mean``: over all tokens. ``sequence_mean``: over completions of means over their tokens. ``constant``:
    over completions of sums over their tokens, each sum divided by the sampling limit.
    """
    if not losses:
        return 0.0
    if mode == "token_mean":
        return mean([loss for of_completion in losses for loss in of_completion])
    if mode == "sequence_mean":
        return mean([mean(of_completion) for of_completion in losses])
    return mean([math.fsum(of_completion) / limit for of_completion in losses])


# --- rewards to advantages ---


def group_relative(rewards: Floats) -> Floats:
    """Rewards less their group's mean: the numerator of arXiv:2402.03300, section 4.1.2."""
    return [reward - mean(rewards) for reward in rewards]


def leave_one_out(rewards: Floats) -> Floats:
    """arXiv:2402.14740, section 2.3: each reward less the mean of the others."""
    return [reward - mean(rewards[:i] + rewards[i + 1 :]) for i, reward in enumerate(rewards)]


def group_advantages(groups: list[Floats], baseline: str, scale: str) -> list[Floats]:
    """Return advantages; a group without spread has none to give. ``batch_std`` is that of all rewards of the step."""
    all_rewards = [reward for rewards in groups for reward in rewards]
    found = []
    for rewards in groups:
        if min(rewards) == max(rewards):
            found.append([0.0] * len(rewards))
            continue
        centred = {"group_mean": group_relative, "leave_one_out": leave_one_out}[baseline](rewards)
        scales = {"group_std": rewards, "batch_std": all_rewards}
        divisor = sample_std(scales[scale]) + STD_EPS if scale in scales else 1.0
        found.append([each / divisor for each in centred])
    return found


def token_rewards(reward: float, kls: Floats, kl_beta: float) -> Floats:
    """arXiv:2203.02155, equation 2, spread over tokens: each pays for its own KL, the last one gets the reward."""
    last = len(kls) - 1
    return [(reward if t == last else 0.0) - kl_beta * kl_t for t, kl_t in enumerate(kls)]


def returns_to_go(rewards: Floats) -> Floats:
    return [math.fsum(rewards[t:]) for t in range(len(rewards))]


def gae(rewards: Floats, values: Floats, gamma: float, lam: float) -> Floats:
    """arXiv:1506.02438, equation 16: the sum over ``l`` of ``(gamma lam)^l delta_{t+l}``; V is 0 after the end."""
    n = len(rewards)

    def delta(t: int) -> float:
        return rewards[t] + gamma * (values[t + 1] if t + 1 < n else 0.0) - values[t]

    return [math.fsum((gamma * lam) ** step * delta(t + step) for step in range(n - t)) for t in range(n)]


def whitened(advantages: list[Floats], *, centre: bool, scale: bool) -> list[Floats]:
    """Over all tokens of the step."""
    tokens = [advantage for of_completion in advantages for advantage in of_completion]
    middle = mean(tokens) if centre else 0.0
    divisor = sample_std(tokens) + STD_EPS if scale else 1.0
    return [[(advantage - middle) / divisor for advantage in of_completion] for of_completion in advantages]


def soft_overlong_punishment(length: int, limit: int, cache: int) -> float:
    """arXiv:2503.14476, equation 13, case by case."""
    if length <= limit - cache:
        return 0.0
    if length <= limit:
        return ((limit - cache) - length) / cache
    return -1.0


def adapted_kl_beta(kl_beta: float, kl: float, target: float) -> float:
    """arXiv:1909.08593, section 2.2, with its ``K_beta`` of 0.1."""
    error = clip((kl - target) / target, -0.2, 0.2)
    return kl_beta * (1 + 0.1 * error)


# --- completions to a loss ---


@dataclass(frozen=True)
class Row:
    """A completion: for each of its tokens what the policy says now, and what was known before."""

    logprobs: Floats
    entropy: Floats
    values: Floats
    reference_kl: Floats
    rollout: Floats
    advantages: Floats
    old: Floats | None = None
    ref: Floats | None = None
    old_values: Floats | None = None
    returns: Floats | None = None
    is_masked: bool = False


SAID = ("logprobs", "entropy", "values", "reference_kl")
"""The fields that the loss is differentiated by."""


@dataclass(frozen=True)
class Frozen:
    """The constants of the gradient: a completion's old log-probabilities, and the weights of its tokens."""

    old: Floats
    mismatch: Floats
    cispo: Floats


def ratios_of(row: Row, old: Floats, config: AlgorithmConfig) -> Floats:
    if config.ratio_level == "sequence":
        return [sequence_ratio(row.logprobs, old)] * len(old)
    return [token_ratio(new_t, old_t) for new_t, old_t in zip(row.logprobs, old, strict=True)]


def frozen_at(row: Row, config: AlgorithmConfig) -> Frozen:
    old = list(row.logprobs) if row.old is None else row.old
    weights = [1.0] * len(old)
    if config.mismatch_correction not in ("auto", "off"):
        bounds = config.mismatch_low, config.mismatch_high
        weights, _ = mismatch_weights(old, row.rollout, config.mismatch_correction, *bounds)
    bounds = config.clip_eps_low, config.clip_eps_high
    return Frozen(old, weights, [cispo_weight(ratio, *bounds) for ratio in ratios_of(row, old, config)])


def token_losses(row: Row, frozen: Frozen, config: AlgorithmConfig, kl_beta: float) -> Floats:
    """Return a completion's losses, of policy and critic."""
    bounds = config.clip_eps_low, config.clip_eps_high, config.dual_clip
    ratios = ratios_of(row, frozen.old, config)
    losses = []
    for t, (logprob, advantage) in enumerate(zip(row.logprobs, row.advantages, strict=True)):
        if config.surrogate == "ppo_clip":
            loss = ppo_clip(ratios[t], advantage, *bounds)
        elif config.surrogate == "none":
            loss = 0.0
        else:
            loss = -(frozen.cispo[t] if config.surrogate == "cispo" else 1.0) * advantage * logprob
        loss = frozen.mismatch[t] * loss - config.entropy_beta * row.entropy[t]
        if kl_beta and config.kl_placement == "loss":
            is_exact = config.kl_estimator == "exact"
            loss += kl_beta * (row.reference_kl[t] if is_exact else kl(logprob, row.ref[t], config.kl_estimator))
        if config.baseline == "value":
            critic = value_loss(row.values[t], row.old_values[t], row.returns[t], config.value_clip_eps)
            loss += config.value_loss_weight * critic
        losses.append(loss)
    return losses


def objective(
    rows: list[Row], config: AlgorithmConfig, kl_beta: float, limit: int
) -> tuple[float, dict[str, list[Floats]]]:
    """Return the loss of an optimizer step, and its derivatives by each field of ``SAID`` for each row."""
    frozen = [frozen_at(row, config) for row in rows]
    losses = {i: token_losses(row, frozen[i], config, kl_beta) for i, row in enumerate(rows) if not row.is_masked}

    def slope(i: int, name: str, t: int) -> float:
        if i not in losses:
            return 0.0

        def loss_at(x: float) -> float:
            said = list(getattr(rows[i], name))
            said[t] = x
            moved = token_losses(replace(rows[i], **{name: said}), frozen[i], config, kl_beta)
            return aggregated(list((losses | {i: moved}).values()), config.loss_aggregation, limit)

        return derivative(loss_at, getattr(rows[i], name)[t])

    slopes = {
        name: [[slope(i, name, t) for t in range(len(row.old or row.logprobs))] for i, row in enumerate(rows)]
        for name in SAID
    }
    return aggregated(list(losses.values()), config.loss_aggregation, limit), slopes


def derivative(function: Callable[[float], float], x: float, step: float = 1e-5) -> float:
    """By differences of fourth order; ``function`` must be smooth within two steps of ``x``."""
    near = function(x + step) - function(x - step)
    far = function(x + 2 * step) - function(x - 2 * step)
    return (8 * near - far) / (12 * step)


def has_kink_nearby(row: Row, config: AlgorithmConfig, reach: float = 1e-4) -> bool:
    """Return whether a bound is so near that the loss has two slopes, or that rounding decides about a weight."""
    old = row.logprobs if row.old is None else row.old
    low, high = config.mismatch_low, config.mismatch_high
    corners = [(ratio, bound) for ratio in ratios_of(row, old, config) for bound in _ratio_bounds(config)]
    corners += [
        (token_ratio(old_t, at), bound) for old_t, at in zip(old, row.rollout, strict=True) for bound in (low, high)
    ]
    corners.append((sequence_ratio(old, row.rollout) ** len(old), high))
    eps = config.value_clip_eps
    if config.baseline == "value" and eps is not None:
        for value, old_value, target in zip(row.values, row.old_values, row.returns, strict=True):
            bound = clip(value, old_value - eps, old_value + eps)
            corners.append((abs(value - old_value), eps))
            if bound != value:
                corners.append((abs(value - target), abs(bound - target)))
    return any(abs(at - corner) < reach for at, corner in corners)


def _ratio_bounds(config: AlgorithmConfig) -> Floats:
    dual = [] if config.dual_clip is None else [config.dual_clip]
    return [1 - config.clip_eps_low, 1 + config.clip_eps_high, *dual]


# --- scored groups to advantages ---


@dataclass(frozen=True)
class Scored:
    """A completion before its advantages."""

    group: int
    reward: float
    old: Floats
    ref: Floats
    values: Floats


def credit(scored: list[Scored], config: AlgorithmConfig, kl_beta: float, limit: int) -> list[tuple[Floats, Any]]:
    """Return each completion's token advantages, and the critic's returns or None, in order of their groups."""
    paid = [token_rewards(_reward(one, config, limit), _kls(one, config), kl_beta) for one in scored]
    if config.baseline in ("group_mean", "leave_one_out"):
        members = [[i for i, one in enumerate(scored) if one.group == g] for g in sorted({one.group for one in scored})]
        totals = [[math.fsum(paid[i]) for i in of_group] for of_group in members]
        of_groups = group_advantages(totals, config.baseline, config.advantage_scale)
        flat = [advantage for of_group in of_groups for advantage in of_group]
        return [([advantage] * len(one.old), None) for advantage, one in zip(flat, scored, strict=True)]
    scale = config.advantage_scale == "batch_std"
    if config.baseline == "batch_mean":
        to_go = [returns_to_go(rewards) for rewards in paid]
        return [(advantages, None) for advantages in whitened(to_go, centre=True, scale=scale)]
    decay = config.gae_gamma, config.gae_lambda
    raw = [gae(rewards, one.values, *decay) for rewards, one in zip(paid, scored, strict=True)]
    returns = [
        [a + v for a, v in zip(of_one, one.values, strict=True)] for of_one, one in zip(raw, scored, strict=True)
    ]
    return list(zip(whitened(raw, centre=scale, scale=scale), returns, strict=True))


def _reward(one: Scored, config: AlgorithmConfig, limit: int) -> float:
    if config.overlong != "soft_punish":
        return one.reward
    cache = config.overlong_buffer_tokens or max(1, limit // 5)
    return one.reward + soft_overlong_punishment(len(one.old), limit, cache)


def _kls(one: Scored, config: AlgorithmConfig) -> Floats:
    if config.kl_beta == 0 or config.kl_placement == "loss":
        return [0.0] * len(one.old)
    return [kl(old_t, ref_t, config.kl_estimator) for old_t, ref_t in zip(one.old, one.ref, strict=True)]
