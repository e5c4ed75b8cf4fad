"""The doctor's findings about the machine and what surrounds it, each failing case with its fix."""

import http.server
import json
import os
import socket
import subprocess
import threading
import venv
from pathlib import Path

import pytest

from orchestrator.doctor import cluster, container, machine, surroundings
from orchestrator.doctor.cluster import Process
from orchestrator.doctor.machine import GIB, Space
from rewards.sandbox.box import SandboxError, protections
from tests.orchestrator.doctor.test_doctor import NVIDIA_SMI, status_and_fix
from tests.support.paths import ROOT


def test_cores_and_what_they_can_do() -> None:
    modern = frozenset({"avx2", "avx512f"})
    status_and_fix(machine.check_cpu(8, 0.5, modern, "cpu", "x86_64"), "warning", "--cpus")
    status_and_fix(machine.check_cpu(8, None, frozenset({"sse2"}), "cpu", "x86_64"), "broken", "another machine")
    for flags, kind, architecture in (
        (modern, "cpu", "x86_64"),
        ({"sse2"}, "gpu", "x86_64"),
        ({"asimd"}, "cpu", "aarch64"),
    ):
        assert machine.check_cpu(8, 4.0, frozenset(flags), kind, architecture).status == "ok"


def test_memory() -> None:
    status_and_fix(machine.check_memory(64 * GIB, 2 * GIB, None), "broken", "ps aux")
    status_and_fix(machine.check_memory(64 * GIB, 60 * GIB, 4 * GIB), "warning", "--memory")
    assert machine.check_memory(64 * GIB, 60 * GIB, 32 * GIB).status == "ok"
    total, available = machine.memory()
    assert 0 < available <= total


