"""The settings of trl_grpo_loss.py: where Rayzero and TRL must agree, and where they mean different things."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks.peers.problem import GROUP_SIZE, Settings
from learner.algorithm.settings import AlgorithmConfig


@dataclass(frozen=True)
class Case:
    """One algorithm in both projects' words."""

    name: str
    ours: Settings
    theirs: Settings
    on_policy: bool = False
    """The policy before the update is the policy now; else its weights have moved, so that ratios leave 1."""
    microbatches: int = 2
    """TRL's."""
    factor: float = 1.0
    """TRL's loss is multiplied by it."""
    flat_reward: float = 1.0
    """Every reward of the group without spread."""
    note: str = ""
    """Why the two must differ; empty where they must be equal."""


def equal_cases() -> Iterator[Case]:
    """Every algorithm with three pairs of bounds, with and without KL, off policy; its preset on policy; and extras."""
    grpo, dr_grpo, dapo, cispo = their_losses()
    algorithms = {
        "grpo": (grpo, [(0.2, 0.2), (0.2, 0.28), (0.05, 0.4)]),
        "dr_grpo": (dr_grpo, [(0.2, 0.2), (0.2, 0.28), (0.05, 0.4)]),
        "dapo": (dapo, [(0.2, 0.28), (0.2, 0.2), (0.05, 0.4)]),
        "gspo": (grpo | {"importance_sampling_level": "sequence"}, [(3e-4, 4e-4), (0.02, 0.05), (0.2, 0.2)]),
        "cispo": (cispo, [(1.0, 4.0), (1.0, 0.5), (1.0, 0.1)]),
    }
    for preset, (theirs, pairs) in algorithms.items():
        for (low, high), beta in product(pairs, (0.0, 0.04)):
            ours: Settings = {"preset": preset, "clip_eps_low": low, "clip_eps_high": high, "kl_beta": beta}
            yield case(f"{preset}, eps {low:g} {high:g}, beta {beta:g}", ours, theirs)
        yield case(f"{preset}, on policy, beta 0.04", {"preset": preset, "kl_beta": 0.04}, theirs, on_policy=True)
    yield case("grpo, dual clip 1.5", {"dual_clip": 1.5}, grpo | {"delta": 1.5})
    yield case("grpo, std of the batch", {"advantage_scale": "batch_std"}, grpo | {"scale_rewards": "batch"})
    mask = {"mask_truncated_completions": True}
    yield case("dapo, truncated masked", {"preset": "dapo", "overlong": "mask"}, dapo | mask)
    factor = GROUP_SIZE / (GROUP_SIZE - 1)
    yield case("grpo, truncated masked, x 6/5", {"overlong": "mask"}, grpo | mask, factor=factor)
    ours = {"preset": "dr_grpo", "overlong": "mask"}
    yield case("dr_grpo, truncated masked, x 6/5", ours, dr_grpo | mask, factor=factor)
    ours, theirs = {"preset": "dapo", "entropy_beta": 0.01}, dapo | {"entropy_coef": 0.01}
    yield case("dapo, entropy 0.01, one microbatch", ours, theirs, microbatches=1)
    yield case("grpo, mismatch token_truncate", mismatch("truncated"), grpo | corrected("token_truncate"))
    yield case("grpo, mismatch sequence_truncate", mismatch("sequence"), grpo | corrected("sequence_truncate"))
    yield case("grpo, mismatch token_mask", mismatch("masked"), grpo | corrected("token_mask", clip_min=0.8))


