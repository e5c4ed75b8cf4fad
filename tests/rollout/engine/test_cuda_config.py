"""What vLLM decides for our arguments on a GPU, from its own CUDA platform: another engine than on cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rollout.actor import environment
from rollout.config import RolloutConfig

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def decided(tiny_model: Path) -> dict[str, dict[str, Any]]:
    """In a process of its own, which takes itself for one on an RTX 4090."""
    variables = os.environ | environment(RolloutConfig(compile=True)) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.support.cuda_config", str(tiny_model)]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("transport", ["ray", "ipc", "nccl"])
def test_a_gpus_engine_schedules_ahead_of_what_it_computes(decided: dict[str, dict[str, Any]], transport: str) -> None:
    """So weights may be touched only when no batch is in flight, as VersionedEngine sees to."""
    found = decided[transport]
    assert found["platform"] == "NonNvmlCudaPlatform"
    assert found["uses_v2_model_runner"] and found["is_asynchronous"] and found["batches_in_flight"] == 2
    assert found["worker"] == "vllm.v1.worker.gpu_worker.Worker" and found["executor"] == "uni"


@pytest.mark.parametrize("transport", ["ray", "ipc", "nccl"])
def test_what_we_ask_for_is_what_a_gpu_gets(decided: dict[str, dict[str, Any]], transport: str) -> None:
    from rollout.weights.object_store import ENGINES

    found = decided[transport]
    assert found["weight_transfer"] == ENGINES[transport]  # type: ignore[index]
    assert found["logprobs"] == "processed_logprobs" and found["has_chunked_prefill"]
    assert found["graphs"] != "CUDAGraphMode.NONE"
