"""The supervisor's end of the fork server: start it, ask it to import, fork and kill, and replace it when killed."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from rewards.signature import Kind
from rewards.workers.children.fork_server import MAX_MESSAGE_BYTES, Loadable

STOP_S = 1.0
"""Seconds that the server has to end its children and itself. It needs milliseconds, but may be in an import."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
"""Math libraries otherwise start a thread for each core. These threads use the cores that sampling needs, and do not
survive a fork."""
GRADING = "rewards.workers.children.grading"
"""The module that a child runs by default."""


class LoadError(RuntimeError):
    """A reward function or an environment cannot be used; the message has the reason."""


class ForkServer:
    """A fork server. Each call waits for the server's reply; the server only imports, forks and kills."""

    def __init__(self, memory_gib: float | None, child: str = GRADING) -> None:
        """Start the server.

        Args:
            memory_gib: GiB that each child may allocate; None: no limit.
            child: the module whose ``run(socket, functions, memory_gib)`` each child calls.
        """
        self._memory_gib = memory_gib
        self._child = child
        self._functions: dict[str, Loadable] = {}
        self._start()

    @property
    def has_ended(self) -> bool:
        """Whether the server was killed. Then its children are dead too, or will be in a moment."""
        return bool(select.select([self._handle], [], [], 0)[0])

    def load(self, functions: Iterable[Loadable]) -> dict[str, Kind]:
        """Import functions for children forked from now on; return how each is called.

        Raises LoadError when a function cannot be used, or when importing them kills the server twice. A server that
        is killed once, such as for want of memory, is replaced.
        """
        self._functions |= {function.name: function for function in functions}
        found: dict[str, Kind] | str
        for _ in range(2):
            try:
                found = self._ask("load", list(self._functions.values()))
                break
            except ConnectionError:
                paths = sorted(each.path for each in self._functions.values())
                found = f"the process that imports {', '.join(paths)} died twice"
                self._restart()
        if isinstance(found, str):
            raise LoadError(found)
        return found

    def fork(self) -> tuple[int, socket.socket]:
        """Return a new child's process id and the socket to it. Restarts the server if it was killed.

        Raises OSError when the machine cannot start another process.
        """
        try:
            return self._fork()
        except ConnectionError:
            self._restart()
            self.load([])
            return self._fork()

    def end(self, pid: int) -> str:
        """Kill a child and the programs in its process group; return how it ended: ``exit status 1``, ``SIGSEGV``."""
        try:
            return str(self._ask("end", pid))
        except ConnectionError:
            return "its fork server was killed"

    def close(self) -> None:
        """End the server and all its children."""
        self._stop()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The path comes first: the module may be in a folder that only this process has on its path.
        start = "from rewards.workers.children import fork_server; fork_server.main()"
        code = f"import sys; sys.path[:] = {sys.path!r}; {start}"
        with theirs:
            subprocess.run(
                [sys.executable, "-u", "-c", code, str(theirs.fileno()), self._child, str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | ONE_THREAD,
                start_new_session=True,  # so that an interrupt from the terminal does not reach it
                check=True,
            )
        self.pid = int(pickle.loads(self._control.recv(MAX_MESSAGE_BYTES)))
        self._handle = os.pidfd_open(self.pid)

    def _restart(self) -> None:
        self._stop()
        self._start()

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
