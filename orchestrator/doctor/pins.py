"""The versions that this project is tested with, and those that are installed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal

from orchestrator.doctor.finding import Finding, ok, warning

Distribution = Literal["cpu", "gpu"]
"""Which set of packages this machine needs."""

_PIN = re.compile(r'([\w.-]+)(?:\[[^\]]*\])? *== *([^\s;]+)(?: *; *extra *== *["\'](\w+)["\'])?')


def normal(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_version(name: str) -> str | None:
    """Of a distribution, by its metadata alone; None when there is none, or it is damaged."""
    try:
        return metadata.version(name)
    except Exception:  # noqa: BLE001  damaged metadata fails in many ways, and all mean the same
        return None


def requirements(root: Path) -> tuple[list[str], str]:
    """Requirements as in package metadata, ``name==1.0; extra == "gpu"``, and the Python that is wanted, ``>=3.11``.

    Read from the checkout at `root`; where there is none, from the installed package. Nothing on a Python without tomllib.
    """
    try:
        import tomllib
    except ImportError:
        return [], ""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    except OSError:
        return installed_requirements()
    extras = project.get("optional-dependencies", {})
    optional = [f'{line}; extra == "{extra}"' for extra, lines in extras.items() for line in lines]
    return [*project["dependencies"], *optional], project["requires-python"]


def installed_requirements() -> tuple[list[str], str]:
    try:
        return metadata.requires("rayzero") or [], metadata.metadata("rayzero")["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        return [], ""


def pins(lines: Iterable[str], kind: Distribution) -> dict[str, str]:
    """Name -> version that `lines` pin, for everybody and for this kind of machine."""
    matches = [match for line in lines if (match := _PIN.match(line.strip()))]
    return {normal(match[1]): match[2] for match in matches if match[3] in (None, kind)}


def same(installed: str, wanted: str) -> bool:
    """Whether a version is the pinned one; a pin without a local part (``+cpu``) takes any."""
    return installed == wanted or ("+" not in wanted and installed.partition("+")[0] == wanted)


def check_pins(
    name: str, wanted: Mapping[str, str], installed: Mapping[str, str | None], fix: str, *, optional: bool = False
) -> Finding:
    """Whether `installed` is what `wanted` pins. A missing package breaks a run unless `optional`; another version may."""
    missing = [package for package in wanted if installed.get(package) is None]
    other = [
        f"{package} {found}, not {version}"
        for package, version in wanted.items()
        if (found := installed.get(package)) is not None and not same(found, version)
    ]
    if not missing and not other:
        return ok(name, f"{len(wanted)} packages as pinned")
    said = "; ".join(filter(None, [f"missing: {shortened(missing)}" if missing else "", shortened(other)]))
    finding = warning(name, said, f"the {len(wanted)} pinned versions", fix)
    return finding if optional or not missing else Finding(name, "broken", said, finding.expected, fix)


def shortened(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
