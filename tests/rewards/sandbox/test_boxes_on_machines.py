"""Boxes on machines of several sorts: none outlives the worker that started it, and what protects is what can."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards.sandbox import plain
from rewards.sandbox.box import Box, Limits
from tests.support.paths import ROOT, SUPPORT
from tests.support.processes import children, command, is_gone, wait_until

DENY = SUPPORT / "deny_calls.py"
UNSHARE, MOUNT, LANDLOCK = ("272", "165", "444") if os.uname().machine == "x86_64" else ("97", "40", "444")


def test_nothing_outlives_the_worker_that_started_it(tmp_path: Path) -> None:
    """The pool kills workers that are late with SIGKILL: they cannot clean up."""
    script = tmp_path / "worker.py"
    script.write_text(
        "from rewards.tasks import code\n"
        "answer = {'kind': 'function', 'functions': ['f'], 'tests': 'assert f()'}\n"
        "answer |= {'time_limit_s': 100, 'total_time_limit_s': 100}\n"
        "code.judge('import time\\ndef f(): time.sleep(100)', answer)\n"
    )
    worker = subprocess.Popen([sys.executable, str(script)], env={"PYTHONPATH": str(ROOT)}, start_new_session=True)
    assert wait_until(lambda: len(children(worker.pid)) == 2)
    boxes = children(worker.pid)
    assert wait_until(lambda: all(len(children(box)) == 1 for box in boxes))
    inside = [child for box in boxes for child in children(box)]
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert wait_until(lambda: not any(Path(f"/proc/{process}/cmdline").exists() for process in [*boxes, *inside]))


def test_a_supervisor_that_is_killed_takes_its_box_along() -> None:
    (requests, ask), (answers, reply) = os.pipe(), os.pipe()
    channel = {"requests": requests, "replies": reply}
    with Box("programs", {"program": "", "time_limit_s": 1}, Limits(20), channel=channel) as box:
        box.active()
        assert plain.read(answers, time.monotonic() + 20) == {"ready": True}  # now it waits, as nobody asks it anything
        (supervisor,) = [process for process in children(os.getpid()) if "launcher.py" in command(process)]
        (inside,) = children(supervisor)
        os.kill(supervisor, signal.SIGKILL)
        assert wait_until(lambda: is_gone(inside))
    for end in (requests, ask, answers, reply):
        os.close(end)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("denied", "missing"),
    [((UNSHARE,), ""), ((MOUNT,), ""), ((UNSHARE, LANDLOCK), "files")],
    ids=["no namespaces", "no mounts", "no namespaces and no Landlock"],
)
def test_a_machine_that_forbids_something(denied: tuple[str, ...], missing: str) -> None:
    """As containers do it: by a seccomp filter over all that the worker starts."""
    code = f"""
import ctypes
from pathlib import Path
from rewards.sandbox.box import SandboxError
from rewards.tasks import code
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what is left of a box becomes a child of this process
answer = {{"kind": "function", "functions": ["f"], "tests": "assert f(1) == 2", "time_limit_s": 5}}
sleep = {{"kind": "stdio", "tests": [["", "1"]], "time_limit_s": 60, "total_time_limit_s": 0.5}}
attacks = ["open('/etc/passwd')", "open({__file__!r})", "import socket; socket.socket()", "import os; os.fork()",
    "import os; os.kill(os.getppid(), 9)", "import os; os._exit(0)", "open('/tmp/left-by-a-box', 'w')",
    "import os; os.mkdir('/tmp/left-by-a-box')", "open('/dev/shm/left', 'w')"]
try:
    code.prepare()
    print(code.judge("def f(x): return x + 1", answer).is_correct)
    print([code.judge(attack + "\\ndef f(x): return x + 1", answer).is_correct for attack in attacks])
    left = lambda: [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    print(code.judge("import time; time.sleep(300)", sleep).passed, left())
except SandboxError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, str(DENY), *denied, "--", sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    if missing:
        assert f"nothing protects {missing};" in done.stdout and "--security-opt" in done.stdout
    else:
        assert done.stdout.splitlines() == ["True", str([False] * 9), "0 ['']"]
    assert not Path("/tmp/left-by-a-box").exists()


def test_an_ordinary_user_gets_the_same_protection() -> None:
    """Root becomes a user who owns nothing, if that one can run a Python; others are ordinary users already."""
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    pythons = [path for path in (sys.executable, "/usr/bin/python3") if _runs(path, nobody)]
    python, user = (pythons[0], nobody) if pythons else (sys.executable, {})
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from rewards.sandbox.box import protections
from rewards.tasks import code
print({what for what, steps in protections().items() if len(steps) < 2})
answer = {"kind": "function", "functions": ["f"], "tests": "assert f(1) == 2", "time_limit_s": 5}
honest = "def f(x): return x + 1"
print(code.judge(honest, answer).is_correct, code.judge("open('/etc/passwd')\\n" + honest, answer).is_correct)
"""
    with _readable_by_all(ROOT / "rewards") as folder:
        done = subprocess.run(
            [python, "-c", code, folder], cwd="/", capture_output=True, text=True, timeout=120, **user
        )
    assert done.stdout.splitlines() == ["set()", "True False"], done.stderr


def _runs(python: str, user: dict) -> bool:
    """Return whether that user can run it, and it is new enough for the project."""
    try:
        check = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        return subprocess.run(check, cwd="/", capture_output=True, **user).returncode == 0
    except OSError:
        return False


@contextlib.contextmanager
def _readable_by_all(package: Path) -> Iterator[str]:
    """Yield a folder with a copy of the package: other users may have no access to the checkout or pytest's folders."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        shutil.copytree(package, Path(folder) / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o755)
        yield folder
