"""Generator and learner on one GPU: sleep gives memory back, memory fractions hold on 24 GiB, a whole run finishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from learner.backend.rank import limit_memory
from orchestrator.base_model import base_model
from orchestrator.config.recipe import load
from rollout.actor import GeneratorActor, environment
from rollout.config import RolloutConfig, SamplingConfig
from rollout.types.prompts import Prompt
from rollout.types.sampling import EngineSpec, SamplingRequest
from tests.gpu.card import GIB, SIMULATED_GIB, Card, peaks

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(540)]

CONTEXT_GIB = 2.0
"""CUDA contexts and what libraries allocate beside PyTorch."""
SHARE = 0.4
NIGHTS = 100
Fraction = Callable[[float], float]


@pytest.fixture(scope="module")
def generator(
    card: Card, simulated: Fraction, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ray.actor.ActorHandle, float]]:
    """One that has its share of 24 GB, and what the device held before it started."""
    config = RolloutConfig(max_concurrent_completions=64, compile=card.is_real)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYZERO_CACHE", str(tmp_path_factory.mktemp("cache")))
        model = base_model(load("countdown-tiny", ["warm_start.num_steps=0"]))
    before = card.used_gib()
    ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    options = {"num_gpus": 0.5 * card.is_real, "runtime_env": {"env_vars": environment(config)}}
    actor = GeneratorActor.options(**options).remote(
        EngineSpec(model, "bfloat16", 128, load_weights=True, gpu_memory_fraction=simulated(SHARE), sleeps=True), config
    )
    ray.get(actor.ready.remote(), timeout=240)
    yield actor, before
    ray.shutdown()


def sampled(actor: ray.actor.ActorHandle) -> list[list[int]]:
    prompts = [Prompt(f"train/{index:06d}", np.arange(2, 9, dtype=np.int32), "", "countdown", {}) for index in range(8)]
    stream = actor.generate.remote(SamplingRequest(tuple(prompts), SamplingConfig(max_completion_tokens=32), 2, 0))
    groups = sorted((ray.get(ref) for ref in stream), key=lambda group: group.prompt_id)
    return [completion.token_ids.tolist() for group in groups for completion in group.unpack().completions]


def test_an_engine_keeps_to_its_share_of_24_gb(generator, card: Card, measured: Callable[..., None]) -> None:
    actor, before = generator
    idle = card.used_gib() - before
    with peaks(card) as peak:
        sampled(actor)
    held = idle + peak.device
    share = SHARE * SIMULATED_GIB
    measured(f"engine with {SHARE:g} of {SIMULATED_GIB:g} GiB", f"{held:.2f} GiB", f"at most {share:.2f} and a context")
    assert not card.is_real or share * 0.5 < held < share + CONTEXT_GIB


def test_a_hundred_nights_give_the_memory_back_and_change_nothing(
    generator, card: Card, measured: Callable[..., None]
) -> None:
    actor, before = generator
    expected, start = sampled(actor), time.monotonic()
    asleep, awake = [], [card.used_gib() - before]
    for night in range(NIGHTS):
        ray.get(actor.sleep.remote(), timeout=120)
        asleep.append(card.used_gib() - before)
        ray.get(actor.wake.remote(), timeout=120)
        awake.append(card.used_gib() - before)
        if night % 10 == 0 or night == NIGHTS - 1:
            assert sampled(actor) == expected
    measured(f"sleep and wake × {NIGHTS}", f"{time.monotonic() - start:.1f} s")
    measured("engine asleep, first and last", f"{asleep[0]:.2f}, {asleep[-1]:.2f} GiB", f"below {CONTEXT_GIB:g}")
    measured("engine awake, before and at last", f"{awake[0]:.2f}, {awake[-1]:.2f} GiB", "equal within 0.5")
    if card.is_real:
        assert max(asleep) < CONTEXT_GIB
        assert awake[-1] == pytest.approx(awake[0], abs=0.5) and asleep[-1] == pytest.approx(asleep[0], abs=0.1)


def test_a_learner_keeps_to_its_share_of_24_gb(card: Card, simulated: Fraction, measured: Callable[..., None]) -> None:
    """What it may not have is refused to it, instead of being taken from the generator."""
    if not card.is_real:
        pytest.skip("PyTorch limits no host memory")
    room = (1 - SHARE) * SIMULATED_GIB * GIB
    before = torch.cuda.memory_reserved()
    limit_memory(simulated(1 - SHARE))
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(room) + 2**28, dtype=torch.uint8, device="cuda")
        got = torch.empty(int(room * 0.9) - before, dtype=torch.uint8, device="cuda")
        measured(f"learner with {1 - SHARE:g} of {SIMULATED_GIB:g} GiB got", f"{got.numel() / GIB:.2f} GiB")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_whole_run_on_one_gpu_within_24_gb(
    card: Card, simulated: Fraction, tmp_path: Path, measured: Callable[..., None]
) -> None:
    overrides = [
        "name=short",
        f"runs_dir={tmp_path}",
        "num_steps=3",
        "prompts_per_step=8",
        "group_size=4",
        "model.dtype=bfloat16",
        "warm_start.num_steps=20",
        "prompts.num_held_out=8",
        "sampling.max_completion_tokens=64",
        "rollout.num_generators=1",
        "learner.num_ranks=1",
        f"rollout.gpu_memory_fraction={simulated(SHARE)}",
        f"learner.gpu_memory_fraction={simulated(1 - SHARE)}",
        *card.settings("colocated", "auto"),
    ]
    with peaks(card) as peak:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "train", "countdown-tiny", *overrides],
            env=os.environ | {"RAYZERO_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "short" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["step"] > 0]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert max(line["rollout/logprob_gap"] for line in steps) < 0.05
    measured("peak of the device", f"{peak.device:.2f} GiB", f"below {SIMULATED_GIB:g}")
    for phase in ("rollout", "update", "publish"):
        measured(f"{phase}, last step", f"{steps[-1][f'time/{phase}_s']:.2f} s")
    assert peak.device < SIMULATED_GIB or not card.is_real