def test_shared_memory() -> None:
    docker = machine.check_shared_memory(Space(GIB // 16, GIB // 16), 64 * GIB)
    status_and_fix(docker, "warning", "--shm-size=19g")
    full = machine.check_shared_memory(Space(32 * GIB, GIB), 64 * GIB)
    status_and_fix(full, "warning", "ls -lS /dev/shm")
    status_and_fix(machine.check_shared_memory(None, 64 * GIB), "broken", "--shm-size")
    assert machine.check_shared_memory(Space(32 * GIB, 31 * GIB), 64 * GIB).status == "ok"


def test_disks(tmp_path) -> None:
    move = "export RAYZERO_CACHE=/another/folder"
    for space, status in (
        (Space(GIB, GIB // 2), "broken"),
        (Space(9, 9 * GIB, False), "broken"),
        (Space(9, 2 * GIB), "warning"),
    ):
        status_and_fix(machine.check_disk("cache", tmp_path, space, 5, move), status, move)
    real = machine.space(tmp_path / "not" / "made" / "yet")
    assert real.writable and 0 < real.free <= real.total and not list(tmp_path.iterdir())


def test_rays_folder() -> None:
    fix = "RAY_TMPDIR"
    status_and_fix(machine.check_ray_folder(Path("/tmp"), Space(100 * GIB, 4 * GIB)), "broken", fix)
    status_and_fix(machine.check_ray_folder(Path("/" + 60 * "a"), Space(100 * GIB, 90 * GIB)), "broken", fix)
    assert machine.check_ray_folder(Path("/tmp"), Space(100 * GIB, 90 * GIB)).status == "ok"


def test_limits() -> None:
    status_and_fix(machine.check_descriptors(1024, 4096), "warning", "nofile=65536")
    assert machine.check_descriptors(1024, -1).status == machine.check_descriptors(1024, 65536).status == "ok"
    status_and_fix(machine.check_processes(-1, 500), "warning", "--pids-limit")
    assert machine.check_processes(-1, None).status == machine.check_processes(90000, 20000).status == "ok"


def test_limits_of_containers_and_jobs(tmp_path) -> None:
    own, root = tmp_path / "own", tmp_path / "cgroup"
    job = root / "slurm" / "job_7"
    job.mkdir(parents=True)
    own.write_text("0::/slurm/job_7\n")
    assert container.limit("memory.max", root=root, own=own) is None
    (job / "memory.max").write_text("max\n")
    (root / "slurm" / "memory.max").write_text(f"{8 * GIB}\n")
    (job / "cpu.max").write_text("150000 100000\n")
    assert container.limit("memory.max", root=root, own=own) == 8 * GIB
    assert container.cores(root, own) == 1.5

    old = tmp_path / "old" / "memory"
    old.mkdir(parents=True)
    own.write_text("4:memory:/docker/abc\n")  # a path of the host, not seen in the container
    (old / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert container.limit("memory.limit_in_bytes", root=tmp_path / "old", own=own) is None
    (old / "memory.limit_in_bytes").write_text(str(GIB))
    assert container.limit("memory.limit_in_bytes", root=tmp_path / "old", own=own) == GIB


@pytest.fixture
def taken():
    """A port of ours that is listened on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def web():
    """Answers HEAD with a status, and GET with a Ray dashboard's version."""

    class Handler(http.server.BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(json.dumps({"ray_version": "2.9.0"}).encode())

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()
        thread.join()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_who_listens_on_a_port(taken, monkeypatch) -> None:
    free = closed_port()
    assert cluster.listeners([taken, free]) == {taken: os.getpid()}
    monkeypatch.setattr(cluster, "PORTS", {taken: "Ray's head", free: "Ray clients"})
    monkeypatch.setattr(cluster, "PORT_OPTIONS", {taken: "--port", free: "--ray-client-server-port"})
    mine, other = cluster.check_ports(cluster.listeners(cluster.PORTS), cluster.processes(), None, "2.60.0")
    status_and_fix(mine, "warning", "ray start --head --port")
    assert f"pid {os.getpid()}" in mine.found and other.status == "ok"


def test_a_port_of_a_process_that_is_not_seen() -> None:
    finding = cluster.check_ports({6379: None}, [], None, "2.60.0")[0]
    status_and_fix(finding, "warning", "--port")
    assert "not seen" in finding.found


def test_a_cluster_that_runs_here(web) -> None:
    version = cluster.cluster_version(web.url)
    assert version == "2.9.0" and cluster.cluster_version(f"http://127.0.0.1:{closed_port()}") is None
    head = Process(5, 1, "/env/lib/python3.11/site-packages/ray/core/src/ray/gcs/gcs_server --port 6379")
    differs, same = (cluster.check_ports({6379: 5, 8265: None}, [head], version, ours) for ours in ("2.60.0", "2.9.0"))
    for finding in differs[:2]:
        status_and_fix(finding, "broken", "ray stop", "ray[default]==2.9.0")
    assert [finding.status for finding in same] == ["ok", "ok", "ok"]


def test_ray_address(taken) -> None:
    def check(address: str | None):
        return cluster.check_ray_address(address)

    status_and_fix(check(f"127.0.0.1:{closed_port()}"), "broken", "unset RAY_ADDRESS")
    status_and_fix(check("http://10.0.0.1:8265"), "broken", "RAY_ADDRESS=10.0.0.1:6379", "RAY_API_SERVER_ADDRESS")
    status_and_fix(check("somewhere"), "broken", "HOST:6379")
    for address in (None, "local", "auto", f"127.0.0.1:{taken}", f"ray://127.0.0.1:{taken}"):
        assert check(address).status == "ok"


def test_processes_that_no_run_owns() -> None:
    init = Process(1, 0, "/sbin/init")
    raylet = Process(70, 1, "/env/lib/python3.11/site-packages/ray/core/src/ray/raylet/raylet --head")
    engine = Process(71, 1, "VLLM::EngineCore")
    owned = Process(72, 60, raylet.command)
    other = Process(73, 1, "python -c import sys; sys.path[:] = ['/env/site-packages/ray/thirdparty_files']")
    at_home = Process(74, 1, "/home/ray/bin/jupyter notebook")
    found = cluster.check_left_behind([init, raylet, engine, owned, other, at_home], joins_cluster=False)
    status_and_fix(found, "warning", "ray stop")
    assert found.found == "raylet (pid 70), VLLM::EngineCore (pid 71)"
    assert cluster.check_left_behind([init, raylet, owned], joins_cluster=True).status == "ok"
    in_container = [Process(1, 0, "python -m ray.scripts start --head --block"), raylet]
    assert cluster.check_left_behind(in_container, joins_cluster=False).status == "ok"
    assert "1 Ray node in use" in cluster.check_left_behind([init, owned], joins_cluster=False).found


def test_sessions_that_ray_left(tmp_path) -> None:
    logs = tmp_path / "session_2026-01-01" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_bytes(b"x" * 100_000)
    (tmp_path / "session_latest").symlink_to(logs.parent)
    count, size = cluster.sessions(tmp_path)
    assert count == 1 and 100_000 <= size < 200_000
    assert cluster.check_sessions(tmp_path, count, size).status == "ok"
    status_and_fix(cluster.check_sessions(tmp_path, 40, 6 * GIB), "warning", f"rm -rf {tmp_path}/session_*")


@pytest.mark.parametrize(
    ("environment", "status", "fix"),
    [
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, "broken", "unset PYTORCH_CUDA_ALLOC_CONF"),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64,expandable_segments:true"}, "broken", "unset PYTORCH_ALLOC_CONF"),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, "warning", "unset CUDA_LAUNCH_BLOCKING"),
        ({"VLLM_ATTENTION_BACKEND": "X", "VLLM_USE_V1": "0"}, "warning", "unset VLLM_ATTENTION_BACKEND VLLM_USE_V1"),
        ({"https_proxy": "http://me:secret@proxy:3128"}, "warning", "export no_proxy="),
        ({"HTTP_PROXY": "http://me:secret@proxy:3128", "NO_PROXY": "localhost"}, "warning", "export no_proxy="),
    ],
)
def test_variables_that_do_harm(environment, status, fix) -> None:
    (finding,) = surroundings.check_variables(environment, "gpu")
    status_and_fix(finding, status, fix)
    assert "secret" not in str(finding)


def test_variables_that_do_none() -> None:
    (proxied,) = surroundings.check_variables({"http_proxy": "http://proxy", "no_proxy": "localhost, 127.0.0.1"}, "gpu")
    (without_gpu,) = surroundings.check_variables({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, "cpu")
    assert proxied.status == without_gpu.status == "ok"


def test_the_hub(web, monkeypatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    assert surroundings.check_hub({"HF_ENDPOINT": web.url}).status == "ok"
    web.RequestHandlerClass.status = 403
    forbidden = surroundings.check_hub({"HF_ENDPOINT": web.url})
    status_and_fix(forbidden, "warning", "HF_HUB_OFFLINE=1")
    assert "403" in forbidden.found
    gone = surroundings.check_hub({"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"})
    assert gone.status == "warning" and "refused" in gone.found
    assert "offline" in surroundings.check_hub({"HF_ENDPOINT": web.url, "HF_HUB_OFFLINE": "1"}).found


def test_logins_are_seen_and_never_shown(tmp_path) -> None:
    absent = surroundings.check_login({}, tmp_path, tmp_path)
    assert ["no token" in absent[0].found, "no login" in absent[1].found] == [True, True]
    (tmp_path / "token").write_text("hf_secret")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    by_file = surroundings.check_login({}, tmp_path, tmp_path)
    by_variable = surroundings.check_login(
        {"HF_TOKEN": "hf_secret", "WANDB_API_KEY": "secret"}, Path("/none"), Path("/none")
    )
    for found in (by_file, by_variable):
        assert [finding.found for finding in found] == ["token present", "login present"]
    assert "secret" not in str(by_file + by_variable)


def test_hub_folder(tmp_path) -> None:
    assert surroundings.hub_folder({"HF_HOME": "/models"}) == Path("/models")
    assert surroundings.hub_folder({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/huggingface")
    status_and_fix(surroundings.check_hub_folder(tmp_path, Space(9, 9, False)), "warning", "HF_HOME")


def test_sandbox() -> None:
    def refuses():
        raise SandboxError("a box did not start")

    real = protections()
    assert surroundings.check_sandbox(lambda: real).status == ("ok" if all(real.values()) else "warning")
    bare = surroundings.check_sandbox(lambda: {"network": (), "files": ("landlock",)})
    status_and_fix(bare, "warning", "seccomp=unconfined")
    assert bare.found == "nothing protects network"
    status_and_fix(surroundings.check_sandbox(refuses), "warning", "user namespaces")


@pytest.fixture
def bare_doctor(tmp_path):
    """The doctor in a real environment without a single package; rich and pydantic are missing too."""
    (tmp_path / "home").mkdir()
    venv.create(tmp_path / "bare", with_pip=False)

    def findings(path: str) -> dict[str, dict[str, str]]:
        done = subprocess.run(
            [tmp_path / "bare" / "bin" / "python", "-m", "orchestrator.cli", "doctor", "--json"],
            cwd=ROOT,
            env={"HOME": str(tmp_path / "home"), "PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "")
        assert not list((tmp_path / "home").iterdir()), "the doctor left files behind"
        found = json.loads(done.stdout)
        assert all(finding["fix"] for finding in found if finding["status"] != "ok")
        return {finding["name"]: finding for finding in found}

    return findings


def test_the_doctor_answers_where_nothing_is_installed(bare_doctor) -> None:
    found = bare_doctor(os.environ["PATH"])
    for name in ("torch", "transformers", "ray", "deepspeed", "packages"):
        assert found[name]["status"] == "broken" and "make install" in found[name]["fix"]
    assert found["memory"]["found"] and found["sandbox"]["found"]


def test_the_doctor_asks_for_the_gpu_set_where_a_gpu_is(bare_doctor, tmp_path) -> None:
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    found = bare_doctor(f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert {"gpu 0", "gpu 1", "driver", "compiler", "vllm", "bitsandbytes"} <= set(found)
    assert (found["gpu 1"]["status"], "vllm 0.32.0") == ("warning", found["vllm"]["expected"])
