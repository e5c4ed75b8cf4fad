"""Metrics of the run's health: which alarms hold."""

from __future__ import annotations

from orchestrator.records.meanings.metric import MetricMeaning as Metric
from orchestrator.records.meanings.metric import MetricSection

HEALTH = MetricSection(
    "health",
    """An alarm is reported once, in the terminal and in log.txt, with its likely cause and the setting to
change ([health](health.md)). From then on its key is logged: 1 while it holds, 0 when it no longer
does.""",
    (
        Metric("health/alarms", "count", "alarms that hold after this step", "0", "log.txt has their messages"),
        Metric("health/no_spread", "0 or 1", "nearly all groups are all right, or all wrong", "absent",
               "the message says which, and why"),
        Metric("health/cut_off", "0 or 1", "most completions are truncated", "absent",
               "raise `sampling.max_completion_tokens`, or set `sampling.stop`"),
        Metric("health/wrong_format", "0 or 1", "the format is near 0, though right answers occur in the text",
               "absent",
               "show the format, teach it, or set `prompts.format = \"natural\"`"),
        Metric("health/constant_part", "0 or 1", "a reward part with a weight is the same for every completion",
               "absent", "fix the function, or remove its weight"),
        Metric("health/entropy_collapse", "0 or 1", "`optim/entropy` fell to a tenth, and the reward does not rise",
               "absent", "lower `learner.learning_rate`, raise `clip_eps_high`"),
        Metric("health/length_collapse", "0 or 1",
               "`rollout/completion_tokens` fell to a tenth, and the reward does not rise", "absent",
               "look at `rewards.weights`"),
        Metric("health/kl_runaway", "0 or 1", "the policy is far from the reference, or goes far within a step",
               "absent", "raise `kl_beta`, lower `learner.learning_rate` or `updates_per_step`"),
        Metric("health/gradient_runaway", "0 or 1", "`optim/grad_norm` is ten times what it was, and always clipped",
               "absent", "lower `learner.learning_rate`"),
        Metric("health/gap_by_position", "0 or 1", "`rollout/logprob_gap` grows towards the end of completions",
               "absent", "compare rope settings, attention and dtype of generator and learner"),
        Metric("health/gap_by_version", "0 or 1", "`rollout/logprob_gap` grows from version to version", "absent",
               "restart the generators; with `max_staleness`, lower it"),
        Metric("health/failing_grader", "0 or 1", "a reward part fails or times out too often", "absent",
               "log.txt has the exception or the prompt"),
        Metric("health/slow_grader", "0 or 1", "steps wait for grades; the message names the slowest grader", "absent",
               "raise `rewards.num_workers`"),
    ),
)  # fmt: skip
