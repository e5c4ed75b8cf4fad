"""The learner on one rank, DeepSpeed and all, against the same update in plain PyTorch."""

from __future__ import annotations

import gc
import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from learner.backend import forward_backward
from learner.backend.rank import Rank, release_memory
from learner.config import AlgorithmConfig, WarmStartConfig
from learner.parity import ParityError
from learner.weights.gather import tensors_of
from rollout.types.completions import Group
from rollout.types.prompts import SupervisedExample
from tests.support.learners import assert_close, start, weights_of
from tests.support.oracle import oracle_update
from tests.support.tiny import MODEL, learner_config, sequence_logprobs

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]


def stale(group: Group) -> Group:
    """Return the group as if another policy had sampled it: logprobs half a nat lower."""
    completions = [replace(c, rollout_logprobs=c.rollout_logprobs - np.float32(0.5)) for c in group.completions]
    return replace(group, completions=tuple(completions))


TWO_UPDATES = {"updates_per_step": 2}
NEARBY = {"clip_eps_low": 0.01, "clip_eps_high": 0.02}
"""Bounds that a second optimizer step does reach."""


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ({"loss_aggregation": "token_mean"}, {"zero_stage": 0}),
        ({}, {"zero_stage": 1}),
        ({"preset": "dr_grpo"}, {"zero_stage": 2}),
        ({"kl_beta": 0.5}, {"zero_stage": 3}),
        ({"kl_beta": 0.5, **NEARBY}, TWO_UPDATES),
        ({"kl_beta": 0.5, "kl_estimator": "exact"}, {"zero_stage": 3}),
        ({"kl_beta": 0.5, "kl_estimator": "k2", "reference": "offloaded"}, {}),
        ({"entropy_beta": 0.1, "dual_clip": 3.0}, {}),
        ({"mismatch_correction": "truncated"}, {}),
        ({"advantage_scale": "batch_std", "loss_aggregation": "token_mean"}, {"gradient_checkpointing": True}),
        ({"preset": "dapo", **NEARBY}, TWO_UPDATES),
        ({"preset": "gspo"}, TWO_UPDATES),
        ({"preset": "cispo", **NEARBY}, TWO_UPDATES),
        ({"preset": "rloo", "kl_beta": 0.5}, TWO_UPDATES),
        ({"preset": "reinforce_pp", "kl_beta": 0.5, **NEARBY}, TWO_UPDATES),
        ({"preset": "ppo", "kl_beta": 0.5, **NEARBY}, TWO_UPDATES),
        ({"preset": "ppo"}, {"zero_stage": 0}),
        ({"preset": "ppo"}, {"zero_stage": 3}),
        ({}, {"max_grad_norm": 0.01, "weight_decay": 0.1}),
        ({}, {"offload_optimizer": True, "zero_stage": 2}),
    ],
)
def test_two_steps_equal_plain_pytorch(folder, groups, more_groups, algorithm, settings) -> None:
    algorithm = AlgorithmConfig(**algorithm, overlong="keep")
    config = learner_config(algorithm, **settings)
    learner = start(folder, config)
    for step, step_groups in enumerate([groups, more_groups], start=1):
        metrics = learner.update(step, step_groups).metrics
    assert_close(weights_of(learner), oracle_update(folder, config, [groups, more_groups]))
    assert learner._optimizer.num_applied == 2 * config.updates_per_step
    assert metrics["optim/microbatches"] > 1
    assert (metrics["optim/zero_advantage_groups"] > 0) == algorithm.needs_groups or algorithm.kl_placement == "reward"
    assert (f"optim/kl_{algorithm.kl_estimator}" in metrics) == (algorithm.kl_beta > 0)
    may_clip = config.updates_per_step > 1 and algorithm.surrogate != "policy_gradient"
    assert (metrics["optim/clip_fraction"] > 0) == may_clip
    assert np.isfinite(list(metrics.values())).all()


def test_gradient_checkpointing_computes_each_layer_twice(folder, groups) -> None:
    learner = start(folder, learner_config(gradient_checkpointing=True))
    calls = []
    learner._backend.policy.model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    assert len(calls) == 0
    metrics = learner.update(1, groups).metrics
    assert len(calls) == 2 * metrics["optim/microbatches"]


