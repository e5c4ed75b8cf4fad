"""Alarms about the learning signal: groups without spread, truncated completions, formats, constant parts."""

from __future__ import annotations

from collections.abc import Sequence

from learner.parity import SMALLER_UPDATES
from orchestrator.config.schema import RunConfig
from orchestrator.records.health.grading import FAILED
from orchestrator.records.health.history import History, Row, mean, mean_of, named
from orchestrator.records.health.limits import HealthLimits

SOME = 0.05
"""A larger share of completions is not chance; a format with a smaller share is near 0."""
BROKEN_FROM, BROKEN_TO = 0.2, 4.0
"""A policy is broken if its share of right completions once reached the first number, and is now smaller than its
highest share divided by the second."""
BEST = {
    "correctness": 1.0,
    "answer_tags": 1.0,
    "format": 1.0,
    "closeness": 1.0,
    "process": 1.0,
    "score": 1.0,
    "tests_passed": 1.0,
    "words": 1.0,
    "tool_called": 1.0,
    "tool_used": 1.0,
    "guessed": 1.0,
    "tag_pairs": 2.0,
    "length": 0.0,
    "repetition": 0.0,
    "tool_failures": 0.0,
    "env_refused": 0.0,
}
"""The best value of each built-in part that has one. If all completions have it, the part is learned, not broken."""


def share_without_signal(row: Row, config: RunConfig) -> float:
    """Return the share of a step's training that teaches nothing; 0 if the row does not show it."""
    algorithm = config.learner.algorithm
    if is_masked(row) or is_skipped(row, config):
        return 1.0
    if not algorithm.learns_from_rewards:
        return 0.0
    if not algorithm.needs_groups:  # compared with the whole step, or with the critic
        return float(row.get("reward/std/total") == 0.0)
    sampled = config.prompts_per_step + row.get("rollout/replaced_groups", 0.0)
    with_spread = sampled * (1.0 - row.get("rollout/groups_without_spread", 0.0))
    return round(1.0 - with_spread / config.prompts_per_step, 9)


def is_masked(row: Row) -> bool:
    """Return whether every completion was left out of the loss because it was truncated."""
    return row.get("optim/masked_completions") == 1.0


def is_skipped(row: Row, config: RunConfig) -> bool:
    """Return whether every update was skipped because a gradient was not finite."""
    return row.get("optim/skipped_updates", 0.0) >= config.learner.updates_per_step


