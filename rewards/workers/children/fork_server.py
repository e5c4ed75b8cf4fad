"""A clean process that has reward functions or environments loaded and forks processes for them in about a millisecond.

Why not multiprocessing's "forkserver": its children import the parent's main module, which in a Ray worker is Ray, and
it hides imports that fail. Here the server holds nothing but the standard library and the functions.

    supervisor ── control socket ── fork server ── fork ── child, child, …
        └────────────── one socket to each child ─────────────┘

No process outlives the one to its left. At the end of its control socket the server kills its children, with all that
they started; it is nobody's child itself, as Ray kills a worker's children first of all and would leave theirs behind.
Should the server be killed, the kernel kills its children (PR_SET_PDEATHSIG). Children are reaped by ``end``, so a
process id is never used after it is free.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from rewards.signature import Kind, kind_of

MAX_MESSAGE_BYTES = 2**18
PR_SET_PDEATHSIG = 1
STOP_S = 1.0
"""Seconds that the server has to end its children and itself. It needs milliseconds, but may be in an import."""
MAX_IMPORT_S = 600
"""Seconds after which an import that never returns ends the server; whoever waits for it gives up earlier."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
"""Math libraries otherwise start a thread a core; these spin on the cores that sampling needs, and do not survive a
fork."""
GRADING = "rewards.workers.children.grading"
"""The module of which a child is a run, unless it is said otherwise."""


class Loadable(Protocol):
    """A reward function or an environment, as it is declared."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def load(self) -> Any:
        """Import it and return it."""
        ...


class LoadError(RuntimeError):
    """A reward function or an environment cannot be used; the message has the reason."""


class ForkServer:
    """The supervisor's end. Its calls wait for the server, which only imports, forks and kills."""

    def __init__(self, memory_gib: float | None, child: str = GRADING) -> None:
        """``memory_gib`` bounds what each child may allocate; None leaves it alone.

        ``child`` is the module whose ``run(socket, functions, memory_gib)`` a child is.
        """
        self._memory_gib = memory_gib
        self._child = child
        self._functions: dict[str, Loadable] = {}
        self._start()

    @property
    def has_ended(self) -> bool:
        """Whether it was killed: its children are dead too, or about to be."""
        return bool(select.select([self._handle], [], [], 0)[0])

    def load(self, functions: Iterable[Loadable]) -> dict[str, Kind]:
        """Import functions for children forked from now on; return how each is called. Raises LoadError."""
        self._functions |= {function.name: function for function in functions}
        try:
            found = self._ask("load", list(self._functions.values()))
        except ConnectionError:
            found = f"the process died that imports {', '.join(sorted(each.path for each in self._functions.values()))}"
            self._stop()
            self._start()
        if isinstance(reason := found, str):
            raise LoadError(reason)
        return dict(found)

    def fork(self) -> tuple[int, socket.socket]:
        """Return a new child's process id and the socket to it. Starts the server again if it was killed.

        Raises OSError when the machine has no process left to give.
        """
        try:
            return self._fork()
        except ConnectionError:
            self._stop()
            self._start()
            self.load([])
            return self._fork()

    def end(self, pid: int) -> str:
        """Kill a child and what it started; return how it ended, such as ``exit status 1`` or ``SIGSEGV``."""
        try:
            return str(self._ask("end", pid))
        except ConnectionError:
            return "its fork server was killed"

    def close(self) -> None:
        """End the server and with it all children."""
        self._stop()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The path first: the module may stand where only this process looks.
        code = f"import sys; sys.path[:] = {sys.path!r}; from rewards.workers.children import fork_server; fork_server.main()"
        with theirs:
            subprocess.run(
                [sys.executable, "-u", "-c", code, str(theirs.fileno()), self._child, str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | ONE_THREAD,
                start_new_session=True,  # an interrupt from the terminal is not for it
                check=True,
            )
        self.pid = int(pickle.loads(self._control.recv(MAX_MESSAGE_BYTES)))
        self._handle = os.pidfd_open(self.pid)

    def _stop(self) -> None:
        self._control.close()
        if not select.select([self._handle], [], [], STOP_S)[0]:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        os.close(self._handle)

    def _fork(self) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            pid = self._ask("fork", self._memory_gib, descriptors=[theirs.fileno()])
        if isinstance(pid, OSError):
            ours.close()
            raise pid
        return pid, ours

    def _ask(self, what: str, argument: Any, descriptors: Iterable[int] = ()) -> Any:
        socket.send_fds(self._control, [pickle.dumps((what, argument))], list(descriptors))
        reply = self._control.recv(MAX_MESSAGE_BYTES)
        if not reply:
            raise ConnectionError("the fork server is gone")
        return pickle.loads(reply)


def main() -> None:
    """Run the server's process.

    Its arguments are the control socket's descriptor, the module that a child is a run of, and, for people to see, the
    supervisor's process id.
    """
    if os.fork():
        os._exit(0)
    control = socket.socket(fileno=int(sys.argv[1]))
    control.send(pickle.dumps(os.getpid()))
    serve(control, import_module(sys.argv[2]).run)


def serve(control: socket.socket, run: Callable[..., None]) -> None:
    """Answer requests until the supervisor is gone, then end the children."""
    functions: dict[str, Any] = {}
    children: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
        if not message:
            break
        what, argument = pickle.loads(message)
        reply: Any
        if what == "load":
            reply = _load(argument, functions)
        elif what == "fork":
            reply = _fork(control, descriptors[0], partial(run, functions=functions, memory_gib=argument))
            if isinstance(reply, int):
                children.add(reply)
        else:
            # A child of a server before this one is gone, and its number may be another's by now.
            reply = _end(argument) if argument in children else "its fork server was killed"
            children.discard(argument)
        control.send(pickle.dumps(reply))
    for pid in children:
        _end(pid)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which started it, ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _load(declared: list[Loadable], functions: dict[str, Any]) -> dict[str, Kind] | str:
    """Import functions and return how each is called, or what is wrong."""
    signal.alarm(MAX_IMPORT_S)  # kills this process, also in C, should the supervisor be gone by then
    for function in declared:
        try:
            functions[function.name] = (function, function.load())
        except Exception as error:  # noqa: BLE001  importing the user's module may raise anything
            return reason_of(function, error)
        finally:
            signal.alarm(0)
    gc.freeze()  # a collection in a child would copy every page
    return {name: kind_of(loaded) for name, (_, loaded) in functions.items()}


def reason_of(function: Loadable, error: Exception) -> str:
    """Return why a function cannot be used. Errors of this package are whole sentences, with key and fix."""
    is_ours = type(error).__module__.startswith("rewards.")
    return str(error) if is_ours else f"{function.path} cannot be used: {type(error).__name__}: {error}"


def _fork(control: socket.socket, channel: int, run: Callable[[socket.socket], None]) -> int | OSError:
    server = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(channel)
        return error
    if pid == 0:
        status = 1
        try:
            control.close()
            die_with(server)
            run(socket.socket(fileno=channel))
            status = 0
        finally:
            os._exit(status)  # neither the server's loop nor its exit handlers are for a child
    os.close(channel)
    os.setpgid(pid, pid)  # so that programs that a function starts are killed with it
    return pid


def _end(pid: int) -> str:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
