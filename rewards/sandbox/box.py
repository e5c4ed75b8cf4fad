"""Boxes: processes for untrusted code. Linux only.

A box is a fresh Python without this process's environment, descriptors, files or network, with limits on time, memory,
processor, files and threads (confinement.py); leaving the ``with`` ends it and all that it started. Which protections
hold depends on the machine; a box in which a required one does not hold runs nothing and raises SandboxError.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rewards.sandbox import plain
from rewards.sandbox.kernel.confinement import GUARDS, is_guarded

LAUNCHER = str(Path(__file__).with_name("launcher.py"))
START_S = 20.0
"""Additional seconds for a box to start and to end; generous, for overloaded machines."""
REQUIRED = tuple(GUARDS)
"""What must be protected, unless a recipe says otherwise: network, files and processes."""

_FLAGS = ("-s", "-S", "-P", "-X", "utf8")  # no site-packages, nothing on the path but the standard library
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1", "LANG": "C.UTF-8"}
"""The complete environment. A fixed hash seed gives the same program the same reward each time."""
_SYSTEM_LIBRARIES = ("libc.", "libpython", "ld-", "libm.")


class SandboxError(RuntimeError):
    """Untrusted code cannot be run on this machine; the message says what is missing, and the fix."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a box."""

    time_s: float
    """Seconds of wall-clock time, and of processor time for each process."""
    memory_mib: int = 512
    """MiB of address space of each process, about 30 of them Python's own."""
    files_mib: int = 16
    """MiB of its /tmp, and of a single file."""
    output_mib: int = 2
    """MiB that a program may print."""
    stands_s: float | None = None
    """Seconds of wall-clock time that the box may exist, for a box that waits between programs; None: like `time_s`."""


