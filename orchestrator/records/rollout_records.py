"""The record of each completion in a run's directory."""

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
    """Yield an object for each completion, fit for JSON; without `advantages` it has no advantage."""
    shares = [{"advantage": float(advantage)} for advantage in advantages] or [{}] * len(group.completions)
    lengths = [completion.num_tokens for completion in group.completions]
    recorded = list(logprobs.split(lengths)) if logprobs else [None] * len(lengths)
    for completion, reward, advantage, own in zip(group.completions, group.rewards, shares, recorded, strict=True):
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
    """Return the values at the positions of the policy's tokens, and NaN, null in JSON, at an environment's tokens."""
    of_all = np.full(len(completion.token_ids), nan)
    of_all[completion.policy_tokens] = values
    return of_all


def _learned(completion: Completion, logprobs: LogprobRecord) -> dict[str, list[float]]:
    """Return the learner's recorded values for each token, if there are any, with four decimals as in the report."""
    series = {
        "logprob_gaps": logprobs.gaps,
        "logprob_changes": logprobs.changes,
        "token_advantages": logprobs.advantages,
    }
    return {
        name: (np.round(_of_all_tokens(completion, values), 4) + 0.0).tolist()  # adding 0.0 turns -0.0 into 0.0
        for name, values in series.items()
        if values is not None and not np.isnan(values).all()
    }


def _turns(completion: Completion) -> dict[str, Any]:
    """Return the turns and the number of the policy's tokens; empty if the policy wrote all tokens."""
    if not completion.turns:
        return {}
    return {"num_tokens": completion.num_tokens, "turns": [turn._asdict() for turn in completion.turns]}
