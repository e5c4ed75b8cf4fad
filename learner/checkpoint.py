"""Saves and restores a learner so exactly that training goes on bit for bit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learner.backend import Backend

TAG = "deepspeed"
"""The sub-folder that DeepSpeed writes."""
MANIFEST = "learner.json"


def save(backend: Backend, folder: Path, optimizer_step: int) -> None:
    """Writes weights, optimizer state, ``optimizer_step`` and every rank's random state to ``folder``. Collective.

    The caller makes it atomic: a folder that was not wholly written must not be loaded.
    """
    backend.engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
    torch.save(_random_state(), _random_file(folder, backend))
    if backend.rank.is_first:
        (folder / MANIFEST).write_text(json.dumps(_layout(backend) | {"optimizer_step": optimizer_step}))


def load(backend: Backend, folder: Path) -> int:
    """Restores what ``save`` wrote and returns the optimizer step. Collective, on a backend that has not saved.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
        ValueError: it was saved by another number of ranks or at another ZeRO stage.
    """
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(f"{folder} holds no learner checkpoint: check the run's checkpoint folder")
    saved = json.loads((folder / MANIFEST).read_text())
    for setting, value in _layout(backend).items():
        if saved[setting] != value:
            raise ValueError(
                f"learner.{setting} is {value}, but the checkpoint in {folder} was saved with {saved[setting]}: "
                f"set learner.{setting}={saved[setting]}, or start a new run from its final/ folder"
            )
    backend.engine.load_checkpoint(str(folder), tag=TAG)
    # Our own file, and it holds numpy's state, which weights_only refuses.
    _set_random_state(torch.load(_random_file(folder, backend), weights_only=False))
    return saved["optimizer_step"]


def _layout(backend: Backend) -> dict[str, int]:
    return {"num_ranks": backend.rank.world_size, "zero_stage": backend.zero_stage}


def _random_file(folder: Path, backend: Backend) -> Path:
    return folder / f"random_state_{backend.rank.index:04d}.pt"


def _random_state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
