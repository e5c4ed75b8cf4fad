"""The doctor's findings about what surrounds a run, each failing case with its fix."""

import http.server
import json
import os
import socket
import threading
from pathlib import Path

import pytest

from orchestrator.doctor import host_facts, services
from orchestrator.doctor.host_facts import GIB, Process, Space
from rewards.sandbox.box import SandboxError, protections
from tests.support.doctor import status_and_fix


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
    assert host_facts.listeners([taken, free]) == {taken: os.getpid()}
    monkeypatch.setattr(services, "PORTS", {taken: "Ray's head", free: "Ray clients"})
    monkeypatch.setattr(services, "PORT_OPTIONS", {taken: "--port", free: "--ray-client-server-port"})
    mine, other = services.check_ports(host_facts.listeners(services.PORTS), host_facts.processes(), None, "2.60.0")
    status_and_fix(mine, "warning", "ray start --head --port")
    assert f"pid {os.getpid()}" in mine.found and other.status == "ok"


def test_a_port_of_a_process_that_is_not_seen() -> None:
    finding = services.check_ports({6379: None}, [], None, "2.60.0")[0]
    status_and_fix(finding, "warning", "--port")
    assert "not visible" in finding.found


def test_a_cluster_that_runs_here(web) -> None:
    version = services.cluster_version(web.url)
    assert version == "2.9.0" and services.cluster_version(f"http://127.0.0.1:{closed_port()}") is None
    head = Process(5, 1, "/env/lib/python3.11/site-packages/ray/core/src/ray/gcs/gcs_server --port 6379")
    differs, same = (services.check_ports({6379: 5, 8265: None}, [head], version, ours) for ours in ("2.60.0", "2.9.0"))
    for finding in differs[:2]:
        status_and_fix(finding, "broken", "ray stop", "ray[default]==2.9.0")
    assert [finding.status for finding in same] == ["ok", "ok", "ok"]


def test_ray_address(taken) -> None:
    def check(address: str | None):
        return services.check_address(address)

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
    found = services.check_left_behind([init, raylet, engine, owned, other, at_home], joins_cluster=False)
    status_and_fix(found, "warning", "ray stop")
    assert found.found == "raylet (pid 70), VLLM::EngineCore (pid 71)"
    assert services.check_left_behind([init, raylet, owned], joins_cluster=True).status == "ok"
    in_container = [Process(1, 0, "python -m ray.scripts start --head --block"), raylet]
    assert services.check_left_behind(in_container, joins_cluster=False).status == "ok"
    assert "1 Ray node in use" in services.check_left_behind([init, owned], joins_cluster=False).found


def test_sessions_that_ray_left(tmp_path) -> None:
    logs = tmp_path / "session_2026-01-01" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_bytes(b"x" * 100_000)
    (tmp_path / "session_latest").symlink_to(logs.parent)
    count, size = services.sessions(tmp_path)
    assert count == 1 and 100_000 <= size < 200_000
    assert services.check_sessions(tmp_path, count, size).status == "ok"
    status_and_fix(services.check_sessions(tmp_path, 40, 6 * GIB), "warning", f"rm -rf {tmp_path}/session_*")


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
    (finding,) = services.check_variables(environment, "gpu")
    status_and_fix(finding, status, fix)
    assert "secret" not in str(finding)


def test_variables_that_do_none() -> None:
    (proxied,) = services.check_variables({"http_proxy": "http://proxy", "no_proxy": "localhost, 127.0.0.1"}, "gpu")
    (without_gpu,) = services.check_variables({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, "cpu")
    assert proxied.status == without_gpu.status == "ok"


def test_the_hub(web, monkeypatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    assert services.check_hub({"HF_ENDPOINT": web.url}).status == "ok"
    web.RequestHandlerClass.status = 403
    forbidden = services.check_hub({"HF_ENDPOINT": web.url})
    status_and_fix(forbidden, "warning", "HF_HUB_OFFLINE=1")
    assert "403" in forbidden.found
    gone = services.check_hub({"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"})
    assert gone.status == "warning" and "refused" in gone.found
    assert "offline" in services.check_hub({"HF_ENDPOINT": web.url, "HF_HUB_OFFLINE": "1"}).found


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_logins_are_seen_and_never_shown(tmp_path, host) -> None:
    absent = services.check_login({}, tmp_path, tmp_path)
    assert ["no token" in absent[0].found, "no login" in absent[1].found] == [True, True]
    (tmp_path / "token").write_text("hf_secret")
    (tmp_path / ".netrc").write_text(f"machine {host} login user password secret\n")
    by_file = services.check_login({}, tmp_path, tmp_path)
    by_variable = services.check_login(
        {"HF_TOKEN": "hf_secret", "WANDB_API_KEY": "secret"}, Path("/none"), Path("/none")
    )
    for found in (by_file, by_variable):
        assert [finding.found for finding in found] == ["token present", "login present"]
    assert "secret" not in str(by_file + by_variable)


def test_hub_folder(tmp_path) -> None:
    assert services.hub_folder({"HF_HOME": "/models"}) == Path("/models")
    assert services.hub_folder({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/huggingface")
    status_and_fix(services.check_hub_folder(tmp_path, Space(9, 9, False)), "warning", "HF_HOME")
    status_and_fix(services.check_hub_folder(tmp_path, Space(64 * GIB, GIB)), "warning", "HF_HOME=/another/folder")
    assert services.check_hub_folder(tmp_path, Space(64 * GIB, 8 * GIB)).status == "ok"


def test_sandbox() -> None:
    def refuses():
        raise SandboxError("a box did not start")

    real = protections()
    assert services.check_sandbox(lambda: real).status == ("ok" if all(real.values()) else "warning")
    bare = services.check_sandbox(lambda: {"network": (), "files": ("landlock",)})
    status_and_fix(bare, "warning", "seccomp=unconfined")
    assert bare.found == "not protected: network"
    status_and_fix(services.check_sandbox(refuses), "warning", "user namespaces")
