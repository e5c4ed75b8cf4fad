"""`rayzero train --live`: the view of `rayzero watch`, in the run's own terminal.

It is drawn by a process of its own that reads the run's files. The loop does nothing for it, and neither a view that
fails nor a terminal that is held up reaches the loop.
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
"""How long the view may take to end."""
MAX_KEPT = 64 * 1024
"""Bytes of what was printed meanwhile that are printed after the view."""
LEAVE_SCREEN = b"\x1b[?1049l\x1b[?25h"
"""What brings a terminal back from a view that was killed: the main screen, and the cursor."""
OUTPUTS = (1, 2)


class LiveView(Tracker):
    """Shows a run in this terminal, and then what this process printed meanwhile. Plain lines follow a view that died.

    Ctrl-C reaches the run alone: the view's process is in a session of its own.
    """

    def __init__(self, run: Path, plain: Tracker) -> None:
        """Start the view of the directory. `plain` prints where the view cannot be."""
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
        """End the view, give the outputs back, and print what went to them meanwhile."""
        if self._kept is None:
            return
        kept, self._kept = self._kept, None
        assert self._view.stdin is not None
        self._view.stdin.close()  # which tells it to end
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
            said = kept.read()
        with suppress(OSError):  # a terminal that is gone
            os.write(1, (b"" if was_clean else LEAVE_SCREEN) + said)


def main(run: str) -> None:
    """Show the view in the terminal that this process was given, until its standard input ends or the run does."""
    from rich.console import Console

    from orchestrator.watch.run_state import RunReader
    from orchestrator.watch.watch import show

    os.nice(19)

    def wait(seconds: float) -> bool:
        return not select.select([sys.stdin], [], [], seconds)[0]

    show(RunReader(run), Console(), wait)


if __name__ == "__main__":
    main(sys.argv[1])
