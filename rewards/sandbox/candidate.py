"""The box that runs untrusted code. It answers calls and decides nothing: its replies are only data.

It gets the program and the arguments of each call, never a test and never an expected value.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import functools
import io
import os
import select
import signal
import sys
import time
import types
from collections.abc import Callable

from rewards.sandbox import plain
from rewards.sandbox.processor import CHECK_S, STRETCH, Calls, seconds_used
from rewards.sandbox.sources import compiled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Lock = Callable[[], None]
"""Removes the last permissions; call it right before untrusted code runs."""

_STREAMS = {
    name: number
    for number, stream in enumerate(("stdin", "stdout", "stderr"))
    for name in (f"/dev/{stream}", f"/dev/fd/{number}", f"/proc/self/fd/{number}")
}

# The module `site`, which is not loaded, would have defined them.
builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]


def probe(job: dict[str, Any], lock: Lock) -> None:
    """Prove that the last step of the confinement works too."""
    lock()


def call_functions(job: dict[str, Any], lock: Lock) -> None:
    """Load a program, then answer calls of its functions: ``[name, arguments, keyword arguments]``.

    The answers are ``{"ready": true}`` before the program and ``{"loaded": true}`` after it, and then ``{"returned":
    value}`` or ``{"raised": [names of the type and its bases, message]}``. The box's supervisor ends the process in a
    call that takes longer than ``time_limit_s`` of processor time.
    """
    requests, replies = job["requests"], job["replies"]
    plain.write(replies, {"ready": True})
    module = types.ModuleType("solution")
    sys.modules["solution"] = module  # dataclasses look their module up
    lock()
    os.close(job["status"])
    Calls(job["calls"]).begin_one()  # loading counts as a call; the judge counts those that follow
    os.close(job["calls"])
    try:
        for code in compiled(job["context"], job["program"], job["functions"]):
            exec(code, vars(module))  # noqa: S102  what the box is for
    except BaseException as error:  # noqa: BLE001  also SystemExit: the program is untrusted
        plain.write(replies, _raised(error))
        return
    plain.write(replies, {"loaded": True})
    while True:
        name, arguments, keywords = plain.decode(plain.read(requests))
        plain.write(replies, _answer(module, name, arguments, keywords))


def _answer(module: types.ModuleType, name: str, arguments: Any, keywords: Any) -> dict[str, Any]:
    try:
        return {"returned": plain.encode(vars(module)[name](*arguments, **keywords))}
    except BaseException as error:  # noqa: BLE001
        return _raised(error)


def _raised(error: BaseException) -> dict[str, Any]:
    with contextlib.suppress(BaseException):
        return {"raised": [[kind.__name__ for kind in type(error).__mro__], str(error)[:1000]]}
    return {"raised": [["Exception"], ""]}


def run_programs(job: dict[str, Any], lock: Lock) -> None:
    """Run a program once for each request ``{"input": text}``, every time in a fresh process.

    The answers are ``{"ready": true}`` first, and then ``{"ran": [output, exit code]}``, with the exit code None for a
    run that a signal ended or that printed too much, or ``{"late": true}``.
    """
    requests, replies = job["requests"], job["replies"]
    plain.write(replies, {"ready": True})
    here = os.getpid()
    while True:
        request = plain.read(requests)
        given, printed = os.memfd_create("input"), os.memfd_create("output")
        os.pwrite(given, request["input"].encode(), 0)
        runner = os.fork()
        if runner == 0:
            _run(job, given, printed, functools.partial(_lock_below, here, lock))
        is_late, exit_code = _wait(runner, job["time_limit_s"])
        output = os.pread(printed, job["output_bytes"] + 1, 0)
        os.close(given)
        os.close(printed)
        if len(output) > job["output_bytes"]:
            output, exit_code = b"", None
        plain.write(replies, {"late": True} if is_late else {"ran": [output.decode(errors="replace"), exit_code]})


def _run(job: dict[str, Any], given: int, printed: int, lock: Lock) -> None:
    exit_code = 1
    try:
        os.dup2(given, 0)
        os.dup2(printed, 1)
        os.closerange(3, 1024)
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        _open_streams_by_name()
        lock()
        for code in compiled("", job["program"]):
            exec(code, vars(module))  # noqa: S102
        exit_code = 0
    except SystemExit as stop:
        exit_code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        with contextlib.suppress(BaseException):
            _finish()
        os._exit(exit_code)


def _open_streams_by_name() -> None:
    """Have ``open("/dev/stdin")`` open standard input, as a box has no such files."""
    opened = io.open

    def open_(file: Any, *arguments: Any, **keywords: Any) -> Any:
        name = os.fspath(file) if hasattr(file, "__fspath__") else file
        number = _STREAMS.get(name) if isinstance(name, str) else None
        return opened(file if number is None else os.dup(number), *arguments, **keywords)

    builtins.open = io.open = open_


def _lock_below(parent: int, lock: Lock) -> None:
    lock()
    if os.getppid() != parent:  # it died before the lock tied this process to it
        os._exit(1)


def _finish() -> None:
    """Do the same as Python at the end of a program, because contest programs rely on it."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):  # programs put their own in its place
        if stream is not None:
            stream.flush()


def _wait(process: int, time_limit_s: float) -> tuple[bool, int | None]:
    """Return whether the program was late, and its exit code; the code is None if a signal ended the program."""
    descriptor = os.pidfd_open(process)
    events = select.poll()
    events.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + STRETCH * time_limit_s
    while not events.poll(CHECK_S * 1000):
        if time.monotonic() > deadline or seconds_used(process) > time_limit_s:
            os.kill(process, signal.SIGKILL)
            break
    is_late = time.monotonic() > deadline
    os.close(descriptor)
    _, status, used = os.wait4(process, 0)
    is_late |= used.ru_utime + used.ru_stime > time_limit_s
    return is_late, os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


ROLES: dict[str, Callable[[dict[str, Any], Lock], None]] = {
    "probe": probe,
    "functions": call_functions,
    "programs": run_programs,
}