def different_cases() -> Iterator[Case]:
    """Where the two mean different things, nearest setting against nearest setting."""
    grpo, dr_grpo, dapo, cispo = their_losses()
    note = (
        "TRL's default multiplies k3 by the ratio, with its gradient (DeepSeek-V3.2, arXiv:2512.02556). "
        "Rayzero's k3 is\n"
        "    GRPO's, arXiv:2402.03300 equation 4. On policy the value is the same, the gradient is not."
    )
    ours: Settings = {"kl_beta": 0.04}
    theirs = grpo | {"use_bias_correction_kl": True}
    yield case("grpo, beta 0.04, KL times ratio", ours, theirs, note=note)
    yield case("grpo, same, on policy", ours, theirs, on_policy=True, note=note)
    note = (
        "A masked completion leaves Rayzero's denominators too; TRL counts it in the mean over completions. DAPO,\n"
        "    arXiv:2503.14476 section 3.4, masks under a mean over tokens, where both agree."
    )
    mask = {"mask_truncated_completions": True}
    yield case("grpo, truncated masked", {"overlong": "mask"}, grpo | mask, note=note)
    ours = {"preset": "dr_grpo", "overlong": "mask"}
    yield case("dr_grpo, truncated masked", ours, dr_grpo | mask, note=note)
    note = (
        "Rayzero weighs a token's entropy as its policy term. TRL takes the mean over a microbatch's tokens "
        "whatever the\n"
        "    loss, so that it depends on the split into microbatches. These losses' papers have no entropy term."
    )
    entropy = {"entropy_coef": 0.01}
    yield case("grpo, entropy 0.01, one microbatch", {"entropy_beta": 0.01}, grpo | entropy, microbatches=1, note=note)
    yield case("dapo, entropy 0.01", {"preset": "dapo", "entropy_beta": 0.01}, dapo | entropy, note=note)
    note = (
        "TRL clamps at epsilon_high itself, as ScaleRL, arXiv:2510.13786, and never from below. "
        "Rayzero clips to 1 - low\n"
        "    and 1 + high, as MiniMax-M1, arXiv:2506.13585 equation 5; TRL's x is its clip_eps_high x - 1, low being 1."
    )
    ours = {"preset": "cispo", "clip_eps_high": 1.2}
    yield case("cispo, high bound 1.2 in both", ours, cispo | {"epsilon_high": 1.2}, note=note)
    ours = {"preset": "cispo", "clip_eps_high": 0.5, "clip_eps_low": 0.1}
    yield case("cispo, eps 0.1 0.5", ours, cispo, note=note)
    note = "TRL's default drops a completion beyond its bound. Rayzero's nearest is sequence_truncate, which caps it."
    yield case("grpo, mismatch sequence_mask", mismatch("sequence"), grpo | corrected("sequence_mask"), note=note)
    note = (
        "The float32 mean of equal rewards of 0.3 is not 0.3, and TRL divides what is left by 1e-4. "
        "Rayzero gives a group\n"
        "    without spread exactly 0."
    )
    yield case("grpo, flat group of 0.3", {}, grpo, flat_reward=0.3, note=note)


def their_losses() -> tuple[Settings, ...]:
    """GRPO, Dr. GRPO, DAPO and CISPO in TRL's words."""
    dr_grpo = {"loss_type": "dr_grpo", "scale_rewards": "none"}
    return {"loss_type": "grpo"}, dr_grpo, {"loss_type": "dapo"}, {"loss_type": "cispo"}


def case(name: str, ours: Settings, theirs: Settings, **rest: Any) -> Case:
    """With Rayzero's bounds and KL put into TRL's words, where ``theirs`` says nothing else."""
    config = AlgorithmConfig(**ours)
    bounds = {"epsilon": config.clip_eps_low, "epsilon_high": config.clip_eps_high}
    if config.surrogate == "cispo":
        bounds = {"epsilon_high": 1 + config.clip_eps_high}
    return Case(name, ours, bounds | {"beta": config.kl_beta} | theirs, **rest)


def mismatch(correction: str) -> Settings:
    return {"mismatch_correction": correction, "mismatch_low": 0.8, "mismatch_high": 1.2}


def corrected(mode: str, clip_min: float | None = None) -> Settings:
    prefix = "vllm_importance_sampling_"
    return {f"{prefix}mode": mode, f"{prefix}clip_max": 1.2, f"{prefix}clip_min": clip_min}
