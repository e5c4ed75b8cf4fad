"""Alarms about unwanted changes of the policy: collapse, runaway, and a growing logprob gap."""

from __future__ import annotations

from math import isfinite

from orchestrator.config.schema import RunConfig
from orchestrator.records.health.history import History, mean
from orchestrator.records.health.limits import HealthLimits

SOLVED = 0.9
"""From this share of right completions on, low entropy or short completions are not a fault."""
THIRDS = 4.0
"""The alarm is raised if the gap at the end of completions is this many times the gap at their beginning."""
UPDATE_KL = 0.2
"""Limit of the KL between the policies before and during a step's updates, in nats per token: ten times the healthy
limit in docs/metrics.md."""


def entropy_collapse(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that the entropy fell to a small part of its first value while the reward does not rise."""
    fall = collapse("optim/entropy", history, limits)
    if fall is None:
        return None
    return (
        f"The entropy fell from {fall[0]:.3g} to {fall[1]:.3g} nats a token, and the reward does not rise: the "
        "completions of a group are nearly the same. Likely cause: updates that are too large for too long: lower "
        f"learner.learning_rate = {config.learner.learning_rate:g}, raise learner.algorithm.clip_eps_high, or set "
        "learner.algorithm.entropy_beta."
    )


def length_collapse(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that completions shrank to a small part of their first length while the reward does not rise."""
    fall = collapse("rollout/completion_tokens", history, limits)
    if fall is None:
        return None
    return (
        f"The mean completion shrank from {fall[0]:.0f} to {fall[1]:.1f} tokens, and the reward does not rise. Likely "
        "cause: something short earns as much reward as an answer. Look at rollouts/ and rewards.weights; lower "
        f"learner.learning_rate = {config.learner.learning_rate:g}, or set learner.algorithm.kl_beta."
    )


def collapse(key: str, history: History, limits: HealthLimits) -> tuple[float, float] | None:
    """Return the metric's first value and its mean now, if it has fallen lastingly and the reward does not rise."""
    first, values = history.first(key), history.values(key)
    if first is None or not values or max(values) >= first / limits.factor:
        return None
    rewards, before = history.values("reward/total"), history.earlier("reward/total")
    is_rising = bool(rewards and before) and mean(rewards) > mean(before)
    if is_rising or mean(history.values("reward/correctness")) >= SOLVED:
        return None
    return first, mean(values)


def kl_runaway(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that the policy is far from the reference, or moves far within one step."""
    algorithm, rate = config.learner.algorithm, config.learner.learning_rate
    to_reference = history.values(f"optim/kl_{algorithm.kl_estimator}")
    # A teacher may be far: the policy learns to come nearer to it.
    if config.model.teacher is None and to_reference and min(to_reference) > limits.kl:
        return (
            f"The KL to the reference is {mean(to_reference):.3g} nats a token over the last {limits.steps} steps "
            f"(limit {limits.kl:.3g}). Likely cause: the policy runs away from the reference: raise "
            f"learner.algorithm.kl_beta = {algorithm.kl_beta:g}, or lower learner.learning_rate = {rate:g}."
        )
    within = history.values("optim/update_kl_k3")
    if within and min(within) > UPDATE_KL:
        return (
            f"The policy moves by {mean(within):.3g} nats a token within a step. Likely cause: too many or too large "
            f"updates on the same completions: lower learner.updates_per_step = {config.learner.updates_per_step} or "
            f"learner.learning_rate = {rate:g}."
        )
    return None


def gradient_runaway(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that the gradient's norm is many times its first value, and above the clipping limit if there is one."""
    first, values = history.first("optim/grad_norm"), history.values("optim/grad_norm")
    clip, is_clipped = config.learner.max_grad_norm, isfinite(config.learner.max_grad_norm)
    if first is None or not values or not min(values) > max(limits.factor * first, clip if is_clipped else 0.0):
        return None
    how = f"is clipped at learner.max_grad_norm = {clip:g} in every step" if is_clipped else "nothing clips it"
    fix = f"lower learner.learning_rate = {config.learner.learning_rate:g}"
    return (
        f"The gradient's norm grew from {first:.3g} to {mean(values):.3g} and {how}. Likely cause: updates are "
        f"too large: {fix}" + ("." if is_clipped else ", or set learner.max_grad_norm = 1.")
    )


def gap_by_position(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that sampler and learner disagree more at the end of completions than at their beginning."""
    first, last = (history.values(f"rollout/logprob_gap_{third}_third") for third in ("first", "last"))
    if not first or not last or mean(last) < limits.gap:
        return None
    if any(after < THIRDS * before for before, after in zip(first, last, strict=True)):
        return None
    return (
        f"The logprob gap grows by position: {mean(first):.2g} nats in the first third of completions, "
        f"{mean(last):.2g} in the last. Likely cause: generator and learner compute long contexts differently: compare "
        'the model\'s rope settings, its attention (model.attention) and its precision (model.dtype = "float32").'
    )


def gap_by_version(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that sampler and learner disagree more with each policy version."""
    first, values = history.first("rollout/logprob_gap"), history.values("rollout/logprob_gap")
    if first is None or not values or mean(values) < limits.gap or min(values) < limits.factor * first:
        return None
    versions = [int(row["step"]) - 1 for row in history.last]
    cause = (
        f"sampling is behind by up to max_staleness = {config.max_staleness} versions, and versions differ much: "
        f"lower it, or learner.learning_rate = {config.learner.learning_rate:g}"
        if config.max_staleness
        else "published weights differ slightly from the learner's, and the differences add up: restart the "
        'generators, and compare model.dtype = "float32"'
    )
    return (
        f"The logprob gap grows by policy version: {first:.2g} nats in the first step, {mean(values):.2g} with "
        f"versions {versions[0]} to {versions[-1]}. Likely cause: {cause}."
    )
