"""The digests of a checkpoint's files, on one rank; test_learner.py shows that training goes on bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learner.backend import checkpoint
from learner.backend.file_digests import DigestingFile, file_digest
from tests.learner.test_learner import start
from tests.support.tiny import learner_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_a_save_knows_the_digest_of_every_file_without_reading_the_large_ones(
    folder, groups, zero_stage, tmp_path, monkeypatch
) -> None:
    read: list[Path] = []

    def reading(path: Path) -> str:
        read.append(path)
        return file_digest(path)

    monkeypatch.setattr(checkpoint, "file_digest", reading)
    learner = start(folder, learner_config(zero_stage=zero_stage))
    learner.update(1, groups)
    digests = learner.save(tmp_path / "learner")
    files = [path for path in (tmp_path / "learner").rglob("*") if path.is_file()]
    assert digests == {str(path.relative_to(tmp_path / "learner")): file_digest(path) for path in files}
    assert {path.suffix for path in read} <= {".json", ".py"}
    assert any(path.suffix == ".pt" for path in files)


def test_what_is_hashed_while_it_is_written_is_what_torch_reads_again(tmp_path) -> None:
    tensors = {"weights": torch.arange(100_000, dtype=torch.bfloat16), "step": 3}
    file = DigestingFile(tmp_path / "tensors.pt")
    torch.save(tensors, file)
    assert file.close() == file_digest(tmp_path / "tensors.pt")
    again = torch.load(tmp_path / "tensors.pt")
    assert torch.equal(again["weights"], tensors["weights"]) and again["step"] == 3


def test_a_full_disk_says_so() -> None:
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint._DigestingWriter().save({"weights": torch.zeros(100_000)}, "/dev/full")
