from __future__ import annotations

import pytest
from pydantic import ValidationError

from learner.algorithm.presets import PRESETS, preset_settings
from learner.algorithm.settings import AlgorithmConfig

OF_THE_PAPERS = {
    "grpo": {
        "baseline": "group_mean",
        "advantage_scale": "group_std",
        "surrogate": "ppo_clip",
        "ratio_level": "token",
        "loss_aggregation": "sequence_mean",
        "kl_placement": "loss",
        "kl_estimator": "k3",
    },
    "dr_grpo": {"baseline": "group_mean", "advantage_scale": "none", "loss_aggregation": "constant"},
    "dapo": {
        "advantage_scale": "group_std",
        "clip_eps_low": 0.2,
        "clip_eps_high": 0.28,
        "loss_aggregation": "token_mean",
        "overlong": "soft_punish",
        "kl_beta": 0.0,
    },
    "gspo": {
        "advantage_scale": "group_std",
        "ratio_level": "sequence",
        "clip_eps_low": 3e-4,
        "clip_eps_high": 4e-4,
        "loss_aggregation": "sequence_mean",
    },
    "cispo": {"surrogate": "cispo", "clip_eps_low": 1.0, "loss_aggregation": "token_mean"},
    "rloo": {
        "baseline": "leave_one_out",
        "advantage_scale": "none",
        "surrogate": "policy_gradient",
        "loss_aggregation": "constant",
        "kl_placement": "reward",
    },
    "reinforce_pp": {
        "baseline": "batch_mean",
        "advantage_scale": "batch_std",
        "surrogate": "ppo_clip",
        "kl_placement": "reward",
        "kl_estimator": "k1",
    },
    "ppo": {
        "baseline": "value",
        "surrogate": "ppo_clip",
        "kl_placement": "reward",
        "kl_estimator": "k1",
        "gae_gamma": 1.0,
        "gae_lambda": 0.95,
    },
    "distill": {
        "surrogate": "none",
        "loss_aggregation": "token_mean",
        "kl_beta": 1.0,
        "kl_placement": "loss",
        "kl_estimator": "exact",
    },
}


def test_every_preset_is_held_against_its_paper() -> None:
    assert set(OF_THE_PAPERS) == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_validates_and_sets_what_its_paper_says(preset: str) -> None:
    config = AlgorithmConfig(preset=preset)
    for key, value in (OF_THE_PAPERS[preset] | PRESETS[preset]).items():
        assert getattr(config, key) == value, key
    assert config.preset == preset


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_only_what_differs_from_the_defaults(preset: str) -> None:
    """And so what it does not say is GRPO's."""
    default = AlgorithmConfig()
    assert not [key for key, value in PRESETS[preset].items() if getattr(default, key) == value]
    changed = [
        key
        for key in AlgorithmConfig.model_fields
        if getattr(AlgorithmConfig(preset=preset), key) != getattr(default, key)
    ]
    assert set(changed) - {"preset"} == set(PRESETS[preset])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_knob_that_is_given_wins(preset: str) -> None:
    config = AlgorithmConfig(preset=preset, loss_aggregation="sequence_mean", clip_eps_high=0.123)
    assert (config.loss_aggregation, config.clip_eps_high) == ("sequence_mean", 0.123)
    kept = {key: value for key, value in PRESETS[preset].items() if key not in ("loss_aggregation", "clip_eps_high")}
    assert {key: getattr(config, key) for key in kept} == kept


def test_a_knob_that_is_given_wins_where_it_is_the_default_too() -> None:
    assert AlgorithmConfig(preset="dapo", clip_eps_high=0.2).clip_eps_high == 0.2


