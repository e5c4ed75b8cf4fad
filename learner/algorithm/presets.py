"""Named algorithms as data: the settings of each preset. docs/algorithms.md says when to use each one."""

from __future__ import annotations

from typing import Any

from rollout.types.names import closest

PRESETS: dict[str, dict[str, Any]] = {
    # DeepSeekMath, arXiv:2402.03300, equation 3; its KL is off, as in R1-Zero reproductions that fit one card.
    "grpo": {},
    # Understanding R1-Zero-like training, arXiv:2503.20783, section 3.2: neither std nor length normalisation.
    "dr_grpo": {"advantage_scale": "none", "loss_aggregation": "constant"},
    # arXiv:2503.14476, equations 8 to 13.
    "dapo": {
        "clip_eps_high": 0.28,
        "loss_aggregation": "token_mean",
        "overlong": "soft_punish",
        "resample_rounds": 2,
    },
    # Group sequence policy optimization, arXiv:2507.18071, equations 5 to 7; its bounds are for means over completions.
    "gspo": {"ratio_level": "sequence", "clip_eps_low": 3e-4, "clip_eps_high": 4e-4},
    # MiniMax-M1, arXiv:2506.13585, equations 4 and 5: no lower bound, weights up to 5.
    "cispo": {
        "surrogate": "cispo",
        "clip_eps_low": 1.0,
        "clip_eps_high": 4.0,
        "loss_aggregation": "token_mean",
    },
    # Back to basics, arXiv:2402.14740, section 2.3: REINFORCE on completions, leave-one-out, KL in the reward.
    "rloo": {
        "baseline": "leave_one_out",
        "advantage_scale": "none",
        "surrogate": "policy_gradient",
        "loss_aggregation": "constant",
        "kl_placement": "reward",
        "kl_estimator": "k1",
    },
    # REINFORCE++, arXiv:2501.03262v9, equations 4 and 5: global normalisation, KL in the reward, PPO's clip without a
    # critic.
    "reinforce_pp": {
        "baseline": "batch_mean",
        "advantage_scale": "batch_std",
        "loss_aggregation": "token_mean",
        "kl_beta": 1e-3,
        "kl_placement": "reward",
        "kl_estimator": "k1",
    },
    # PPO, arXiv:1707.06347, as used on language models: arXiv:2203.02155, with GAE, arXiv:1506.02438.
    "ppo": {
        "baseline": "value",
        "advantage_scale": "batch_std",
        "loss_aggregation": "token_mean",
        "kl_beta": 1e-3,
        "kl_placement": "reward",
        "kl_estimator": "k1",
        "value_lr_factor": 10.0,
    },
    # On-policy distillation, arXiv:2306.13649, equation 3 with only on-policy data and the reverse KL: the exact KL to
    # model.teacher at each token of the policy's own completions, and no reward.
    "distill": {
        "surrogate": "none",
        "baseline": "batch_mean",
        "advantage_scale": "none",
        "loss_aggregation": "token_mean",
        "kl_beta": 1.0,
        "kl_estimator": "exact",
    },
}
"""The settings of each preset. The others keep their defaults in AlgorithmConfig, which are GRPO's."""


def preset_settings(name: Any) -> dict[str, Any]:
    """Return the settings of preset ``name``. Raises ValueError, with the most similar name, if it is unknown."""
    if not isinstance(name, str) or name not in PRESETS:
        close = closest(str(name), PRESETS)
        hint = f"did you mean {close!r}? " if close else ""
        raise ValueError(f"preset is {name!r}: {hint}there are {', '.join(PRESETS)}")
    return PRESETS[name]
