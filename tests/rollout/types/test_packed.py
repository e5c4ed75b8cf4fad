"""A group as it travels: its header outside, and all of it inside."""

import pickle

import numpy as np

from rollout.types.completions import Reward, RewardPart
from rollout.types.packed import PackedGroup
from tests.support.groups import scored_group


def test_a_group_comes_back_whole_and_its_header_is_read_without_it() -> None:
    group = scored_group("train/7", [True, False], tokens=5, version=3, text="some text")
    packed = pickle.loads(pickle.dumps(PackedGroup.of(group)))
    assert packed.prompt_id == "train/7"
    assert [header[:3] for header in packed.completions] == [(5, "stop", (3,))] * 2
    again = packed.unpack()
    assert again.prompt.text == group.prompt.text and again.prompt.answer == group.prompt.answer
    for before, after in zip(group.completions, again.completions, strict=True):
        assert after.token_ids.dtype == np.int32 and after.rollout_logprobs.dtype == np.float32
        np.testing.assert_array_equal(before.token_ids, after.token_ids)
        np.testing.assert_array_equal(before.rollout_logprobs, after.rollout_logprobs)
        assert (before.text, before.finish_reason) == (after.text, after.finish_reason)


def test_what_is_kept_of_it_has_rewards_and_a_reference_and_neither_tokens_nor_texts() -> None:
    group = scored_group("train/7", [True, False], tokens=500, text="text " * 1000)
    kept = PackedGroup.of(group).remote(group.prompt, "reference").scored(group.rewards)
    assert (kept.reference, kept.pass_rate, kept.has_spread, kept.num_completion_tokens) == (
        "reference",
        0.5,
        True,
        1000,
    )
    assert len(pickle.dumps(kept)) < 2000


def test_a_reward_that_was_sent_is_the_same() -> None:
    parts = (RewardPart("correctness", 1.0), RewardPart("near", 0.0, "timeout"))
    reward = Reward(0.9, parts, {"countdown": 0.25}, ("backtracking",), {"letters": 3.0})
    sent = pickle.loads(pickle.dumps(reward))
    assert vars(sent) == vars(reward) and sent == reward and hash(sent.parts) == hash(parts)
    assert [type(part) for part in sent.parts] == [RewardPart, RewardPart] and sent.status == "timeout"
