"""The supervisor's end of the socket to a child: batches out, outcomes in, never waiting for either."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from rewards.function import Outcome
from rewards.workers import grading

READ_BYTES = 2**18


class Channel:
    """Reads and writes in the running event loop. No callback comes after ``close``."""

    def __init__(
        self, connection: socket.socket, on_outcome: Callable[[Outcome], None], on_end: Callable[[], None]
    ) -> None:
        """``on_end`` is called once, when the child's end is closed or it wrote what is no outcome."""
        connection.setblocking(False)
        self._connection = connection
        self._on_outcome = on_outcome
        self._on_end = on_end
        self._unsent = b""
        self._unread = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._read)

    def send(self, batch: bytes) -> None:
        """Sends what ``grading.request`` made, as fast as the child takes it."""
        self._unsent += batch
        self._write()

    def close(self) -> None:
        """May be called twice."""
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection)
            self._loop.remove_writer(self._connection)
            self._connection.close()

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[self._connection.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # it died; reading finds its last answers, and then the end
            self._unsent = b""
        if self._unsent:
            self._loop.add_writer(self._connection, self._write)
        else:
            self._loop.remove_writer(self._connection)

    def _read(self) -> None:
        try:
            received = self._connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._end()
            return
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            if self._connection.fileno() < 0:  # closed by the callback
                return
            try:
                outcome = grading.answer_of(line)
            except ValueError:
                self._end()
                return
            self._on_outcome(outcome)

    def _end(self) -> None:
        self.close()
        self._on_end()
