"""Metrics of the learner's update."""

from __future__ import annotations

from orchestrator.records.meanings.metric import MetricMeaning as Metric
from orchestrator.records.meanings.metric import MetricSection

OPTIM = MetricSection(
    "optim",
    """Means over tokens are over the tokens in the loss. Completions of groups without spread are
excluded if no KL needs them.""",
    (
        Metric("optim/loss", "reward", "the surrogate loss; on-policy it is near 0 by construction and says little"),
        Metric("optim/grad_norm", "norm", "global 2-norm of the gradient before clipping", "steady",
               "spikes: lower `learner.learning_rate`"),
        Metric("optim/learning_rate", "rate", "learning rate of the step's last optimizer step",
               "as the schedule says"),
        Metric("optim/entropy", "nats", "mean entropy of the sampling distribution, per token", "falls slowly",
               "collapses to 0: lower `learner.learning_rate`, raise `clip_eps_high`"),
        Metric("optim/skipped_updates", "count",
               "optimizer steps left out because a gradient was not finite; log.txt names the microbatch", "0",
               "lower `learner.learning_rate`; look at the prompts that log.txt names"),
        Metric("optim/clip_fraction", "0 to 1",
               "share of tokens whose ratio was clipped; 0 with one optimizer step per step",
               "below 0.2; with GSPO's narrow bounds 0.1 to 0.5",
               "lower `learner.learning_rate` or `updates_per_step`"),
        Metric("optim/kl_beta", "weight", "weight of the KL in this step; moves with `kl_target`", "steady",
               "rises without end: `kl_target` is too low for this learning rate"),
        Metric("optim/kl_<estimator>", "nats",
               "KL(policy ‖ reference) per token by `kl_estimator`: `optim/kl_k1`, `optim/kl_k2`, `optim/kl_k3` or "
               "`optim/kl_exact`; only with `kl_beta` above 0", "grows slowly", "raise `kl_beta`"),
        Metric("optim/masked_completions", "0 to 1",
               'share of completions left out of the loss because they were truncated; 0 unless `overlong = "mask"`',
               "below 0.05", "raise `sampling.max_completion_tokens`"),
        Metric("optim/value_loss", "reward²",
               "the critic's loss per token; only with baseline `value`, like the next three", "falls",
               "raise `value_lr_factor`"),
        Metric("optim/value_explained_variance", "at most 1",
               "1 - variance of the critic's error over the variance of its targets, the GAE returns. With "
               "`gae_lambda` below 1 the targets depend on the critic itself, so values below 0 say little while "
               "`optim/value_loss` falls", "rises", "falls while `optim/value_loss` rises: lower `value_lr_factor`"),
        Metric("optim/value_mean", "reward", "the critic's mean estimate", "near `reward/total`"),
        Metric("optim/value_clip_fraction", "0 to 1", "share of tokens where the critic's loss was bounded",
               "below 0.2", "raise `value_clip_eps`"),
        Metric("optim/update_kl_k3", "nats",
               "k3 estimate of the KL between the policy before and during the step's updates; only with "
               "`updates_per_step` above 1", "below 0.02", "lower `updates_per_step`"),
        Metric("optim/zero_advantage_groups", "0 to 1", "share of groups whose advantages are all 0", "below 0.7",
               "as `rollout/groups_without_spread`"),
        Metric("optim/trained_tokens", "tokens", "completion tokens in the loss"),
        Metric("optim/microbatches", "count", "forward passes of each rank", "",
               "many small ones: raise `learner.max_tokens_per_microbatch`"),
    ),
)  # fmt: skip
