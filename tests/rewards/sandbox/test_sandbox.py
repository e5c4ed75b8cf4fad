"""A box keeps things away from the code in it, and nothing is left of it afterwards. Programs here attack for real."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rewards.sandbox.box import Box, Limits, SandboxError, check_protections, protections
from rewards.sandbox.trial import run_trial
from tests.support.boxes import run


def test_the_workers_umask_does_not_matter() -> None:
    before = os.umask(0o077)
    try:
        assert run("import json, tempfile; print(json.dumps(1))") == ("1\n", 0)
    finally:
        os.umask(before)


def test_everything_is_protected_here_by_more_than_one_step() -> None:
    found = protections()
    assert set(found) == {"network", "files", "processes"}
    assert all(len(steps) >= 2 for steps in found.values()), found
    check_protections()


def test_a_program_runs_as_usual() -> None:
    program = """
        import atexit, heapq, sys, threading
        atexit.register(lambda: print("at exit"))
        sys.setrecursionlimit(10**6)
        threading.stack_size(2**26)
        def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
        threading.Thread(target=lambda: print(depth(30_000), input(), heapq.nsmallest(1, [3, 1]))).start()
        if __name__ == "__main__":
            with open("notes", "w") as file: file.write("x")
            print(open("notes").read())
    """
    output, exit_code = run(program, "given\n")
    assert (sorted(output.splitlines()), exit_code) == (["30000 given [1]", "at exit", "x"], 0)


def test_it_finds_nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "run" / "metrics.jsonl"
    secret.parent.mkdir()
    secret.write_text("secret")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    with secret.open():
        output, _ = run(f"""
            import os, sys
            print(sorted(os.environ), os.getcwd(), os.path.exists("/proc/self"), os.path.exists("/etc"))
            print([number for number in range(3, 256) if os.path.exists(f"/dev/fd/{{number}}")])
            for path in ("/etc/passwd", "/proc/1/environ", {str(secret)!r}, {str(Path(__file__))!r},
                         {str(Path.home() / ".bashrc")!r}):
                try: print(path, open(path).read())
                except OSError as error: print("refused")
            for number in range(3, 256):
                try: print("open", number, os.fstat(number))
                except OSError: pass
            print(os.listdir({str(Path(os.__file__).parent)!r} + "/site-packages"))
        """)
    lines = output.splitlines()
    assert lines[0] == "['LANG', 'MALLOC_ARENA_MAX', 'PYTHONHASHSEED'] /tmp False False"
    assert lines[1:] == ["[]", *["refused"] * 5, "[]"]


def test_it_reaches_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        output, _ = run(f"""
            import ctypes, os, socket
            for family, address in ((socket.AF_INET, ("127.0.0.1", {server.getsockname()[1]})),
                                    (socket.AF_UNIX, {str(tmp_path / "socket")!r})):
                try: socket.socket(family).connect(address); print("connected")
                except OSError as error: print("refused")
            print(ctypes.CDLL(None).socket(2, 1, 0))
        """)
    assert output.split() == ["refused", "refused", "-1"]


def test_it_starts_ends_and_reads_no_process() -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    output, _ = run(f"""
        import ctypes, os, signal, subprocess
        libc = ctypes.CDLL(None)
        def attempt(what):
            try: return what()
            except OSError: return "refused"
        print(attempt(os.fork), attempt(lambda: subprocess.run(["true"])),
              attempt(lambda: os.posix_spawn("/bin/true", ["true"], {{}})))
        for process in ({victim.pid}, os.getppid(), -1):
            print(attempt(lambda: os.kill(process, signal.SIGKILL)), libc.ptrace(16, process, 0, 0))
        print(attempt(os.setsid), attempt(lambda: os.execv("/proc/self/exe", ["python"])),
              attempt(lambda: open(f"/proc/{{os.getppid()}}/mem")))
        print(libc.unshare(0x10000000), libc.mount(b"none", b"/tmp", b"tmpfs", 0, 0), libc.chroot(b"/tmp"),
              libc.setuid(0))
        libc.syscall.restype = ctypes.c_long
        print([libc.syscall(number, 0, 0, 0, 0, 0) for number in (425, 321, 298, 323, 101, 310, 250)])
    """)
    lines = output.splitlines()
    assert lines[:5] == ["refused refused refused", *["refused -1"] * 3, "refused refused refused"]
    assert lines[5] == "-1 -1 -1 -1"
    assert lines[6] == str([-1] * 7)
    assert victim.poll() is None
    victim.kill()
    victim.wait()


def test_what_it_writes_is_small_and_gone() -> None:
    before = set(Path("/tmp").iterdir())
    output, _ = run("""
        import os
        total = 0
        for number in range(100):
            try:
                with open(f"/tmp/file-{number}-of-a-box", "wb") as file:
                    for _ in range(64): total += file.write(bytes(2**20))
            except OSError: break
        print(total <= 16 * 2**20, total > 0)
        for path in ("/file", "/dev/file", "/usr/file", "/home/file", "/root/file", "/dev/shm/file"):
            try: open(path, "w"); print("written")
            except OSError: print("refused")
        for change in (lambda: os.symlink("/etc/passwd", "/tmp/link"), lambda: os.link("/dev/null", "/tmp/null"),
                       lambda: os.mkfifo("/tmp/fifo"), lambda: os.chmod("/tmp", 0), lambda: os.memfd_create("x")):
            try: change(); print("done")
            except OSError: print("refused")
    """)
    assert output.splitlines() == ["True True", *["refused"] * 11]
    assert not {path for path in set(Path("/tmp").iterdir()) - before if "of-a-box" in path.name}


@pytest.mark.slow
def test_memory_threads_output_and_time_are_bounded() -> None:
    assert run("print(len(bytearray(2**30)))") == ("", 1)
    many_threads = """
        import threading, time
        count = 0
        try:
            while count < 1000: threading.Thread(target=time.sleep, args=(20,), daemon=True).start(); count += 1
        except RuntimeError: pass
        print(count < 100, flush=True)
        import os; os._exit(0)
    """
    assert run(many_threads) == ("True\n", 0)
    assert run("while True: print('x' * 10_000)") == ("", None)
    assert run("while True: pass", time_limit_s=0.2) is None
    assert run("import time; time.sleep(60)", time_limit_s=0.2) is None


def test_the_sockets_of_a_pair_reach_nothing_else(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local:
        local.bind(str(tmp_path / "socket"))
        output, _ = run(f"""
            import socket
            ours, theirs = socket.socketpair()
            ours.send(b"x")
            print(theirs.recv(1))
            path = {str(tmp_path / "socket")!r}
            for attempt in (lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
                            lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
                            lambda: ours.connect(path), lambda: ours.bind(path), lambda: ours.sendto(b"x", path),
                            lambda: ours.sendmsg([b"x"], [(1, 1, bytes(4))])):
                try: print("done", attempt())
                except OSError as error: print("refused")
        """)
    assert output.splitlines() == ["b'x'", *["refused"] * 6]


def test_a_box_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxError, match="KeyError: 'nonsense'"), Box("nonsense", {}, Limits(5)) as box:
        box.active()


def test_what_the_judge_cannot_do_in_its_time_is_no_verdict() -> None:
    limits = {"time_limit_s": 60, "total_time_limit_s": 60}
    problem = {"kind": "function", "functions": ["f"], "context": "", "tests": "while True: pass\nassert f()", **limits}
    job = {"program": "def f(): return 1", "context": "", "functions": ["f"], "time_limit_s": 60}
    assert run_trial("functions", job, problem, Limits(time_s=0.5)) is None
