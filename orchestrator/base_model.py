"""Load or build the policy with which a run starts. A warm-started policy is cached for the next run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from learner.backend.file_digests import file_digest
from orchestrator.config.schema import RunConfig
from orchestrator.model_source import PolicyError, is_gguf, located
from orchestrator.records.final_model import note_step
from rollout.supervised.pairs import digest_of_file
from rollout.types.paths import from_home


class ModelFolderError(RuntimeError):
    """A model cannot be written."""


class Exporting(Protocol):
    """The learner's interface for writing a model folder."""

    def export(self, folder: Path) -> None: ...


def cache_folder() -> Path:
    """Return the folder that caches built and warm-started policies: RAYZERO_CACHE, or ~/.cache/rayzero."""
    return Path(from_home(os.environ.get("RAYZERO_CACHE", "~/.cache/rayzero")))


def written_folders(config: RunConfig) -> dict[str, Path]:
    """Return the folders to which learner ranks write, by the setting that names each."""
    folders = {"runs_dir": config.directory.resolve()}
    return folders | ({"RAYZERO_CACHE": cache_folder()} if config.warm_start.num_steps else {})


def base_model(config: RunConfig) -> str:
    """Return folder or hub name of the policy before any training; build or convert it if the recipe requires that.

    Raises PolicyError for a folder without a model.
    """
    if config.model.build is None:
        assert config.model.path is not None
        return local_model(config.model.path)
    folder = cache_folder() / f"built-{key(base_cache_key(config))}"
    if not folder.exists():
        # Imported here: it loads torch, which a run whose policy is cached does not need in this process.
        from learner.model.build import build_model

        with cached_model(folder) as aside:
            build_model(config.model.build, config.warm_start.seed, aside)
    return str(folder)


def local_model(path: str) -> str:
    """Return the Hugging Face folder or hub name for a `model.path`. Converts a GGUF file, once.

    Raises PolicyError if there is no model.
    """
    found = located(path)
    if not is_gguf(found) or Path(found).is_dir():
        return check_model(found)
    file = Path(found)
    if not file.is_file():
        raise PolicyError(f"model.path = {path!r}: there is no such file")
    digest = file_digest(file).rpartition(":")[2]
    folder = cache_folder() / f"gguf-{digest[:16]}"
    if not folder.exists():
        from learner.model.gguf import GgufError, convert_gguf

        print(f"converting {file.name}, once, to {folder} ...", flush=True)
        try:
            with cached_model(folder) as aside:
                convert_gguf(file, aside)
        except GgufError as error:
            raise PolicyError(f"model.path = {path!r}: {error}") from error
    return str(folder)


def check_model(path: str) -> str:
    """Return `path` itself. Raises PolicyError if it looks like a local folder but is not a Hugging Face model."""
    folder = Path(path)
    looks_local = folder.exists() or path.startswith((".", "/", "~")) or path.count("/") != 1
    if looks_local and not (folder / "config.json").is_file():
        what = "does not exist" if not folder.exists() else "has no config.json"
        raise PolicyError(f"{path!r} is not a model: it {what}. Give a Hugging Face folder, such as runs/<name>/final")
    return path


def load_tokenizer(model: str) -> Any:
    """Return the model's tokenizer, from its folder or the hub."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def warm_start_folder(config: RunConfig, left_out: str = "") -> Path:
    """Return the cache's folder for this recipe's warm-started policy. Raises PairError if its data cannot be read.

    Args:
        left_out: identifies the examples that are left out because their questions are held out.
    """
    settings = warm_start_cache_key(config) | ({"left_out": left_out} if left_out else {})
    return cache_folder() / f"warm-{key(settings)}"


def base_cache_key(config: RunConfig) -> dict[str, Any]:
    """Return all settings on which the policy before any training depends."""
    if config.model.build is not None:
        return {"build": config.model.build.model_dump(mode="json"), "seed": config.warm_start.seed}
    assert config.model.path is not None
    path = located(config.model.path)
    folder = Path(path)
    if is_gguf(path) and folder.is_file():
        return {"gguf": file_digest(folder)}
    # A local folder may be replaced by a newer model. Sizes and times show that, without reading gigabytes.
    files = {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.glob("*") if file.is_file()}
    return {"path": str(folder.resolve()) if files else config.model.path, "files": files}


def warm_start_cache_key(config: RunConfig) -> dict[str, Any]:
    """Return all settings on which the warm-started policy depends."""
    learner = ("num_ranks", "zero_stage", "optimizer")
    warm = config.warm_start
    taught = (
        {"data": digest_of_file(warm.data)}
        if warm.data is not None
        else {
            "traces": config.traces.model_dump(mode="json"),
            "prompts": config.prompts.model_dump(mode="json", exclude={"mixture", "curriculum", "one_shot_steps"}),
        }
    )
    return (
        base_cache_key(config)
        | {"warm_start": warm.model_dump(mode="json", exclude={"data", "pretrained"}), "dtype": config.model.dtype}
        | {"learner": {name: getattr(config.learner, name) for name in learner}}
        | taught
    )


def key(settings: dict[str, Any]) -> str:
    """Return a short hash of the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def cached_model(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder for a model, and rename it to `folder` at the end, unless another run was faster.

    Raises ModelFolderError if the disk refuses.
    """
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    with nothing_torn(aside, folder, "or set RAYZERO_CACHE to another folder, and start the same command again"):
        yield aside
        try:
            aside.rename(folder)
        except OSError:
            if not folder.exists():
                raise


def export_whole(learner: Exporting, folder: Path, step: int) -> None:
    """Export the model of `step` aside, then replace `folder` by it, so that `folder` never has a part of a model.

    Raises ModelFolderError if the disk refuses.
    """
    aside = folder.with_name(f"{folder.name}.tmp")
    advice = "and start the same command again: it exports the last checkpoint, which is complete"
    with nothing_torn(aside, folder, advice):
        learner.export(aside)
        note_step(aside, step)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


@contextmanager
def nothing_torn(aside: Path, folder: Path, advice: str) -> Iterator[None]:
    """Let the context write a model to `aside` and rename it to `folder`. Always remove `aside` afterwards."""
    shutil.rmtree(aside, ignore_errors=True)
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not an error of the disk
            raise
        raise ModelFolderError(
            f"cannot write the model to {folder}: {error.strerror}. Free space or fix permissions there {advice}"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
