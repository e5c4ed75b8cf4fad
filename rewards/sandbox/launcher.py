"""The program of a box: it confines itself, then becomes a candidate or a judge.

    worker ── starts ──> supervisor ── forks ──> inside: confined, plays its role
       └─ a pipe that ends ─^   └─ kills it, and with it all of its process namespace

The supervisor stays outside its child's process namespace, where nothing inside can reach it. It kills the child when
the box's time is over, when a call of a candidate's functions has used more processor time than it may, and when its
pipe from the worker ends: because the worker is done, or because it died.
"""

from __future__ import annotations

# ruff: noqa: PTH123  pathlib and typing would take longer to import than all of this
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

PROJECT = os.path.realpath(__file__).removesuffix("/rewards/sandbox/launcher.py")
MAX_THREADS = 64
WATCHED = ("functions", "session")
"""Roles that run code in their own process, so that another process must end a call that is too long."""


def main() -> None:
    """Run a box with the job (box.py) from standard input. The job has the numbers of the inherited descriptors."""
    sys.path.insert(0, PROJECT)
    from rewards.sandbox import processor  # noqa: F401  what the supervisor imports later is loaded now
    from rewards.sandbox.kernel import confinement

    job = json.load(sys.stdin)
    os.umask(0o022)  # the folders of the private root are for the user that this becomes, whatever the worker's umask
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # when memory runs out, this goes first
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    play = _role(job["role"])
    sys.path.remove(PROJECT)
    sys.dont_write_bytecode = True
    sys.argv = ["solution.py"]

    active = {"limits"}
    was_root = os.geteuid() == 0
    if confinement.enter_namespaces():
        active.add("namespaces")
        if confinement.enter_private_root(job["readable"], job["hidden"], job["file_bytes"]):
            active.add("private_root")
    is_root_under_another_name = was_root and os.geteuid() != 0
    os.dup2(null, 2)  # until here the worker may read what went wrong
    os.close(null)
    confinement.adopt_orphans()
    inside = os.fork()
    if inside:
        os.close(job["status"])
        _supervise(inside, job)
    os.close(job["control"])
    _inside(job, active, play, is_root_under_another_name)


def _role(name: str) -> Any:
    # Import now, before the files become inaccessible, and only the needed modules.
    if name == "judge":
        from rewards.sandbox import judge

        return judge.judge
    if name == "session":
        from rewards.sandbox import interpreter

        return interpreter.run_session
    from rewards.sandbox import candidate

    return candidate.ROLES[name]


def _supervise(inside: int, job: dict[str, Any]) -> NoReturn:
    from rewards.sandbox.processor import CHECK_S, Calls, CallWatch

    events = select.poll()
    events.register(job["control"], select.POLLIN)
    events.register(os.pidfd_open(inside), select.POLLIN)
    deadline = time.monotonic() + job["time_s"]
    watch = CallWatch(inside, Calls(job["calls"]), job["time_limit_s"]) if job["role"] in WATCHED else None
    while (remaining_s := deadline - time.monotonic()) > 0:
        is_over = events.poll(1000 * (min(remaining_s, CHECK_S) if watch else remaining_s))
        if is_over or (watch and watch.is_late()):
            break
    os.kill(inside, signal.SIGKILL)
    _end_orphans()
    os._exit(0)


def _end_orphans() -> None:
    """End processes whose parent died. With a process namespace there are none: it ended with its first process."""
    children = f"/proc/self/task/{os.getpid()}/children"
    while True:
        if os.access(children, os.R_OK):
            with open(children) as file:
                for child in file.read().split():
                    os.kill(int(child), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _inside(job: dict[str, Any], active: set[str], play: Any, is_root_under_another_name: bool) -> NoReturn:
    from rewards.sandbox import plain
    from rewards.sandbox.kernel import confinement, seccomp

    status = job["status"]
    try:
        has_private_root = "private_root" in active
        if confinement.restrict_files(job["readable"], job["hidden"], has_private_root):
            active.add("landlock")
        is_another = confinement.become_unprivileged(job["readable"], has_private_root)
        if is_another and not is_root_under_another_name:
            active.add("unprivileged")
        if seccomp.is_available():
            active.add("seccomp")
        confinement.die_with_parent()
        confinement.limit(job["memory_bytes"], job["cpu_s"], job["file_bytes"])
        plain.write(status, sorted(active))
        if not all(confinement.is_guarded(what, active) for what in job["require"]):
            os._exit(0)
        play(job, lambda: confinement.lock(frozenset(active), MAX_THREADS))
    except BaseException as error:  # noqa: BLE001  report any failure to the worker, if that is still possible
        plain.write(status, {"failed": f"{type(error).__name__}: {error}"})
    os._exit(0)


if __name__ == "__main__":
    main()