def test_the_kl_weight_follows_its_target_and_survives_a_checkpoint(folder, groups, more_groups, tmp_path) -> None:
    algorithm = AlgorithmConfig(kl_beta=0.5, kl_target=1e-9)
    learner = start(folder, learner_config(algorithm))
    assert learner.update(1, groups).metrics["optim/kl_beta"] == 0.5
    assert learner.kl_beta == pytest.approx(0.5 * 0.98)  # on the reference itself the KL is 0
    learner.update(2, more_groups)
    assert learner.kl_beta == pytest.approx(0.5 * 0.98 * 1.02)
    learner.save(tmp_path)
    resumed = start(folder, learner_config(algorithm))
    resumed.load(tmp_path)
    assert resumed.kl_beta == learner.kl_beta


def test_completions_that_were_cut_off_can_be_left_out(folder, groups) -> None:
    """The update without them is that of groups whose other completions keep their advantages."""
    cut = [
        replace(group, completions=(replace(group.completions[0], finish_reason="length"), *group.completions[1:]))
        for group in groups
    ]
    update = start(folder, learner_config(AlgorithmConfig(overlong="mask"))).update(1, cut)
    kept = start(folder, learner_config(AlgorithmConfig(overlong="keep"))).update(1, cut)
    assert update.metrics["optim/masked_completions"] == pytest.approx(1 / 4)
    assert update.advantages == kept.advantages
    assert update.metrics["optim/trained_tokens"] < kept.metrics["optim/trained_tokens"]


def cut_off(group: Group) -> Group:
    """Return the group with all its completions cut off at the limit."""
    return replace(group, completions=tuple(replace(c, finish_reason="length") for c in group.completions))


@pytest.mark.parametrize("kl", [{}, {"kl_beta": 0.1}, {"kl_beta": 0.1, "kl_estimator": "exact"}])
def test_a_part_that_was_wholly_cut_off_is_compared_before_the_first_update(folder, groups, kl) -> None:
    """Measured after it, the second part's gap would be that of the first part's learning."""
    config = learner_config(AlgorithmConfig(overlong="mask", **kl), updates_per_step=2)
    half = [*groups[:3], *map(cut_off, groups[3:])]
    learner = start(folder, config)
    update = learner.update(1, half)
    assert update.metrics["rollout/logprob_gap_max"] < 1e-5
    assert update.metrics["optim/masked_completions"] == 0.5
    assert not np.array_equal(
        weights_of(learner)["model.norm.weight"], weights_of(start(folder, config))["model.norm.weight"]
    )
    with pytest.raises(ParityError):
        start(folder, config.model_copy(update={"max_logprob_gap": 1e-3})).update(1, [*half[:3], *map(stale, half[3:])])
    nothing = start(folder, config)
    before = weights_of(nothing)
    nothing.update(1, [cut_off(group) for group in groups])
    assert_close(weights_of(nothing), before, atol=0)


def test_what_the_groups_show_reaches_the_records(folder, groups) -> None:
    update = start(folder, learner_config()).update(1, groups)
    for group, advantages in zip(groups, update.advantages, strict=True):
        centred = group.totals - group.totals.mean()
        np.testing.assert_allclose(advantages, centred / (group.totals.std(ddof=1) + 1e-4), rtol=1e-5)


def test_on_policy_groups_show_no_gap(folder, groups) -> None:
    metrics = start(folder, learner_config(max_logprob_gap=1e-4)).update(1, groups).metrics
    assert metrics["rollout/logprob_gap_max"] < 1e-5
    assert metrics["rollout/mismatch_kl"] < 1e-9
    assert metrics["optim/clip_fraction"] == 0


