"""What is kept of each completion in a run's directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import nan
from typing import Any

import numpy as np

from learner.logprob_record import LogprobRecord
from rollout.types.completions import Completion, Group


def rollout_records(
    step: int, group: Group, advantages: Sequence[float] = (), logprobs: LogprobRecord | None = None
) -> Iterator[dict[str, Any]]:
    """Yield an object for each completion, fit for JSON; without advantages where nothing is learned from it."""
    learned = [{"advantage": float(advantage)} for advantage in advantages] or [{}] * len(group.completions)
    lengths = [completion.num_tokens for completion in group.completions]
    known = list(logprobs.split(lengths)) if logprobs else [None] * len(lengths)
    for completion, reward, advantage, own in zip(group.completions, group.rewards, learned, known, strict=True):
        yield {
            "step": step,
            "prompt_id": group.prompt.id,
            "prompt": group.prompt.text,
            "source": group.prompt.source,
            "difficulty": group.prompt.difficulty,
            "answer": dict(group.prompt.answer),
            "completion": completion.text,
            "token_ids": completion.token_ids.tolist(),
            "rollout_logprobs": np.round(_of_all_tokens(completion, completion.rollout_logprobs), 6).tolist(),
            "finish_reason": completion.finish_reason,
            "policy_versions": list(completion.policy_versions),
            "reward": reward.total,
            "parts": {part.name: {"value": part.value, "status": part.status} for part in reward.parts},
            "markers": None if reward.markers is None else list(reward.markers),
            **_turns(completion),
            **advantage,
            **({} if own is None else _learned(completion, own)),
        }


def _of_all_tokens(completion: Completion, values: np.ndarray) -> np.ndarray:
    """Return the values of the policy's tokens in their places; an environment's have none, which JSON has as null."""
    found = np.full(len(completion.token_ids), nan)
    found[completion.policy_tokens] = values
    return found


def _learned(completion: Completion, logprobs: LogprobRecord) -> dict[str, list[float]]:
    """Return what the learner recorded of each token, as far as it is known, to four decimals as the report shows."""
    found = {
        "logprob_gaps": logprobs.gaps,
        "logprob_changes": logprobs.changes,
        "token_advantages": logprobs.advantages,
    }
    return {
        name: (np.round(_of_all_tokens(completion, values), 4) + 0.0).tolist()  # which leaves no -0.0
        for name, values in found.items()
        if values is not None and not np.isnan(values).all()
    }


def _turns(completion: Completion) -> dict[str, Any]:
    """Return where the policy wrote, and how many tokens; nothing where it wrote all, as in every earlier version."""
    if not completion.turns:
        return {}
    return {"num_tokens": completion.num_tokens, "turns": [turn._asdict() for turn in completion.turns]}
