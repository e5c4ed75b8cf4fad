"""More prompts than one decoding step can read, on real vLLM: each with a seed, as all of ours are."""

import os

import numpy as np
import pytest

from rollout.actor import environment
from rollout.config import RolloutConfig, SamplingConfig
from rollout.types.prompts import Prompt
from rollout.types.sampling import EngineSpec, SamplingRequest

CONFIG = RolloutConfig(max_concurrent_completions=64, max_batched_tokens=100)


@pytest.mark.slow
def test_prompts_that_do_not_fit_one_step_wait_for_the_next(tiny_model) -> None:
    os.environ.update(environment(CONFIG))
    from rollout.engine.engine import Engine

    engine = Engine(EngineSpec(str(tiny_model), "float32", 64, load_weights=True), CONFIG, lambda ids: str(len(ids)))
    rng = np.random.default_rng(0)
    prompts = [
        Prompt(f"train/{index:06d}", rng.integers(2, 60, 37).astype(np.int32), "", "countdown", {})
        for index in range(12)
    ]
    try:
        groups = list(
            engine.generate(SamplingRequest(tuple(prompts), SamplingConfig(max_completion_tokens=8), 4, seed=0))
        )
    finally:
        engine.close()
    assert sorted(group.prompt.id for group in groups) == [prompt.id for prompt in prompts]
    assert all(len(group.completions) == 4 for group in groups)
