"""What is recorded of each token: against plain forward passes, and without a trace in what is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from learner.config import AlgorithmConfig
from learner.logprob_record import LogprobRecord
from rollout.types.completions import Group
from tests.support.learners import assert_close, start, weights_of
from tests.support.tiny import learner_config, sequence_logprobs

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]


def scored(folder: Path, groups: list[Group]) -> np.ndarray:
    """Return the logprobs of all completions, one after the other."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        found = [
            sequence_logprobs(model, group.prompt.token_ids, completion.token_ids)
            for group in groups
            for completion in group.completions
        ]
    return torch.cat(found).numpy()


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ({"kl_beta": 0.1}, {"updates_per_step": 2, "zero_stage": 2}),
        ({"preset": "ppo"}, {"gradient_checkpointing": True, "zero_stage": 0}),
        ({"preset": "grpo"}, {"zero_stage": 3}),
    ],
)
def test_gaps_and_changes_are_those_of_plain_passes_and_leave_no_trace(
    folder: Path, groups: list[Group], tmp_path: Path, algorithm: dict, settings: dict
) -> None:
    config = learner_config(AlgorithmConfig(**algorithm), **settings)
    plain, recording = start(folder, config), start(folder, config)
    expected = plain.update(4, groups)
    torch.manual_seed(5)
    update = recording.update(4, groups, records_logprobs=True)
    changes = recording.score_again()
    assert update == expected and expected.logprobs is None and update.logprobs is not None
    assert torch.initial_seed() == 5 and torch.equal(torch.rand(2), torch.rand(2, generator=generator(5)))

    rollout = np.concatenate([each.rollout_logprobs for group in groups for each in group.completions])
    before = scored(folder, groups)
    recording.export(tmp_path)
    moved = scored(tmp_path, groups) - before
    known = ~np.isnan(update.logprobs.gaps)
    of_tokens = update.logprobs.advantages
    assert (of_tokens is None) == (not config.algorithm.advantages_need_logprobs)
    if of_tokens is not None:
        parts = update.logprobs.split(each.num_tokens for group in groups for each in group.completions)
        means = [part.advantages.astype(float).mean() for part in parts if part.advantages is not None]
        np.testing.assert_allclose(means, np.concatenate(update.advantages), atol=5e-3)
    flat = np.concatenate([[not np.ptp(group.totals)] * group.num_completion_tokens for group in groups])
    assert np.array_equal(~known, flat & config.algorithm.skips_zero_advantage)
    assert update.logprobs.gaps.dtype == changes.dtype == np.float16 and np.array_equal(np.isnan(changes), ~known)
    np.testing.assert_allclose(update.logprobs.gaps[known], (before - rollout)[known], atol=2e-5)
    assert np.abs(moved[known]).max() > 0.01
    np.testing.assert_allclose(changes[known], moved[known], rtol=2e-3, atol=2e-4)

    plain.update(5, groups[::-1])
    recording.update(5, groups[::-1], records_logprobs=True)
    assert_close(weights_of(recording), weights_of(plain), atol=0)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_record_is_split_by_completion() -> None:
    record = LogprobRecord(np.arange(5, dtype=np.float16), np.arange(5, 10, dtype=np.float16))
    first, nothing, last = record.split([2, 0, 3])
    assert [*first.gaps, *last.gaps] == [0, 1, 2, 3, 4] and len(nothing.gaps) == 0
    assert last.changes is not None and list(last.changes) == [7, 8, 9]
    assert next(LogprobRecord(record.gaps).split([5])).changes is None