def test_what_was_validated_once_validates_again() -> None:
    """Recipes are written out with every knob, and read again."""
    for preset in PRESETS:
        config = AlgorithmConfig(preset=preset, entropy_beta=0.5)
        assert AlgorithmConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("grp", "grpo"),
        ("drgrpo", "dr_grpo"),
        ("dr-grpo", "dr_grpo"),
        ("dappo", "dapo"),
        ("gsop", "gspo"),
        ("sispo", "cispo"),
        ("rlo", "rloo"),
        ("reinforce++", "reinforce_pp"),
        ("pppo", "ppo"),
    ],
)
def test_a_misspelt_preset_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ValidationError, match=rf"preset is '{name.replace('+', '[+]')}': did you mean '{nearest}'\?"):
        AlgorithmConfig(preset=name)


@pytest.mark.parametrize("name", ["", "xyz", 3, None, ["grpo"]])
def test_what_is_like_no_preset_lists_them_all(name) -> None:
    with pytest.raises(ValueError, match="there are " + ", ".join(PRESETS)):
        preset_settings(name)
    with pytest.raises(ValidationError, match="there are grpo"):
        AlgorithmConfig(preset=name)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        (
            {"kl_beta": 0.1, "reference": "none"},
            ('reference is "none"', "kl_beta 0.1", 'set reference = "auto"', "kl_beta = 0"),
        ),
        ({"kl_target": 0.05}, ("kl_target is 0.05", "kl_beta 0", "set kl_beta")),
        (
            {"preset": "dapo", "baseline": "batch_mean", "advantage_scale": "batch_std"},
            ("resample_rounds is 2", 'baseline "batch_mean"', "set resample_rounds = 0"),
        ),
        (
            {"kl_estimator": "exact", "kl_placement": "reward"},
            ('kl_estimator is "exact"', 'kl_placement "reward"', 'set kl_estimator = "k1"', 'kl_placement = "loss"'),
        ),
        (
            {"baseline": "batch_mean"},
            ('advantage_scale is "group_std"', 'baseline "batch_mean"', 'set advantage_scale = "batch_std" or "none"'),
        ),
        ({"baseline": "value"}, ('advantage_scale is "group_std"', 'baseline "value"', '"batch_std" or "none"')),
        ({"preset": "distill", "kl_beta": 0.0}, ('surrogate is "none"', "set kl_beta = 1", 'kl_placement = "loss"')),
        ({"preset": "ppo", "resample_rounds": 1}, ("resample_rounds is 1", 'baseline "value"')),
    ],
)
def test_settings_that_clash_are_refused_with_key_value_and_fix(knobs: dict, says: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as error:
        AlgorithmConfig(**knobs)
    (problem,) = error.value.errors()
    assert not [part for part in says if part not in problem["msg"]]


@pytest.mark.parametrize(
    "knobs",
    [
        {"clip_eps_low": 1.1},
        {"clip_eps_high": -0.1},
        {"dual_clip": 1.0},
        {"gae_lambda": 1.01},
        {"mismatch_high": 0.9},
        {"mismatch_low": 1.5},
        {"kl_beta": -0.1},
        {"surrogate": "ppo"},
        {"kl_estimater": "k1"},
    ],
)
def test_knobs_out_of_range_or_unknown_are_refused_by_name(knobs: dict) -> None:
    with pytest.raises(ValidationError) as error:
        AlgorithmConfig(**knobs)
    assert [problem["loc"] for problem in error.value.errors()] == [tuple(knobs)]


def test_every_knob_has_a_docstring() -> None:
    assert not [name for name, field in AlgorithmConfig.model_fields.items() if not field.description]


def test_who_needs_a_critic_and_who_needs_groups() -> None:
    configs = {preset: AlgorithmConfig(preset=preset) for preset in PRESETS}
    assert {preset for preset, config in configs.items() if config.uses_critic} == {"ppo"}
    assert {preset for preset, config in configs.items() if not config.needs_groups} == {
        "reinforce_pp",
        "ppo",
        "distill",
    }
    assert {preset for preset, config in configs.items() if not config.learns_from_rewards} == {"distill"}
