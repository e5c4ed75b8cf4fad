"""Generator and learner on one GPU: sleep gives memory back, memory fractions hold on 24 GiB, a whole run finishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(900)]

CARD_GIB = 24.0
"""The card that is simulated: shares of it, on whatever GPU there is."""
CONTEXT_GIB = 2.0
"""CUDA contexts and what libraries allocate beside PyTorch."""
SHARE = 0.4


def used_gib() -> float:
    """On the whole device, by all processes."""
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


def simulated(share: float) -> float:
    """The fraction of this GPU that is `share` of the simulated card. Skips where the GPU is smaller."""
    total_gib = torch.cuda.mem_get_info()[1] / 2**30
    if total_gib < CARD_GIB * 0.95:
        pytest.skip(f"this GPU has {total_gib:.1f} GiB")
    return round(share * CARD_GIB / total_gib, 4)


@contextmanager
def peak_gib() -> Iterator[list[float]]:
    """Fills in what was used at most while it lasts."""
    peak, done = [used_gib()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], used_gib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ray.actor.ActorHandle, float]]:
    """One that has its share of 24 GiB, and what the device held before it started."""
    config = RolloutConfig(max_concurrent_completions=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYZERO_CACHE", str(tmp_path_factory.mktemp("cache")))
        model = base_model(load("countdown-tiny", ["warm_start.num_steps=0"]))
    before = used_gib()
    ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    options = {"num_gpus": 0.5, "runtime_env": {"env_vars": environment(config)}}
    actor = GeneratorActor.options(**options).remote(
        EngineSpec(model, "bfloat16", 128, load_weights=True, gpu_memory_fraction=simulated(SHARE)), config
    )
    ray.get(actor.ready.remote(), timeout=600)
    yield actor, before
    ray.shutdown()


def sampled(actor: ray.actor.ActorHandle) -> list[list[int]]:
    prompts = [Prompt(f"train/{index:06d}", np.arange(2, 9, dtype=np.int32), "", "countdown", {}) for index in range(8)]
    stream = actor.generate.remote(SamplingRequest(tuple(prompts), SamplingConfig(max_completion_tokens=32), 2, 0))
    groups = sorted((ray.get(ref) for ref in stream), key=lambda group: group.prompt.id)
    return [completion.token_ids.tolist() for group in groups for completion in group.completions]


def test_an_engine_keeps_to_its_share_of_24_gib(generator, measured: Callable[[str, str], None]) -> None:
    actor, before = generator
    with peak_gib() as peak:
        sampled(actor)
    held = peak[0] - before
    measured(f"engine with {SHARE:g} of {CARD_GIB:g} GiB", f"{held:.2f} GiB")
    assert SHARE * CARD_GIB * 0.5 < held < SHARE * CARD_GIB + CONTEXT_GIB


def test_sleeping_gives_the_memory_back_and_waking_changes_nothing(
    generator, measured: Callable[[str, str], None]
) -> None:
    actor, before = generator
    expected, awake = sampled(actor), used_gib() - before
    for _ in range(3):
        ray.get(actor.sleep.remote(), timeout=120)
        asleep = used_gib() - before
        ray.get(actor.wake.remote(), timeout=120)
        assert sampled(actor) == expected
    woken = used_gib() - before
    for what, gib in (("awake", awake), ("asleep", asleep), ("woken three times", woken)):
        measured(f"engine {what}", f"{gib:.2f} GiB")
    assert asleep < CONTEXT_GIB
    assert woken == pytest.approx(awake, abs=0.5)


def test_a_learner_keeps_to_its_share_of_24_gib(measured: Callable[[str, str], None]) -> None:
    """What it may not have is refused to it, instead of being taken from the generator."""
    fraction = simulated(1 - SHARE)
    before = torch.cuda.memory_reserved()
    limit_memory(fraction)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int((1 - SHARE) * CARD_GIB * 2**30) + 2**28, dtype=torch.uint8, device="cuda")
        room = torch.empty(int((1 - SHARE) * CARD_GIB * 2**30 * 0.9) - before, dtype=torch.uint8, device="cuda")
        measured(f"learner with {1 - SHARE:g} of {CARD_GIB:g} GiB got", f"{room.numel() / 2**30:.2f} GiB")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_whole_run_on_one_gpu_within_24_gib(tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    overrides = [
        "name=short",
        f"runs_dir={tmp_path}",
        "num_steps=3",
        "prompts_per_step=8",
        "group_size=4",
        "model.dtype=bfloat16",
        "warm_start.num_steps=40",
        "prompts.num_held_out=8",
        "sampling.max_completion_tokens=64",
        "rollout.num_generators=1",
        "learner.num_ranks=1",
        f"rollout.gpu_memory_fraction={simulated(SHARE)}",
        f"learner.gpu_memory_fraction={simulated(1 - SHARE)}",
        "placement.mode=colocated",
    ]
    before = used_gib()
    with peak_gib() as peak:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "train", "countdown-tiny", *overrides],
            env=os.environ | {"RAYZERO_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=800,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "short" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["step"] > 0]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert max(line["rollout/logprob_gap"] for line in steps) < 0.05
    assert peak[0] - before < CARD_GIB
    measured("peak of the device", f"{peak[0] - before:.2f} GiB")
    for phase in ("rollout", "update", "publish"):
        measured(f"{phase}, last step", f"{steps[-1][f'time/{phase}_s']:.2f} s")
