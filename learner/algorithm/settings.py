"""Settings of the algorithm. They are independent; a preset sets several at once."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from learner.algorithm.presets import preset_settings


class Settings(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Base of the learner's settings: frozen; unknown keys and numbers that are not finite are refused."""


class AlgorithmConfig(Settings, frozen=True):
    """How rewards become a loss: independent knobs. A preset sets several at once; docs/algorithms.md compares them.

    The defaults below are those of the preset ``grpo``. A knob that you set takes precedence over the preset.
    """

    preset: str = "grpo"
    """Name of a combination of the other knobs: grpo, dr_grpo, dapo, gspo, cispo, rloo, reinforce_pp, ppo or
    distill."""

    baseline: Literal["group_mean", "leave_one_out", "batch_mean", "value"] = "group_mean"
    """What a reward is compared with: its group's mean (GRPO), the mean of the others in its group (RLOO), the mean of
    the whole step (REINFORCE++), or the critic's estimate at each token (PPO; adds a value head)."""
    advantage_scale: Literal["group_std", "batch_std", "none"] = "group_std"
    """Advantages are divided by the standard deviation of their group (GRPO), by that of the step, or not at all
    (Dr. GRPO)."""
    gae_gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount factor per token for later rewards. Used with ``baseline = "value"``."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """GAE's trade-off of bias and variance: 0 is the one-step estimate, 1 the return. Used with ``baseline =
    "value"``."""

    surrogate: Literal["ppo_clip", "cispo", "policy_gradient", "none"] = "ppo_clip"
    """PPO's clipped ratio, CISPO's clipped weight, which keeps every token's gradient, or the policy gradient without a
    ratio. ``none``: rewards are measured but not learned from, and the KL to ``model.teacher`` is the loss."""
    ratio_level: Literal["token", "sequence"] = "token"
    """One ratio for each token, or the geometric mean over the completion (GSPO)."""
    clip_eps_low: float = Field(default=0.2, ge=0, le=1)
    """The ratio is clipped below at ``1 - clip_eps_low``. Matters with ``updates_per_step`` above 1."""
    clip_eps_high: float = Field(default=0.2, ge=0, allow_inf_nan=True)
    """The ratio is clipped above at ``1 + clip_eps_high``; 0.28 is DAPO's clip-higher; inf: no bound."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Limits the loss of a negative advantage to this multiple of the advantage, for any ratio; 3 is usual."""
    loss_aggregation: Literal["token_mean", "sequence_mean", "constant"] = "sequence_mean"
    """``token_mean`` gives all tokens equal weight (DAPO), ``sequence_mean`` all completions (GRPO), ``constant``
    divides by the number of completions times the sampling limit (Dr. GRPO)."""

    kl_beta: float = Field(default=0.0, ge=0)
    """Weight of the KL to the frozen reference. With 0 no reference is loaded, which saves its memory."""
    kl_placement: Literal["loss", "reward"] = "loss"
    """Add the KL to the loss (GRPO), or subtract it from the reward before advantages are computed (PPO, RLOO)."""
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "k3"
    """Estimator from the sampled tokens, or ``exact`` over the vocabulary. In the loss, k1 has no gradient on average:
    use k2, k3 or exact there; in the reward, k1 is the unbiased one."""
    kl_target: float | None = Field(default=None, gt=0)
    """Target KL per token in nats, to which ``kl_beta`` is adapted after every step. Unset: ``kl_beta`` is constant."""
    reference: Literal["auto", "none", "copy", "offloaded", "base"] = "auto"
    """``copy`` keeps a frozen copy on the device, ``offloaded`` keeps it in CPU memory between uses, ``base`` uses the
    base model under LoRA, without a copy. ``auto``: none if kl_beta is 0, base with LoRA, else copy."""

    mismatch_correction: Literal["auto", "off", "truncated", "masked", "sequence"] = "auto"
    """Weights tokens by learner over sampler probability: ``truncated`` caps the weight at ``mismatch_high`` (TIS),
    ``masked`` drops tokens outside ``mismatch_low..mismatch_high`` (IcePop), ``sequence`` uses one capped weight for
    the whole completion. ``auto``: ``truncated`` if ``max_staleness`` is above 0, else off."""
    mismatch_low: float = Field(default=0.5, ge=0, le=1)
    """Smallest weight that ``masked`` keeps."""
    mismatch_high: float = Field(default=2.0, ge=1, allow_inf_nan=True)
    """Largest weight; 2 is usual for ``truncated`` and ``sequence``, 5 for ``masked``; inf: no bound."""

    entropy_beta: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus per token. Above 0 every completion gets a forward pass, also those with advantage
    0."""
    overlong: Literal["keep", "mask", "soft_punish"] = "keep"
    """What to do with truncated completions: train on them (``keep``), leave them out of the loss (``mask``), or
    subtract up to 1 from the reward of completions within ``overlong_buffer_tokens`` of the limit (``soft_punish``,
    DAPO)."""
    overlong_buffer_tokens: int = Field(default=0, ge=0)
    """Number of tokens before the limit where ``soft_punish`` starts. 0: a fifth of the limit."""
    resample_rounds: int = Field(default=0, ge=0)
    """DAPO's dynamic sampling: replace groups without spread by groups of new prompts, in at most this number of
    further rounds. Every round costs a rollout."""

    value_loss_weight: float = Field(default=0.5, ge=0)
    """Weight of the critic's loss. Used with ``baseline = "value"``."""
    value_clip_eps: float | None = Field(default=0.2, gt=0)
    """Largest change of the critic's estimate, compared with its estimate before the step's updates."""
    value_lr_factor: float = Field(default=1.0, gt=0)
    """The value head's learning rate, as a multiple of the policy's. The head starts untrained, so raise it."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return preset_settings(data.get("preset", "grpo")) | data

    @model_validator(mode="after")
    def _knobs_go_together(self) -> Self:
        if self.kl_beta > 0 and self.reference == "none":
            raise ValueError(
                f'reference is "none" with kl_beta {self.kl_beta:g}: a KL needs a reference; set reference = "auto", '
                "or kl_beta = 0"
            )
        if self.kl_target is not None and self.kl_beta == 0:
            raise ValueError(
                f"kl_target is {self.kl_target:g} with kl_beta 0, which cannot be adapted by a factor: set kl_beta to "
                "its initial value, such as 0.01"
            )
        if self.resample_rounds > 0 and not self.needs_groups:
            raise ValueError(
                f'resample_rounds is {self.resample_rounds} with baseline "{self.baseline}", which also learns from '
                "groups without spread: set resample_rounds = 0"
            )
        if self.kl_estimator == "exact" and self.kl_placement == "reward":
            raise ValueError(
                'kl_estimator is "exact" with kl_placement "reward", which needs the KL of the sampled tokens; set '
                'kl_estimator = "k1", or kl_placement = "loss"'
            )
        if self.surrogate == "none" and (self.kl_beta == 0 or self.kl_placement == "reward"):
            raise ValueError(
                'surrogate is "none" without a KL in the loss, so nothing would be learned: set kl_beta = 1, and '
                'kl_placement = "loss"'
            )
        if self.advantage_scale == "group_std" and self.baseline in ("batch_mean", "value"):
            raise ValueError(
                f'advantage_scale is "group_std" with baseline "{self.baseline}", which has no groups: set '
                'advantage_scale = "batch_std" or "none"'
            )
        return self

    @property
    def uses_critic(self) -> bool:
        return self.baseline == "value"

    @property
    def advantages_need_logprobs(self) -> bool:
        """Whether advantages depend on the policy, the critic or the reference, which must then be computed first."""
        return self.uses_critic or (self.kl_beta > 0 and self.kl_placement == "reward")

    @property
    def skips_zero_advantage(self) -> bool:
        """Whether a completion of advantage 0 has no gradient, and is not computed."""
        has_kl_loss = self.kl_beta > 0 and self.kl_placement == "loss"
        return not (has_kl_loss or self.uses_critic or self.entropy_beta > 0)

    @property
    def learns_from_rewards(self) -> bool:
        return self.surrogate != "none"

    @property
    def needs_groups(self) -> bool:
        """Whether advantages compare completions of one prompt. Each prompt then needs several completions."""
        return self.baseline in ("group_mean", "leave_one_out")