def bytes_alive() -> int:
    """Add up the storages of all tensors that Python knows, in bytes."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    return sum({s.data_ptr(): s.nbytes() for s in (tensor.untyped_storage() for tensor in tensors)}.values())


@pytest.mark.parametrize(("dtype", "zero_stage"), [("float32", 0), ("bfloat16", 1), ("bfloat16", 2), ("bfloat16", 3)])
def test_an_update_leaves_nothing_but_moments_behind(folder, groups, more_groups, dtype, zero_stage) -> None:
    """No gradient may be alive when generators that share the GPU wake."""
    model = MODEL.model_copy(update={"dtype": dtype})
    learner = start(folder, learner_config(zero_stage=zero_stage, max_logprob_gap=1e9), model)
    at_start = bytes_alive()
    learner.update(1, groups)
    release_memory()
    after_first = bytes_alive()
    learner.update(2, more_groups)
    release_memory()
    num_parameters = sum(weight.size for weight in weights_of(learner).values())
    # AdamW's two moments in float32; gradients would take another 2 or 4 bytes a parameter.
    assert after_first - at_start == pytest.approx(8 * num_parameters, abs=num_parameters)
    assert bytes_alive() == pytest.approx(after_first, abs=num_parameters)
    learner.close()


@pytest.mark.parametrize("settings", [{"zero_stage": 0}, {"zero_stage": 1}, {"zero_stage": 2}, {"zero_stage": 3}])
def test_stale_logprobs_stop_the_update_without_a_trace(folder, groups, settings) -> None:
    learner = start(folder, learner_config(max_logprob_gap=None, **settings))
    before = weights_of(learner)
    with pytest.raises(ParityError) as caught:
        learner.update(4, [stale(group) for group in groups])
    assert_close(weights_of(learner), before, atol=0)
    learner.update(4, groups)
    undisturbed = start(folder, learner_config(**settings))
    undisturbed.update(4, groups)
    assert_close(weights_of(learner), weights_of(undisturbed), atol=0)

    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.mean_gap, error.max_gap) == pytest.approx((0.5, 0.5), abs=1e-4)
    assert (error.limit, error.step, error.versions) == (1e-3, 4, (3,))
    for part in ("step 4", "0.5 nats", "limit on the average is 0.001", "[3]", "stale weights", "processed_logprobs"):
        assert part in str(error)


def test_groups_of_older_weights_may_differ_by_more_than_those_on_policy(folder, groups) -> None:
    """All of them are of version 3, which step 4 updates and step 5 does not."""
    older = [stale(group) for group in groups]
    metrics = start(folder, learner_config(max_logprob_gap=None)).update(5, older).metrics
    assert metrics["rollout/logprob_gap"] == pytest.approx(0.5, abs=1e-4)
    with pytest.raises(ParityError, match=r"the limit on the average is 1\.") as caught:
        start(folder, learner_config(max_logprob_gap=None)).update(5, [stale(stale(stale(group))) for group in groups])
    assert caught.value.mean_gap == pytest.approx(1.5, abs=1e-4)


def test_parity_is_proven_before_the_first_of_several_updates(folder, groups) -> None:
    learner = start(folder, learner_config(max_logprob_gap=1e-3, updates_per_step=2))
    before = weights_of(learner)
    with pytest.raises(ParityError):
        learner.update(1, [*groups[:3], *map(stale, groups[3:])])
    assert_close(weights_of(learner), before, atol=0)


def test_a_step_without_any_advantage_still_proves_parity(folder, groups) -> None:
    flat = [group for group in groups if not np.ptp(group.totals)]
    metrics = start(folder, learner_config()).update(1, flat).metrics
    assert metrics["optim/zero_advantage_groups"] == 1
    assert metrics["optim/grad_norm"] == 0
    with pytest.raises(ParityError):
        start(folder, learner_config(max_logprob_gap=None)).update(1, [stale(group) for group in flat])


def test_updates_that_do_not_divide_the_groups_are_refused(folder, groups) -> None:
    with pytest.raises(ValueError, match="updates_per_step is 4, which does not divide the step's 6 groups"):
        start(folder, learner_config(updates_per_step=4)).update(1, groups)


@pytest.mark.parametrize(
    ("settings", "preset"),
    [
        ({"zero_stage": 0}, "grpo"),
        ({"zero_stage": 1}, "grpo"),
        ({"zero_stage": 2}, "ppo"),
        ({"zero_stage": 3}, "grpo"),
        ({"updates_per_step": 2}, "ppo"),
    ],
)
def test_a_checkpoint_goes_on_bit_for_bit(folder, groups, more_groups, settings, preset, tmp_path) -> None:
    config = learner_config(AlgorithmConfig(preset=preset), lr_schedule="cosine", **settings)
    whole = start(folder, config)
    whole.update(1, groups)
    whole.save(tmp_path)
    drawn = torch.rand(3)
    expected = whole.update(2, more_groups)

    resumed = start(folder, config)
    torch.manual_seed(0)
    resumed.load(tmp_path)
    assert torch.equal(torch.rand(3), drawn)
    assert resumed.update(2, more_groups) == expected
    assert_close(weights_of(resumed), weights_of(whole), atol=0)

    other = 2 if config.zero_stage == 3 else 3
    with pytest.raises(ValueError, match=rf"learner\.zero_stage is {other}, but the checkpoint"):
        start(folder, learner_config(config.algorithm, zero_stage=other)).load(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no learner checkpoint"):
        resumed.load(tmp_path / "nothing")


def test_export_and_buckets_hold_the_trained_weights(folder, groups, tmp_path) -> None:
    learner = start(folder, learner_config(zero_stage=3))
    learner.update(1, groups)
    learner.export(tmp_path)
    weights = weights_of(learner)
    files = load_file(tmp_path / "model.safetensors")
    assert_close(files, weights, atol=0)
    assert "lm_head.weight" not in weights
    assert not np.array_equal(
        weights["model.norm.weight"], load_file(folder / "model.safetensors")["model.norm.weight"]
    )

    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert AutoTokenizer.from_pretrained(tmp_path).decode(AutoTokenizer.from_pretrained(folder).encode("1+2")) == "1+2"
    assert [len(bucket.names) for bucket in learner.weight_buckets(1)] == [1] * len(weights)
    assert len(list(learner.weight_buckets(10**9))) == 1


def test_bfloat16_trains_and_travels_as_its_bits(folder, groups) -> None:
    learner = start(folder, learner_config(), MODEL.model_copy(update={"dtype": "bfloat16"}))
    learner.update(1, groups)
    (bucket,) = learner.weight_buckets(10**9)
    assert set(bucket.dtypes) == {"bfloat16"}
    assert {array.dtype for array in bucket.arrays} == {np.dtype(np.uint16)}
    assert all(tensor.dtype == torch.bfloat16 and tensor.isfinite().all() for _, tensor in tensors_of(bucket))
    assert_close(weights_of(learner), oracle_update(folder, learner_config(), [groups]), atol=5e-3)


def test_a_warm_start_imitates_and_its_optimizer_does_not_leak(folder, groups, tmp_path) -> None:
    examples = [SupervisedExample(group.prompt.token_ids, c.token_ids) for group in groups for c in group.completions]
    warm_start = WarmStartConfig(num_steps=10, learning_rate=1e-2, adam_betas=(0.9, 0.95))
    learner = start(folder, warm_start.applied_to(learner_config()), temperature=1.0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    total = sum(
        -sequence_logprobs(model, example.prompt_ids, example.completion_ids).sum().item() for example in examples
    )
    history = [learner.supervised_update(step, examples).metrics for step in range(1, 11)]
    # At temperature 1 the loss is close to that at 0.8 for a model that is nearly uniform.
    assert history[0]["optim/loss"] == pytest.approx(
        total / sum(len(example.completion_ids) for example in examples), rel=0.05
    )
    assert history[-1]["optim/loss"] < history[0]["optim/loss"] - 0.5
    assert [stats["optim/learning_rate"] for stats in history][4:6] == [1e-2, pytest.approx(1e-2 * 5 / 6)]

    learner.export(tmp_path)
    fresh, same = (start(tmp_path, learner_config()) for _ in range(2))
    assert fresh._optimizer.num_applied == 0
    assert fresh.update(1, groups) == same.update(1, groups)


def test_a_learner_takes_no_more_of_a_gpu_than_its_share(monkeypatch) -> None:
    """Without a GPU this shows that PyTorch is told before anything is allocated; tests/gpu shows that it holds."""
    told: list[float] = []

    class NextError(Exception):
        """Raised by the step that follows."""

    def next_step(*_: object) -> None:
        raise NextError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", told.append)
    monkeypatch.setattr(forward_backward, "join_ranks", lambda rank: None)
    forward_backward.limit_memory(None)
    assert told == []
    policy = SimpleNamespace(model=SimpleNamespace(gradient_checkpointing_enable=next_step))
    settings = {"gpu_memory_fraction": 0.3, "gradient_checkpointing": True}
    with pytest.raises(NextError):
        forward_backward.Backend(policy, learner_config().model_copy(update=settings), "float32", Rank())
    assert told == [0.3]