class Box:
    """One running box. Use it in a ``with``."""

    def __init__(
        self,
        role: str,
        job: Mapping[str, Any],
        limits: Limits,
        require: Sequence[str] = REQUIRED,
        channel: Mapping[str, int] | None = None,
    ) -> None:
        """Start the box; ``active`` reports whether the start succeeded.

        Args:
            role: its task: probe, functions, programs (candidate.py), session (interpreter.py) or judge (judge.py).
            job: its input, JSON-able. The code inside the box can see all of it.
            channel: descriptors that it inherits, by their names in its role.
        """
        self._require = tuple(require)
        self._limits = limits
        self._deadline = time.monotonic() + limits.time_s + START_S
        with contextlib.ExitStack() as started:
            status_end, status = _pipe(started)
            control, control_end = _pipe(started)
            inherited = {"status": status.fileno(), "control": control.fileno(), **(channel or {})}
            self._process = _start({**job, **self._setup(role), **inherited}, tuple(inherited.values()))
            status.close()
            control.close()
            started.pop_all()
        self._status, self._control = status_end, control_end

    def active(self) -> frozenset[str]:
        """Return the steps of confinement.py that are in effect. Call it once, first.

        Raises SandboxError if a required protection is missing, or the box could not start.
        """
        try:
            active = frozenset(plain.read(self._status.fileno(), self._deadline))
        except (EOFError, TimeoutError) as error:
            raise SandboxError(f"a box did not start, {error}: {self._last_words()}") from error
        missing = [what for what in self._require if not is_guarded(what, active)]
        if missing:
            raise SandboxError(_refusal(missing, active))
        return active

    def result(self) -> dict[str, Any] | None:
        """Return the box's final message; None if it ended, or ran out of time, without a message.

        Raises SandboxError if the box could not set itself up.
        """
        try:
            result = plain.read(self._status.fileno(), self._deadline)
        except (EOFError, TimeoutError):
            return None
        if "failed" in result:
            raise SandboxError(f"a box failed: {result['failed']}")
        return dict(result)

    def close(self) -> None:
        """End everything that runs in the box, and wait for its end."""
        self._control.close()
        self._status.close()
        try:
            self._process.wait(START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel then kills everything inside
            self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _setup(self, role: str) -> dict[str, Any]:
        limits = self._limits
        return {
            "role": role,
            "require": self._require,
            "time_s": (limits.stands_s or limits.time_s) + START_S,
            "cpu_s": math.ceil(limits.time_s) + 1,
            "memory_bytes": limits.memory_mib * 2**20,
            "file_bytes": limits.files_mib * 2**20,
            "output_bytes": limits.output_mib * 2**20,
            "readable": readable(),
            "hidden": hidden(),
        }

    def _last_words(self) -> str:
        self._process.kill()
        return self._process.communicate()[1].decode(errors="replace")[-500:] or "it left no message"


def protections() -> dict[str, tuple[str, ...]]:
    """Return the protections of a box on this machine, each with the steps of confinement.py that provide it.

    An example is ``network: namespaces, seccomp``; an entry without steps is not protected. Starts one box. Raises
    SandboxError if no box can be started.
    """
    with Box("probe", {}, Limits(time_s=10), require=()) as box:
        active = box.active()
        box.result()
    return {
        what: tuple(sorted({step for steps in alternatives if steps <= active for step in steps}))
        for what, alternatives in GUARDS.items()
    }


@functools.cache
def check_protections(require: tuple[str, ...] = REQUIRED) -> None:
    """Raise SandboxError, with the fix, unless code written by a model can be run here.

    Raises ValueError for an unknown name in ``require``.
    """
    if unknown := set(require) - set(GUARDS):
        raise ValueError(f"rewards.parameters.code.require names {sorted(unknown)}: known are {', '.join(GUARDS)}")
    with Box("probe", {}, Limits(time_s=10), require) as box:
        box.active()
        box.result()


def _refusal(missing: Sequence[str], active: frozenset[str]) -> str:
    return (
        f"code written by a model cannot be run here: nothing protects {', '.join(missing)}; active are "
        f"{', '.join(sorted(active))}. Allow user namespaces, or Landlock (Linux 5.13) and seccomp, which need no "
        "privilege; with Docker, run with --security-opt seccomp=unconfined or --privileged. To take the risk, on a "
        f"machine that holds nothing of value, leave {', '.join(missing)} out of rewards.parameters.code.require"
    )


def _pipe(stack: contextlib.ExitStack) -> tuple[BinaryIO, BinaryIO]:
    ends = os.pipe()
    return stack.enter_context(os.fdopen(ends[0], "rb", 0)), stack.enter_context(os.fdopen(ends[1], "wb", 0))


def _start(job: Mapping[str, Any], inherited: tuple[int, ...]) -> subprocess.Popen[bytes]:
    with os.fdopen(os.memfd_create("job"), "r+b") as file:  # a file, not a pipe: nobody has to wait until it is read
        file.write(json.dumps(job).encode())
        file.seek(0)
        return subprocess.Popen(
            [sys.executable, *_FLAGS, LAUNCHER],
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            pass_fds=inherited,
            start_new_session=True,
        )


@functools.cache
def readable() -> tuple[str, ...]:
    """Return the files that Python needs in a box: the standard library, its shared libraries' folders, /dev/null.

    The result is cached, because finding them takes longer than starting a box.
    """
    mapped = {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    libraries = {str(file.parent) for file in mapped if file.name.startswith(_SYSTEM_LIBRARIES)}
    folders = sorted({str(Path(os.__file__).resolve().parent), *libraries})
    outermost = [path for path in folders if not any(path.startswith(f"{other}/") for other in folders)]
    return (*outermost, os.devnull)


@functools.cache
def hidden() -> tuple[str, ...]:
    """Return the folders inside them that stay hidden: installed packages may contain the answers of a data set."""
    patterns = [f"{deeper}{name}-packages" for deeper in ("", "*/") for name in ("site", "dist")]
    return tuple(str(found) for path in readable() for pattern in patterns for found in Path(path).glob(pattern))
