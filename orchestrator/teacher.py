"""Find the frozen model that teaches the policy, `model.teacher`, and check that both have the same tokens."""

from __future__ import annotations

from typing import Any

from orchestrator.base_model import load_tokenizer, local_model
from orchestrator.config.schema import RunConfig
from orchestrator.model_source import PolicyError

SHOWN = 3
"""Largest number of tokens that a message names."""


def teacher_model(config: RunConfig, tokenizer: Any) -> str | None:
    """Return folder or hub name of the teacher; None if the recipe names none.

    Raises PolicyError if there is no such model, or its tokens differ from those of the policy's `tokenizer`.
    """
    if config.model.teacher is None:
        return None
    try:
        folder = local_model(config.model.teacher)
    except PolicyError as error:
        raise PolicyError(f"model.teacher: {error}".replace("model.path = ", "")) from error
    ours, theirs = tokenizer.get_vocab(), load_tokenizer(folder).get_vocab()
    differing = sorted(token for token in {*ours, *theirs} if ours.get(token) != theirs.get(token))
    if differing:
        shown = ", ".join(repr(token) for token in differing[:SHOWN])
        raise PolicyError(
            f"model.teacher = {config.model.teacher!r} has another tokenizer than the policy: {len(differing):,} "
            f"tokens differ, such as {shown}. A teacher must have the policy's tokens: use a model of the same family"
        )
    return folder