def no_spread(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that nearly all groups have no spread: all completions right, or all wrong."""
    rows = history.last
    if len(rows) < limits.steps or any(share_without_signal(row, config) < limits.without_spread for row in rows):
        return None
    return without_signal(rows, history, config, limits)


def without_signal(rows: list[Row], history: History, config: RunConfig, limits: HealthLimits) -> str:
    """Return a message for `rows`, steps that taught nothing: the observation, the cause, and what to change."""
    skipped, masked = sum(is_skipped(row, config) for row in rows), sum(map(is_masked, rows))
    if 2 * skipped > len(rows):
        return (
            f"In {skipped} of the last {len(rows)} steps every update was skipped, because its gradient was not "
            "finite; log.txt names the microbatches. Likely cause: updates are too large, or the precision is too low. "
            f"{SMALLER_UPDATES}."
        )
    if 2 * masked > len(rows):
        return (
            f"In {masked} of the last {len(rows)} steps every completion was truncated, and left out of the loss "
            f'(learner.algorithm.overlong = "mask"). {cause(rows, history, config, limits)}'
        )
    share = mean([share_without_signal(row, config) for row in rows])
    right, wrong = (mean_of(rows, f"rollout/groups_all_{how}") for how in ("right", "wrong"))
    how = f"; {percent(wrong)} of the groups are all wrong, {percent(right)} all right" if right or wrong else ""
    steps = f"over the last {len(rows)} steps" if len(rows) > 1 else "in the last step"
    return f"{percent(share)} of the groups teach nothing {steps}, as their rewards do not differ{how}. " + cause(
        rows, history, config, limits
    )


def cause(rows: list[Row], history: History, config: RunConfig, limits: HealthLimits) -> str:
    """Return the likely cause of groups without spread, and the setting to change."""
    failed = max((mean_of(rows, key) for key in named(FAILED, rows[-1]).values()), default=0.0)
    if failed >= 0.5:
        return f"Likely cause: {percent(failed)} of the completions could not be graded; log.txt names the function."
    broken = broken_advice(rows, history, config)
    if broken is not None:
        return broken
    if mean_of(rows, "optim/masked_completions") == 1.0 or mean_of(rows, "rollout/truncated") >= limits.truncated:
        return cut_off_advice(rows, config)
    if "reward/correctness" not in rows[-1]:
        return (
            f"Likely cause: every completion gets the same reward, {mean_of(rows, 'reward/total'):.3g}. Look at the "
            "parts under reward/, and reward something in which completions differ (rewards.weights)."
        )
    right = mean_of(rows, "reward/correctness")
    if right >= 0.5:
        return (
            "Likely cause: the problems are too easy, or everything is learned. Use harder problems (the task's "
            "settings under prompts, prompts.curriculum), or end the run here."
        )
    if mean_of(rows, "reward/right_untagged") >= SOME:
        return format_advice(rows, config)
    return (
        f"Likely cause: the problems are too hard; {percent(right)} of the completions are right. Use easier problems "
        "(the task's settings under prompts, prompts.curriculum), teach the model first (`rayzero sft`, "
        f"warm_start.data), or raise group_size = {config.group_size}."
    )


def broken_advice(rows: Sequence[Row], history: History, config: RunConfig) -> str | None:
    """Return the advice for a policy that was much better before; None if it was not, or problems became harder."""
    before, now = history.highest("reward/correctness") or 0.0, mean_of(rows, "reward/correctness")
    if before < BROKEN_FROM or now > before / BROKEN_TO or config.prompts.curriculum.stages:
        return None
    return (
        f"Likely cause: an update broke the policy: {percent(before)} of its completions were right before, "
        f"{percent(now)} are now. Lower learner.learning_rate = {config.learner.learning_rate:g}, and start again "
        "under another name."
    )


def cut_off(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that most completions are truncated."""
    shares = history.values("rollout/truncated")
    if not shares or min(shares) < limits.truncated:
        return None
    return (
        f"{percent(mean(shares))} of the completions were truncated over the last {len(shares)} steps. "
        f"{broken_advice(history.last, history, config) or cut_off_advice(history.last, config)}"
    )


def cut_off_advice(rows: Sequence[Row], config: RunConfig) -> str:
    """Return the limit that most of the truncated completions reached, and what to do."""
    if 2 * mean_of(rows, "rollout/out_of_turns") > mean_of(rows, "rollout/truncated"):
        return (
            f"Likely cause: environment.max_turns = {config.environment.max_turns} is too few to come to an end: raise "
            "it, or show in the prompt how to end."
        )
    return (
        f"Likely cause: sampling.max_completion_tokens = {config.sampling.max_completion_tokens} is too few to reach "
        "an answer: raise it. If completions continue after their answer, set sampling.stop."
    )


def wrong_format(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that the format is near 0, although right answers occur in the text."""
    part = next((name for name in ("format", "answer_tags") if config.rewards.weights.get(name)), None)
    right, untagged = history.values("reward/correctness"), history.values("reward/right_untagged")
    if not right or not untagged:
        return None
    if part is None:  # nothing rewards the format, but answers outside the tags count as wrong
        if mean(untagged) < max(SOME, 4 * mean(right)):
            return None
    else:
        shares = history.values(f"reward/{part}")
        if not shares or max(shares) > SOME or max(mean(right), mean(untagged)) < SOME:
            return None
    return (
        f"Over the last {limits.steps} steps {percent(max(mean(right), mean(untagged)))} of the completions hold the "
        f"right answer, but almost none has the required format. {format_advice(history.last, config)}"
    )


def format_advice(rows: Sequence[Row], config: RunConfig) -> str:
    return (
        f"Likely cause: the model does not write the tags that the reward reads (see rollouts/; prompts.format = "
        f'"{config.prompts.format}"). Show the format (prompts.format = "one_shot"), require none '
        '(prompts.format = "natural"), or teach it (`rayzero sft`, warm_start.data).'
    )


def constant_part(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that a reward part with a weight never varies, while others do."""
    total = history.values("reward/std/total") if config.learner.algorithm.learns_from_rewards else []
    if not total or max(total) == 0.0:  # no part varies: `no_spread` reports that
        return None
    constant = {}
    for name in (name for name, weight in config.rewards.weights.items() if weight):
        values, spread = history.values(f"reward/{name}"), history.values(f"reward/std/{name}")
        if (
            values
            and spread
            and max(spread) == 0.0
            and max(values) - min(values) < 1e-9
            and values[0] != BEST.get(name)
        ):
            constant[name] = values[0]
    if not constant:
        return None
    shown = ", ".join(f"{name} = {value:.3g}" for name, value in constant.items())
    first = next(iter(constant))
    how, fix = ("always", "Fix") if constant[first] else ("never", "Make the problems easier, fix")
    advice = (
        f"Likely cause: the model {how} earns it, or its function does not read what the model writes (see rollouts/). "
        f"{fix} the function, or remove rewards.weights.{first}."
    )
    return (
        f"Reward parts that are the same for every completion of the last {limits.steps} steps: {shown}. Nothing is "
        f"learned from them, only from the other parts. {broken_advice(history.last, history, config) or advice}"
    )


def percent(share: float) -> str:
    return f"{100 * share:.0f}%"
