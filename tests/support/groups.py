"""Scored groups for tests, without a model."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from rewards.parts.markers import markers
from rollout.types.completions import Completion, Group, Reward, RewardPart, Turn
from rollout.types.prompts import Prompt


def scored_group(
    prompt_id: str, right: list[bool], tokens: int = 3, status: str = "ok", text: str = "no\n", version: int = 0
) -> Group:
    """A group with one completion for each entry of `right`; wrong ones are well-formed."""
    prompt = Prompt(
        prompt_id, np.arange(4, dtype=np.int32), "question\n", "countdown", {"numbers": [1, 2], "target": 3}
    )
    completions = tuple(
        Completion(np.arange(tokens, dtype=np.int32), np.full(tokens, -0.5, np.float32), "stop", (version,), text)
        for _ in right
    )
    return Group(prompt, completions, tuple(reward(is_right, status, text) for is_right in right))


def reward(is_right: bool, status: str = "ok", text: str = "") -> Reward:
    parts = (RewardPart("correctness", float(is_right), status), RewardPart("answer_tags", 1.0))
    return Reward(1.0 if is_right else 0.1, parts, markers=markers(text))


def in_turns(group: Group, *texts: str) -> Group:
    """Return the group with completions of these texts, every second of them an environment's; a letter is a token."""
    ends = np.cumsum([0, *map(len, texts)]).tolist()
    turns = tuple(Turn(start, end, start, end) for start, end in list(pairwise(ends))[::2])
    text = "".join(texts)
    token_ids, num_own = np.arange(len(text), dtype=np.int32), sum(map(len, texts[::2]))
    logprobs = -np.arange(1, num_own + 1, dtype=np.float32)
    changed = {"token_ids": token_ids, "rollout_logprobs": logprobs, "text": text, "turns": turns}
    return replace(group, completions=tuple(replace(each, **changed) for each in group.completions))
