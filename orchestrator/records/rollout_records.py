"""What is kept of each completion in a run's directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import nan
from typing import Any

import numpy as np

from rollout.types.completions import Completion, Group


def rollout_records(step: int, group: Group, advantages: Sequence[float] = ()) -> Iterator[dict[str, Any]]:
    """Yield an object for each completion, fit for JSON; without advantages where nothing is learned from it."""
    learned = [{"advantage": float(advantage)} for advantage in advantages] or [{}] * len(group.completions)
    for completion, reward, advantage in zip(group.completions, group.rewards, learned, strict=True):
        yield {
            "step": step,
            "prompt_id": group.prompt.id,
            "prompt": group.prompt.text,
            "source": group.prompt.source,
            "difficulty": group.prompt.difficulty,
            "answer": dict(group.prompt.answer),
            "completion": completion.text,
            "token_ids": completion.token_ids.tolist(),
            "rollout_logprobs": np.round(_logprobs(completion), 6).tolist(),
            "finish_reason": completion.finish_reason,
            "policy_versions": list(completion.policy_versions),
            "reward": reward.total,
            "parts": {part.name: {"value": part.value, "status": part.status} for part in reward.parts},
            "markers": None if reward.markers is None else list(reward.markers),
            **_turns(completion),
            **advantage,
        }


def _logprobs(completion: Completion) -> np.ndarray:
    """Return a logprob for each token; of an environment's tokens there is none, which JSON has as null."""
    logprobs = np.full(len(completion.token_ids), nan)
    logprobs[completion.policy_tokens] = completion.rollout_logprobs
    return logprobs


def _turns(completion: Completion) -> dict[str, Any]:
    """Return where the policy wrote, and how many tokens; nothing where it wrote all, as in every earlier version."""
    if not completion.turns:
        return {}
    return {"num_tokens": completion.num_tokens, "turns": [turn._asdict() for turn in completion.turns]}
