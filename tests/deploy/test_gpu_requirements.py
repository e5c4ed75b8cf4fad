"""What is installed beside a GPU is what pyproject.toml pins."""

import tomllib

from deploy.gpu_requirements import requirements
from tests.support.paths import ROOT

FILE = ROOT / "deploy" / "requirements-gpu.txt"


def test_the_file_is_what_pyproject_pins_now() -> None:
    assert FILE.read_text() == requirements(), "python deploy/gpu_requirements.py > deploy/requirements-gpu.txt"


def test_every_pin_of_a_gpu_machine_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = {*project["dependencies"], *extras["gpu"], *extras["dev"]}
    lines = {line for line in FILE.read_text().splitlines() if not line.startswith("#")}
    assert {line.replace("===", "==") for line in lines} == pins - {"deepspeed==0.19.8"}
    assert "torch===2.13.0" in lines  # a CPU build that is there satisfies torch==2.13.0
