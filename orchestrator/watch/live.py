"""`rayzero train --live`: the view of `rayzero watch`, in the run's own terminal.

A separate process draws it from the run's files. So the loop needs no time for it, and neither a view that fails nor a
terminal that blocks affects the loop.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from orchestrator.records.trackers.base import RemoteAdvantages, Tracker
from rollout.types.completions import Group

END_S = 5.0
"""Seconds that the view has to end before it is killed."""
MAX_KEPT = 64 * 1024
"""Largest number of bytes of this process's output that are kept during the view and printed after it."""
LEAVE_SCREEN = b"\x1b[?1049l\x1b[?25h"
"""Restores a terminal after a view that was killed: the main screen, and the cursor."""
OUTPUTS = (1, 2)
"""File descriptors of standard output and standard error."""


class LiveView(Tracker):
    """Shows a run in this terminal. Keeps this process's output and prints it at the end of the view.

    If the view dies, plain lines follow. Ctrl-C reaches only the run, because the view's process has its own session.
    """

    def __init__(self, run: Path, plain: Tracker) -> None:
        """Start the view of the run's directory. `plain` prints lines if the view cannot start or has died."""
        self._plain = plain
        self._kept: IO[bytes] | None = None
        command = [sys.executable, "-m", "orchestrator.watch.live", str(run)]
        try:
            self._view = subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
            )
        except OSError:
            return
        self._kept = TemporaryFile()  # noqa: SIM115  closed by `_end`
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self._terminal = [os.dup(output) for output in OUTPUTS]
        for output in OUTPUTS:
            os.dup2(self._kept.fileno(), output)

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        if self._kept is not None and self._view.poll() is not None:
            self._end()
        if self._kept is None:
            self._plain.log(step, metrics, groups, held_out)

    def close(self) -> None:
        self._end()
        self._plain.close()

    def _end(self) -> None:
        """End the view, restore the outputs, and print what was kept."""
        if self._kept is None:
            return
        kept, self._kept = self._kept, None
        assert self._view.stdin is not None
        self._view.stdin.close()  # the signal for the view to end
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for output, terminal in zip(OUTPUTS, self._terminal, strict=True):
            os.dup2(terminal, output)
            os.close(terminal)
        try:
            was_clean = self._view.wait(END_S) == 0
        except subprocess.TimeoutExpired:
            self._view.kill()
            self._view.wait()
            was_clean = False
        with kept:
            kept.seek(max(0, kept.seek(0, os.SEEK_END) - MAX_KEPT))
            output_bytes = kept.read()
        with suppress(OSError):  # the terminal may be gone
            os.write(1, (b"" if was_clean else LEAVE_SCREEN) + output_bytes)


def main(run: str) -> None:
    """Show the view on standard output, until standard input or the run ends."""
    from rich.console import Console

    from orchestrator.watch.run_state import RunReader
    from orchestrator.watch.watch import show

    os.nice(19)

    def wait(seconds: float) -> bool:
        return not select.select([sys.stdin], [], [], seconds)[0]

    show(RunReader(run), Console(), wait)


if __name__ == "__main__":
    main(sys.argv[1])
