"""A disk that is full, wherever a learner writes: an OSError, whatever library has met it, and the learner lives."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from learner.config import LoraConfig
from learner.model.build import build_model
from tests.learner.test_learner import start
from tests.support.full_disk import full_disk
from tests.support.tiny import BUILD, MODEL, learner_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]

LORA = MODEL.model_copy(update={"lora": LoraConfig(rank=2)})


def refused_at(write: Callable[[Path], object], folder: Path) -> int:
    """Write under ever smaller limits. Return for how many it was refused; each time it must be an OSError."""
    write(folder / "whole")
    sizes = sorted({path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file()})
    limits = {0, *(size + change for size in sizes for change in (-64, -1)), sizes[-1] // 2}
    limits = {limit for limit in limits if 0 <= limit < sizes[-1]}
    for limit in limits:
        with full_disk(limit), pytest.raises(OSError, match="File too large") as caught:
            write(folder / f"torn-{limit}")
        assert caught.value.errno == errno.EFBIG
    write(folder / "again")
    return len(limits)


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_a_checkpoint_on_a_full_disk(folder, groups, zero_stage, tmp_path) -> None:
    learner = start(folder, learner_config(zero_stage=zero_stage))
    learner.update(1, groups)
    assert refused_at(learner.save, tmp_path) >= 5


@pytest.mark.parametrize("model", [MODEL, LORA], ids=["whole", "lora"])
def test_an_export_to_a_full_disk(folder, model, tmp_path) -> None:
    assert refused_at(start(folder, learner_config(), model).export, tmp_path) >= 5


def test_a_model_that_is_built_on_a_full_disk(tmp_path) -> None:
    assert refused_at(lambda folder: build_model(BUILD, 0, folder), tmp_path) >= 5
