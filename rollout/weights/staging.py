"""Check new weights, and keep them until they are taken into use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rollout.engine.step_loop import EngineStoppedError
from rollout.types.publishing import WeightBucket, WeightManifest

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by the names of a Hugging Face checkpoint."""


class UnpublishedError(EngineStoppedError):
    """The engine has no whole weights to sample with."""


class StagingError(ValueError):
    """The weights are no whole version of the engine's model, or were dropped meanwhile."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A version that was checked and can be committed."""

    attempt_id: int
    """Of the attempt at a publish that it belongs to; a later attempt has a larger one."""
    version: int
    manifest: WeightManifest
    buckets: tuple[WeightBucket, ...] = ()
    """The weights themselves, where they travel ahead: views into Ray's object store, not copies."""


class StagingArea:
    """Holds at most one staged version: the latest. It may be called from several threads."""

    def __init__(self, expected: Callable[[], Shapes]) -> None:
        """Keep `expected`, which gives the shapes of all weights of the engine's model, for the first publish."""
        self._expected = cache(expected)
        self._staged: Staged | None = None
        self._oldest_valid = 0  # smallest id of an attempt that was neither dropped nor overtaken
        self._lock = threading.Lock()

    def stage(self, staged: Staged) -> None:
        """Check `staged` and keep it, in place of what was there. Raises StagingError."""
        check_whole(staged.manifest, self._expected())
        check_intact(staged.buckets)
        with self._lock:
            if staged.attempt_id < self._oldest_valid:
                raise StagingError(f"version {staged.version} was dropped while it was staged")
            self._oldest_valid, self._staged = staged.attempt_id, staged

    def check(self, attempt_id: int) -> Staged:
        """Return what the attempt staged. Raises StagingError when it is not there any more."""
        staged = self._staged
        if staged is None or staged.attempt_id != attempt_id:
            raise StagingError("nothing is staged here for this publish: it was dropped, or the generator is a new one")
        return staged

    def take(self, attempt_id: int) -> Staged:
        """Return what the attempt staged, and forget it. Raises StagingError as `check` does."""
        with self._lock:
            staged = self.check(attempt_id)
            self._staged = None
        return staged

    def drop(self, attempt_id: int) -> None:
        """Forget what this attempt or an earlier one staged, and what it may still be about to stage."""
        with self._lock:
            self._oldest_valid = max(self._oldest_valid, attempt_id + 1)
            if self._staged is not None and self._staged.attempt_id <= attempt_id:
                self._staged = None


def expected_shapes(model_folder: Path | str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights and saved buffers of the model in `model_folder`, from its config alone.

    A tied LM head is included once, as the embedding.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_folder))
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - dict(model.named_parameters()).keys()
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def manifest_of(buckets: Sequence[WeightBucket]) -> WeightManifest:
    """Return what the buckets hold together."""
    return WeightManifest(
        names=tuple(name for bucket in buckets for name in bucket.names),
        dtypes=tuple(dtype for bucket in buckets for dtype in bucket.dtypes),
        shapes=tuple(array.shape for bucket in buckets for array in bucket.arrays),
    )


def check_whole(manifest: WeightManifest, expected: Shapes) -> None:
    """Raise StagingError unless `manifest` has every expected weight once, in its shape, and no other."""
    found = dict(zip(manifest.names, manifest.shapes, strict=True))
    troubles = {
        "lack": [name for name in expected if name not in found],
        "have unknown": [name for name in found if name not in expected],
        "have more than once": sorted({name for name in found if manifest.names.count(name) > 1})
        if len(found) < len(manifest.names)
        else [],
        "have in another shape": [
            f"{name} {shape}, not {expected[name]}"
            for name, shape in found.items()
            if name in expected and shape != expected[name]
        ],
    }
    if found_wrong := "; ".join(f"{what} {listed(names)}" for what, names in troubles.items() if names):
        raise StagingError(f"the published weights are not those of this generator's model: they {found_wrong}")


def check_intact(buckets: Sequence[WeightBucket]) -> None:
    """Raise StagingError for arrays that are not those that were sent."""
    for bucket in buckets:
        if not bucket.is_intact:
            raise StagingError(f"the bucket with {listed(bucket.names)} arrived damaged: its checksum is another")


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
