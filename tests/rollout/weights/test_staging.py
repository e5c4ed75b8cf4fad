"""What a generator checks before it takes new weights: whole, of its own model, undamaged, and still wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rollout.types.publishing import WeightBucket
from rollout.weights.staging import Staged, StagingArea, StagingError, expected_shapes, manifest_of

SHAPES = {"embed.weight": (4, 3), "norm.weight": (3,), "head.weight": (4, 3)}


def bucket(*names: str) -> WeightBucket:
    rng = np.random.default_rng(0)
    arrays = tuple(rng.normal(size=SHAPES.get(name, (2,))).astype(np.float32) for name in names)
    return WeightBucket.of(names, ("float32",) * len(names), arrays)


def staged(*buckets: WeightBucket, attempt_id: int = 1, version: int = 7) -> Staged:
    return Staged(attempt_id, version, manifest_of(buckets), buckets)


@pytest.fixture
def area() -> StagingArea:
    return StagingArea(lambda: SHAPES)


def test_a_whole_version_waits_until_it_is_taken_and_is_taken_once(area: StagingArea) -> None:
    whole = staged(bucket("embed.weight"), bucket("norm.weight", "head.weight"))
    area.stage(whole)
    assert area.check(1) is area.take(1) is whole
    with pytest.raises(StagingError, match="nothing is staged"):
        area.take(1)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("embed.weight", "norm.weight"), "lack head.weight"),
        ((*SHAPES, "layers.9.weight"), "have unknown layers.9.weight"),
        ((*SHAPES, "norm.weight"), "have more than once norm.weight"),
        ((), "lack embed.weight, norm.weight, head.weight"),
    ],
)
def test_weights_that_are_not_those_of_the_model_are_refused_by_name(area: StagingArea, names, message) -> None:
    with pytest.raises(StagingError, match=message):
        area.stage(staged(*map(bucket, names)))
    with pytest.raises(StagingError, match="nothing is staged"):
        area.take(1)


def test_another_shape_is_refused_with_both_shapes(area: StagingArea) -> None:
    whole = bucket(*SHAPES)
    arrays = (whole.arrays[0].T, *whole.arrays[1:])
    with pytest.raises(StagingError, match=r"embed.weight \(3, 4\), not \(4, 3\)"):
        area.stage(staged(WeightBucket.of(whole.names, whole.dtypes, arrays)))


@pytest.mark.parametrize("position", [0, 5, 11])
def test_a_damaged_bucket_is_refused_wherever_the_damage_is(area: StagingArea, position: int) -> None:
    whole = bucket(*SHAPES)
    whole.arrays[2].flat[position] += 1
    with pytest.raises(StagingError, match="arrived damaged: its checksum"):
        area.stage(staged(whole))


def test_arrays_that_changed_places_are_damage() -> None:
    whole = bucket(*SHAPES)
    assert whole.is_intact
    assert not replace(whole, arrays=(whole.arrays[2], whole.arrays[1], whole.arrays[0])).is_intact


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000])
def test_a_checksum_knows_arrays_of_any_size_and_type(dtype, size: int) -> None:
    array = np.random.default_rng(0).integers(0, 100, size).astype(dtype)
    one = WeightBucket.of(("a",), ("any",), (array.copy(),))
    assert one.is_intact
    if size:
        array[-1] += 1
        assert not replace(one, arrays=(array,)).is_intact


def test_what_was_dropped_does_not_come_back(area: StagingArea) -> None:
    area.stage(staged(bucket(*SHAPES), attempt_id=1))
    area.drop(1)
    with pytest.raises(StagingError, match="was dropped"):
        area.take(1)
    # It was late: the driver has given it up before it was staged.
    area.drop(2)
    with pytest.raises(StagingError, match="version 7 was dropped while it was staged"):
        area.stage(staged(bucket(*SHAPES), attempt_id=2))
    area.stage(staged(bucket(*SHAPES), attempt_id=3))
    area.drop(2)
    assert area.take(3).attempt_id == 3


def test_an_attempt_that_was_overtaken_neither_replaces_nor_is_taken(area: StagingArea) -> None:
    area.stage(staged(bucket(*SHAPES), attempt_id=5, version=8))
    with pytest.raises(StagingError, match="dropped"):
        area.stage(staged(bucket(*SHAPES), attempt_id=4, version=7))
    with pytest.raises(StagingError, match="nothing is staged"):
        area.take(4)
    assert area.take(5).version == 8


def test_what_is_expected_is_what_the_checkpoint_holds_and_a_tied_head_comes_once(tiny_model: Path) -> None:
    from safetensors import safe_open

    expected = expected_shapes(tiny_model)
    with safe_open(tiny_model / "model.safetensors", "np") as checkpoint:
        held = {name: tuple(checkpoint.get_slice(name).get_shape()) for name in checkpoint.keys()}  # noqa: SIM118
    held.pop("lm_head.weight", None)
    assert expected == held and "model.embed_tokens.weight" in expected
