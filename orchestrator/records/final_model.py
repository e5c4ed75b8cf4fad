"""The step of the model in a run's `final/`. A run that is trained on keeps the old model until it exports the new one.

Times of files cannot tell: copies of a folder have others, and clocks are set back.
"""

from __future__ import annotations

from pathlib import Path

FILE = "step"
"""The file in `final/` with the step. As it has no ending it is no file of the model, and is not uploaded."""


def note_step(folder: Path, step: int) -> None:
    """Write down which step's model the folder holds."""
    (folder / FILE).write_text(f"{step}\n")


def step_of_model(final: Path) -> int | None:
    """Return the step whose model `final/` holds; None if it is unknown, as of earlier versions, or there is none."""
    try:
        return int((final / FILE).read_text())
    except (OSError, ValueError):
        return None


def has_model_of(final: Path, step: int) -> bool:
    """Return whether `final/` holds the model of that step, or one of an unknown step."""
    return final.exists() and step_of_model(final) in (None, step)
