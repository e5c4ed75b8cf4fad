"""The tokenizer of a policy that a recipe builds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.schema import RunConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def built_tokenizer(recipe: RunConfig, folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    from learner.model.build import build_model

    assert recipe.model.build is not None
    build_model(recipe.model.build, 0, folder)
    return AutoTokenizer.from_pretrained(folder)
