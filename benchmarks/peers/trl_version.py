"""The version of TRL that the comparisons are written against, which the project does not install."""

from importlib.metadata import PackageNotFoundError, version

TRL = "1.16.0"


def missing_trl() -> str | None:
    """Return what is missing, in a sentence; None where that version can be imported."""
    try:
        found = version("trl")
    except PackageNotFoundError:
        found = "none"
    if found == TRL:
        return None
    return f"this needs trl {TRL}, found {found}: the docstring says how to get it"
