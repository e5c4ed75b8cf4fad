"""A model folder has a fingerprint that is quick to take and that training changes."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from orchestrator.records.origin import model_files as module
from orchestrator.records.origin.model_files import model_files

TENSORS = {f"layer.{n}": np.full((300, 200), n, dtype=np.float32) for n in range(5)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("A model.")
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sampled(monkeypatch) -> None:
    """Let a megabyte be a large file."""
    monkeypatch.setattr(module, "WHOLE_BYTES", 1000)


def test_files_that_decide_nothing_do_not_count(folder) -> None:
    before = model_files(str(folder))
    assert set(before) == {"config.json", "model.safetensors"}
    (folder / "README.md").write_text("A better model.")
    (folder / "config.json").touch()
    assert model_files(str(folder)) == before
    (folder / "config.json").write_text('{"a": 1}')
    changed = model_files(str(folder))
    assert {name for name in before if changed[name] != before[name]} == {"config.json"}


def test_a_copy_elsewhere_is_the_same_model(folder, tmp_path_factory) -> None:
    copy = tmp_path_factory.mktemp("copy")
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert model_files(str(copy)) == model_files(str(folder))


@pytest.mark.parametrize("name", TENSORS)
def test_a_change_of_any_tensor_of_a_large_file_is_noticed(folder, sampled, name) -> None:
    before = model_files(str(folder))["model.safetensors"]
    save_file({**TENSORS, name: TENSORS[name] + 1e-3}, folder / "model.safetensors")
    assert model_files(str(folder))["model.safetensors"] != before


def test_a_large_file_is_read_in_part(folder, sampled, monkeypatch) -> None:
    read = []
    whole = module.sampled_digest

    def counting(file, size, has_header):
        original = file.read

        class Counting:
            seek = file.seek

            def read(self, count):
                read.append(count)
                return original(count)

        return whole(Counting(), size, has_header)

    monkeypatch.setattr(module, "sampled_digest", counting)
    model_files(str(folder))
    assert 5 * 3 * module.PIECE_BYTES <= sum(read) < (folder / "model.safetensors").stat().st_size / 10


@pytest.mark.parametrize(
    "header",
    [
        b"no json",
        json.dumps({"a": {"data_offsets": [0, 10**12]}}).encode(),
        json.dumps({"a": {"data_offsets": [-999, -99]}}).encode(),
        json.dumps({"a": {"data_offsets": ["0", "9"]}}).encode(),
        b"[" * 100_000,
    ],
    ids=["no JSON", "outside", "before", "no numbers", "deep"],
)
def test_a_file_with_a_bad_header_has_a_fingerprint_too(folder, sampled, header) -> None:
    content = len(header).to_bytes(8, "little") + header + bytes(100_000)
    (folder / "model.safetensors").write_bytes(content)
    before = model_files(str(folder))["model.safetensors"]
    (folder / "model.safetensors").write_bytes(content[:-1] + b"1")
    assert model_files(str(folder))["model.safetensors"] != before


def test_of_a_model_of_the_hub_the_commit_is_known(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_: "/cache/models--a--b/snapshots/0123abc/config.json"
    )
    assert model_files("a/b") == {"revision": "0123abc"}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    assert model_files("a/b") == {}
