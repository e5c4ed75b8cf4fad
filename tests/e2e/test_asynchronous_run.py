"""Whole runs whose engines schedule ahead, as on a GPU: vLLM's asynchronous scheduling, switched on for the CPU."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.real_runs.observed import GENERATOR, Run
from tests.support.asynchronous_cores import engines, installed
from tests.support.paths import WARM_START

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]

NUM_STEPS, PROMPTS, GROUP_SIZE = 3, 16, 8
TIMING = ("time/", "rollout/tokens_per_s", "system/")
SAME, DIFFERENT = 1e-4, 1e-3
"""Nats: as near a token's logprobs are where the same weights computed them, and as far where others did."""


def finished(folder: Path, name: str, *settings: str, environment: dict[str, str] | None = None) -> Run:
    """A run that has ended well, in which every engine scheduled ahead, if it was to."""
    sizes = (f"num_steps={NUM_STEPS}", f"prompts_per_step={PROMPTS}", f"group_size={GROUP_SIZE}")
    run = Run(folder, name, *sizes, *settings, environment=environment)
    run.wait_for_step(1)
    generators = set(run.pids(GENERATOR))
    run.finish()
    if environment is not None:
        found = engines(environment)
        assert len(generators) == 2 and {engine.pop("pid") for engine in found} == generators
        assert all(engine == {"is_asynchronous": True, "batch_queue_size": 2} for engine in found)
    return run


def completions(run: Run) -> list[dict[str, Any]]:
    """All completions that the run trained on."""
    files = sorted((run.directory / "rollouts").glob("step_*.zst"))
    return [json.loads(line) for file in files for line in zstandard.decompress(file.read_bytes()).splitlines()]


def untimed(run: Run) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if not key.startswith(TIMING)} for line in run.metrics]


class Policies:
    """The policy of each version of a run, from its checkpoints; that of version 0 is what it began with."""

    def __init__(self, run: Run) -> None:
        self._checkpoints = run.directory / "checkpoints"
        self._tokenizer = AutoTokenizer.from_pretrained(WARM_START)
        self._at = cache(self._load)

    def _load(self, version: int) -> Any:
        model = AutoModelForCausalLM.from_pretrained(WARM_START, dtype=torch.float32)
        if version:
            (file,) = (self._checkpoints / f"step_{version:06d}").rglob("mp_rank_00_model_states.pt")
            state = torch.load(file, weights_only=False)["module"]
            model.load_state_dict({name.removeprefix("model."): weights for name, weights in state.items()})
        return model

    def gaps(self, completion: dict[str, Any], version: int) -> np.ndarray:
        """How far a version's logprobs of a completion's tokens are from those that it was sampled with, nats."""
        prompt, tokens = self._tokenizer.encode(completion["prompt"]), completion["token_ids"]
        with torch.no_grad():
            logits = self._at(version)(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
        return np.abs(logprobs.numpy() - np.array(completion["rollout_logprobs"]))


def test_a_run_on_policy_repeats_one_that_does_not_schedule_ahead(tmp_path: Path) -> None:
    ahead = finished(tmp_path, "ahead", environment=installed(tmp_path / "plugin"))
    not_ahead = finished(tmp_path, "not-ahead")
    trained = completions(ahead)
    assert max(line["rollout/logprob_gap"] for line in ahead.metrics[1:]) < 1e-5
    assert ahead.lost_and_twice() == (0, 0) and len(trained) == NUM_STEPS * PROMPTS * GROUP_SIZE
    assert all(each["policy_versions"] == [each["step"] - 1] for each in trained)
    assert trained == completions(not_ahead)
    assert untimed(ahead) == untimed(not_ahead)


def test_weights_that_come_under_load_are_recorded_for_what_they_sampled(tmp_path: Path) -> None:
    """A run that samples ahead: weights come while batches are in flight. Each version's own logprobs tell its tokens.

    After the weights changed, tokens still attend to what the former ones have read: no version repeats their logprobs.
    """
    settings = ("max_staleness=1", "checkpoint.every_steps=1", f"checkpoint.keep={NUM_STEPS}")
    run = finished(tmp_path, "under-load", *settings, environment=installed(tmp_path / "plugin"))
    trained, policies = completions(run), Policies(run)
    assert run.lost_and_twice() == (0, 0) and len(trained) == NUM_STEPS * PROMPTS * GROUP_SIZE
    assert max(line["rollout/logprob_gap"] for line in run.metrics[1:]) < 0.05
    mixed = []
    for each in trained:
        first, *later = versions = each["policy_versions"]
        assert versions in ([each["step"] - 2], [each["step"] - 1], [each["step"] - 2, each["step"] - 1], [0])
        gaps = policies.gaps(each, first)
        assert gaps[0] < SAME, each["prompt_id"]
        if later:
            mixed.append(gaps.max())
        else:
            assert gaps.max() < SAME, each["prompt_id"]
    # How many tokens are of the later version is chance, and on those that are almost certain both versions agree.
    assert len(mixed) >= 10 and np.mean(np.array(mixed) > DIFFERENT) > 0.1
