"""The socket to a process that may be hostile, read in the event loop's own callbacks.

Not by asyncio's streams: these took half more of the supervisor's CPU time for cheap functions (32 instead of 20 µs a
completion), and they hand a line to its reader one turn of the loop late, after the supervisor's look at deadlines, so
that an answer in time would not always count.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

Line = TypeVar("Line")

READ_BYTES = 2**18
MAX_LINE_BYTES = 64 * 2**20
"""A process that writes a longer line has gone wrong."""


class Channel(Generic[Line]):
    """The socket to a process: messages out, lines in, never waiting for either."""

    def __init__(
        self,
        connection: socket.socket,
        decode: Callable[[bytes], Line],
        on_line: Callable[[Line], None],
        on_end: Callable[[str], None],
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        """``decode`` raises ValueError for a line that is none of its kind.

        ``on_end`` is called once, after such a line, one that is too long, or the end of the process; not after
        ``close``. Its argument says what the process did wrong, and is empty for an end.
        """
        connection.setblocking(False)
        self._connection = connection
        self._decode = decode
        self._on_line = on_line
        self._on_end = on_end
        self._max_line_bytes = max_line_bytes
        self._unsent = b""
        self._unread = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self.read)

    def send(self, message: bytes) -> None:
        """Send a message as fast as the process takes it."""
        self._unsent += message
        self._write()

    def read(self) -> None:
        """Take what the process has written so far. Do nothing after ``close``."""
        if self._connection.fileno() < 0:
            return
        try:
            received = self._connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._end("")
            return
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            if self._connection.fileno() < 0:  # closed by the callback
                return
            try:
                decoded = self._decode(line)
            except ValueError as error:
                self._end(f"wrote what is {error}")
                return
            self._on_line(decoded)
        if len(self._unread) > self._max_line_bytes:
            self._end(f"wrote a line of more than {self._max_line_bytes:,} bytes")

    def close(self) -> None:
        """Close it. May be called twice."""
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection)
            self._loop.remove_writer(self._connection)
            self._connection.close()

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[self._connection.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # it died; reading finds its last lines, and then the end
            self._unsent = b""
        if self._unsent:
            self._loop.add_writer(self._connection, self._write)
        else:
            self._loop.remove_writer(self._connection)

    def _end(self, why: str) -> None:
        self.close()
        self._on_end(why)
