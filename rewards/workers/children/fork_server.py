"""The fork server: a process that has loaded reward functions or environments, and forks children in a millisecond.

It imports only the standard library, the functions or environments, and what these need. multiprocessing's "forkserver"
does not fit: its children import the parent's main module, which in a Ray worker is Ray, and it hides failed imports.

    supervisor ── control socket ── fork server ── fork ── child, child, …
        └────────────── one socket to each child ─────────────┘

No process in this picture outlives the one to its left:

- When the control socket closes, the server kills each child and the programs in the child's process group. A program
  that a child started in its own session or group (``start_new_session=True``) is not found, and outlives the child.
- The server is not a child of the worker: Ray kills a worker's children first, and then the server's would survive.
- If the server is killed, the kernel kills its children (PR_SET_PDEATHSIG), but not the programs that they started.

``end`` reaps children, so a process id is never used after it is free.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from rewards.signature import Kind, kind_of

MAX_MESSAGE_BYTES = 2**18
PR_SET_PDEATHSIG = 1
MAX_IMPORT_S = 600
"""Seconds after which an import that never returns ends the server. Its supervisor gives up earlier."""


class Loadable(Protocol):
    """A reward function or an environment, as it is declared."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def load(self) -> Any:
        """Import it and return it."""
        ...


def main() -> None:
    """Run the server's process.

    Its arguments are the control socket's descriptor, the module whose ``run`` each child calls, and the supervisor's
    process id, which is there only to be seen in lists of processes.
    """
    if os.fork():
        os._exit(0)
    control = socket.socket(fileno=int(sys.argv[1]))
    control.send(pickle.dumps(os.getpid()))
    serve(control, import_module(sys.argv[2]).run)


def serve(control: socket.socket, run: Callable[..., None]) -> None:
    """Answer requests until the supervisor closes the socket, then end the children."""
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
            # Children of an earlier server are dead, and their process ids may belong to others by now.
            reply = _end(argument) if argument in children else "its fork server was killed"
            children.discard(argument)
        control.send(pickle.dumps(reply))
    for pid in children:
        _end(pid)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, process ``parent``, ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _load(declared: list[Loadable], functions: dict[str, Any]) -> dict[str, Kind] | str:
    """Import functions and return how each is called, or what is wrong."""
    signal.alarm(MAX_IMPORT_S)  # kills this process, even in C code, if the import never returns
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
            os._exit(status)  # a child must run neither the server's loop nor its exit handlers
    os.close(channel)
    os.setpgid(pid, pid)  # so that programs that a function starts are killed with it
    return pid


def _end(pid: int) -> str:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
