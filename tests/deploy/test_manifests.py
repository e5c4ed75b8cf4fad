"""Images and manifests: versions agree with the pins, names with each other, and no secret is written down."""

import ast
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from orchestrator.cli import recipe_and_overrides
from orchestrator.config.recipe import load
from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILES = [DEPLOY / "docker" / name for name in ("Dockerfile", "Dockerfile.cpu")]
KUBERAY = sorted((DEPLOY / "kuberay").glob("*.yaml"))
USER_ID = 10001


def pinned(name: str) -> str:
    """The version that pyproject.toml pins."""
    extras = PROJECT["optional-dependencies"].values()
    pins = [*PROJECT["dependencies"], *(pin for extra in extras for pin in extra)]
    (version,) = {pin.partition("==")[2] for pin in pins if re.split(r"[=\[]", pin)[0] == name}
    return version


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "kuberay" / f"{name}.yaml").read_text())


def instructions(dockerfile: Path) -> list[tuple[str, list[str]]]:
    """Each instruction and its words, continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.split()[0], shlex.split(line)[1:]) for line in text.splitlines() if line.strip()]


def pod_specs(of: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = of["spec"].get("rayClusterSpec", of["spec"])
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", []))]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_everything_that_an_image_copies_exists_and_passes_its_dockerignore(dockerfile: Path) -> None:
    allowed = {line[1:] for line in Path(f"{dockerfile}.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [source for name, words in instructions(dockerfile) if name == "COPY" for source in words[:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists() and source.split("/")[0] in allowed, source
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests"}
    assert packages <= set(copied)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_start_from_a_pinned_base_and_run_as_a_user_without_secrets(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    (base,) = [words[0] for name, words in found if name == "FROM"]
    assert re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-[a-z0-9.-]+", base)
    assert [words for name, words in found if name == "USER"] == [["rayzero"]]
    assert f"useradd --uid {USER_ID}" in dockerfile.read_text()
    assert not re.search(r"TOKEN|API_KEY|SECRET|PASSWORD", dockerfile.read_text())


def test_the_gpu_image_installs_what_the_installer_would() -> None:
    text = DOCKERFILES[0].read_text()
    tree = ast.parse((DEPLOY / "install.py").read_text())
    (tools,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "BUILD_TOOLS"
    ]
    pins = re.findall(r"\S+==\S+", text)
    assert set(pins) == {*tools, f"deepspeed=={pinned('deepspeed')}"}
    assert "requirements-gpu.txt" in text
    requirements = (DEPLOY / "requirements-gpu.txt").read_text()
    for name, pin in (("torch", "==="), ("vllm", "=="), ("transformers", "==")):
        assert f"\n{name}{pin}{pinned(name)}\n" in requirements
    assert "DS_IGNORE_CUDA_DETECTION=1 pip install --no-build-isolation deepspeed" in text
    python = re.search(r"python3\.(\d+) -m venv", text)
    assert python is not None and int(python[1]) >= int(PROJECT["requires-python"].removeprefix(">=3."))


@pytest.mark.parametrize("file", KUBERAY, ids=lambda path: path.stem)
def test_kubernetes_manifests_name_their_kind(file: Path) -> None:
    found = yaml.safe_load(file.read_text())
    kinds = {"RayJob": "ray.io/v1", "RayCluster": "ray.io/v1", "PersistentVolumeClaim": "v1"}
    assert found["apiVersion"] == kinds[found["kind"]]
    assert re.fullmatch(r"[a-z0-9-]+", found["metadata"]["name"])


@pytest.mark.parametrize("name", ["rayjob", "raycluster"])
def test_rays_pods_have_the_pinned_versions_the_volume_and_the_secret(name: str) -> None:
    found = manifest(name)
    cluster = found["spec"].get("rayClusterSpec", found["spec"])
    assert cluster["rayVersion"] == pinned("ray")
    for pod in pod_specs(found):
        (container,) = pod["containers"]
        assert container["image"].endswith(f"/rayzero:{PROJECT['version']}-gpu")
        assert pod["securityContext"]["fsGroup"] == USER_ID
        assert container["envFrom"] == [{"secretRef": {"name": "rayzero-secrets", "optional": True}}]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert mounts.keys() == volumes.keys() and mounts["runs"] == "/runs" and "/dev/shm" in mounts.values()
        claim = volumes["runs"]["persistentVolumeClaim"]["claimName"]
        assert claim == manifest("runs")["metadata"]["name"]
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_somebody_has_the_gpu_and_the_head_of_the_lasting_cluster_takes_no_actors() -> None:
    gpus = [
        [pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for pod in pod_specs(manifest(name))]
        for name in ("rayjob", "raycluster")
    ]
    assert gpus == [["1"], [None, "1"]]
    head = manifest("raycluster")["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0" and head["serviceType"] == "ClusterIP"


def test_the_ray_job_trains_a_recipe_that_loads_and_resumes_after_a_failure() -> None:
    spec = manifest("rayjob")["spec"]
    program, script, *arguments = shlex.split(spec["entrypoint"])
    config = load(*recipe_and_overrides(arguments))
    assert program == "bash" and config.runs_dir == "/runs"
    (workdir, *_) = [words[0] for name, words in instructions(DOCKERFILES[0]) if name == "WORKDIR"]
    assert (ROOT / Path(script).relative_to(workdir)).is_file()
    assert spec["backoffLimit"] > 0 and spec["shutdownAfterJobFinishes"] is True
    variables = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert all(isinstance(value, str) for value in variables.values())
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) >= 600


def test_the_cluster_file_passes_rays_own_schema_and_keeps_the_dashboard_to_itself() -> None:
    found = yaml.safe_load((DEPLOY / "ray-cluster" / "machines.yaml").read_text())
    validate_config(prepare_config(found))
    head, worker = found["head_start_ray_commands"][-1], found["worker_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head and "--address=$RAY_HEAD_IP:6379" in worker
    assert all(". ~/rayzero.env" in command for command in (head, worker))


@pytest.mark.parametrize(
    "file", [*KUBERAY, DEPLOY / "ray-cluster" / "machines.yaml"], ids=lambda path: path.relative_to(DEPLOY).as_posix()
)
def test_no_manifest_holds_the_value_of_a_secret(file: Path) -> None:
    def walk(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [*map(str, value), *(text for each in value.values() for text in walk(each))]
        return [text for each in value for text in walk(each)] if isinstance(value, list) else [str(value)]

    for text in walk(yaml.safe_load(file.read_text())):
        assert not re.search(r"API_KEY|TOKEN|PASSWORD", text), text


@pytest.mark.parametrize(
    "page", [*DOCKERFILES, *sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_containers_get_gpus_and_shared_memory(page: Path) -> None:
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    for command in re.findall(r"docker run .*rayzero:\S+.*", text):
        assert "--shm-size=" in command
        assert "--gpus all" in command or "-cpu" in command
    if "docker build" in text:
        assert "docker run " in text
