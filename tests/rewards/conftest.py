"""Make the hostile reward functions importable under every import mode of pytest; build groups."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from rollout.types.completions import Completion, Group
from rollout.types.prompts import Prompt
from tests.support.paths import SUPPORT

if str(SUPPORT) not in sys.path:
    sys.path.insert(0, str(SUPPORT))

MakeGroup = Callable[..., Group]


@pytest.fixture(scope="session")
def make_group() -> MakeGroup:
    def make(
        texts: Sequence[str],
        task: str = "hostile",
        answer: Mapping[str, Any] | None = None,
        prompt_id: str = "train/7",
        assistant_prefix: str = "",
    ) -> Group:
        tokens = np.array([1, 2], dtype=np.int32)
        logprobs = np.zeros(2, dtype=np.float32)
        prompt = Prompt(prompt_id, tokens, "question", task, answer or {}, assistant_prefix)
        return Group(prompt, tuple(Completion(tokens, logprobs, "stop", (0,), text) for text in texts))

    return make
