"""Checkpoints of a learner, from which training continues bit for bit.

With adapters a checkpoint has only the trained weights. The frozen weights are loaded again from the original model,
and must be the same. Merged weights are never saved, so an adapter cannot be added twice.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepspeed import DeepSpeedEngine
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from torch import nn

from learner.backend.file_digests import DigestingFile, Digests, file_digest
from learner.backend.forward_backward import Backend
from learner.model.lora import settings_of
from learner.parity import SMALLER_UPDATES

TAG = "deepspeed"
"""The sub-folder that DeepSpeed writes."""
MANIFEST = "learner.json"


def save(backend: Backend, folder: Path, state: dict[str, Any]) -> Digests:
    """Write weights, optimizer state, every rank's random state and ``state`` to ``folder``. Collective.

    ``state`` has the caller's other values for JSON, which ``load`` returns. The caller must make sure that an
    incomplete folder is never loaded. Each rank hashes its files while it writes them.

    Returns:
        The digest of every file by its path in ``folder``, on every rank.

    Raises:
        NonFiniteError: weights or moments are not finite; nothing was written.
        OSError: writing failed, or the ranks do not see the same folder.
    """
    backend.prove_finite("the policy", f"It was not saved. {SMALLER_UPDATES}")
    with _without_frozen(backend.policy), _digesting(backend.engine) as written:
        backend.engine.save_checkpoint(
            str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=backend.policy.adapters is not None
        )
    written.save(_random_state(), str(_random_file(folder, backend.rank.index)))
    if backend.rank.is_first:
        (folder / MANIFEST).write_text(json.dumps(_layout(backend) | {"state": state}))
    # Gathering digests also waits for all ranks: afterwards all files exist.
    digests = {path: digest for of_rank in backend.gather(written.digests) for path, digest in of_rank.items()}
    missing = [rank for rank in range(backend.rank.world_size) if not _random_file(folder, rank).exists()]
    if missing:
        raise OSError(
            f"rank {backend.rank.index} cannot see the files that ranks {missing} saved in {folder}: set runs_dir to a "
            "folder that all nodes share"
        )
    # Files that torch did not write are small: our JSON, and the scripts that DeepSpeed puts beside its files.
    small = {path: file_digest(path) for path in folder.rglob("*") if path.is_file() and path not in digests}
    return {str(path.relative_to(folder)): digest for path, digest in (digests | small).items()}


def load(backend: Backend, folder: Path) -> dict[str, Any]:
    """Restore the files that ``save`` wrote, and return ``state``. Collective, on a backend that has not saved.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
        ValueError: the checkpoint has another number of ranks, another ZeRO stage, other adapters or other weights
            under them, or only one of checkpoint and learner has a critic.
        NonFiniteError: it contains NaN or infinity, which earlier versions could save.
    """
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(f"{folder} holds no learner checkpoint: check the run's checkpoint folder")
    saved = json.loads((folder / MANIFEST).read_text())
    for name, value in _layout(backend).items():
        if saved[name] != value:
            raise ValueError(
                f"{_difference(name, value, saved[name], folder)}, or start a new run from the final/ folder of the "
                "checkpoint's run"
            )
    backend.engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=backend.policy.adapters is None)
    remedy = "Remove the checkpoint's folder and start the same command again: it resumes from the previous checkpoint"
    backend.prove_finite(f"the checkpoint in {folder}", remedy)
    # weights_only would refuse numpy's state. The file is safe to unpickle: a run of this project wrote it.
    _set_random_state(torch.load(_random_file(folder, backend.rank.index), weights_only=False))
    return saved["state"]


def _layout(backend: Backend) -> dict[str, Any]:
    """Return the values that must be equal in the saving and the loading learner, in the order of checks."""
    policy = backend.policy
    return {
        "num_ranks": backend.rank.world_size,
        "zero_stage": backend.zero_stage,
        "value_head": policy.value_head is not None,
        "lora": None if policy.adapters is None else settings_of(policy.adapters),
        "base_fingerprint": policy.base_fingerprint,
    }


def _difference(name: str, value: Any, saved: Any, folder: Path) -> str:
    """Return a message about the difference in ``name`` of the layout, with the fix."""
    if name == "value_head":
        if saved:
            return (
                f'learner.algorithm.baseline is not "value", but the checkpoint in {folder} was saved with a critic: '
                'set learner.algorithm.baseline = "value" or preset = "ppo"'
            )
        return (
            f'learner.algorithm.baseline is "value", but the checkpoint in {folder} was saved without a critic: set '
            "learner.algorithm.baseline, or preset, to its former value"
        )
    if name == "lora":
        return f"model.lora is {_toml(value)}, but the checkpoint in {folder} was saved with {_toml(saved)}: " + (
            "leave model.lora unset" if saved is None else f"set model.lora = {_toml(saved)}"
        )
    if name == "base_fingerprint":
        return (
            f"the weights under model.lora are not those that the adapters in {folder} were trained on (fingerprint "
            f"{value[:12]}, not {saved[:12]}): set model.path or model.build, and model.dtype, to their former values, "
            "and not to an exported model, which already contains the adapters"
        )
    return (
        f"learner.{name} is {value}, but the checkpoint in {folder} was saved with {saved}: set learner.{name}={saved}"
        + (", on a machine or cluster with room for that many" if name == "num_ranks" else "")
    )


def _toml(lora: dict[str, Any] | None) -> str:
    if lora is None:
        return "unset"
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in lora.items()) + " }"


class _DigestingWriter(TorchCheckpointEngine):
    """DeepSpeed's writer of files, which also hashes them, so that many gigabytes need not be read again."""

    def __init__(self) -> None:
        super().__init__()
        self.digests: dict[Path, str] = {}

    def save(self, state_dict: Any, path: str) -> None:
        file = DigestingFile(Path(path))
        try:
            torch.save(state_dict, file)  # type: ignore[arg-type]  # it needs only write and flush
        except RuntimeError as error:
            # If the disk is full, torch still writes its table of contents, and reports only that failure.
            if file.refusal is not None:
                raise file.refusal from error
            raise
        self.digests[Path(path)] = file.close()


@contextmanager
def _digesting(engine: DeepSpeedEngine) -> Iterator[_DigestingWriter]:
    """Let ``engine`` save with a writer that hashes, until the context ends, and yield that writer."""
    usual_writer, engine.checkpoint_engine = engine.checkpoint_engine, _DigestingWriter()
    try:
        yield engine.checkpoint_engine
    finally:
        engine.checkpoint_engine = usual_writer


@contextmanager
def _without_frozen(policy: nn.Module) -> Iterator[None]:
    """Leave frozen parameters, under all their names, out of ``policy.state_dict()`` until the context ends.

    DeepSpeed's own ``exclude_frozen_parameters`` knows only one name per parameter, and would save a tied LM head.
    """
    frozen = [
        name for name, parameter in policy.named_parameters(remove_duplicate=False) if not parameter.requires_grad
    ]

    def drop(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for name in frozen:
            state.pop(prefix + name, None)

    handle = policy.register_state_dict_post_hook(drop)
    try:
        yield
    finally:
        handle.remove()


def _random_file(folder: Path, rank: int) -> Path:
    return folder / f"random_state_{rank:04d}.pt"


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
