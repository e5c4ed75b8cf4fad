"""Watching a run from another terminal, and in its own: real terminals and signals, views that die or stand still."""

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.cli import main
from tests.support.processes import finished_pid
from tests.support.run_files import WrittenRun, evaluation, row

ROOT = Path(__file__).parents[3]
LOOP = """
import os, sys, time
from pathlib import Path
from rich.console import Console
from orchestrator.interrupt import Interrupt
from orchestrator.records.trackers.terminal import ConsoleTracker
from orchestrator.watch import live
from tests.support.run_files import WrittenRun, row

run = WrittenRun(Path(sys.argv[1]))
console = Console()
live.END_S = 1.0
view = live.LiveView(run.path, ConsoleTracker(console, 10))
with Interrupt(console) as interrupt:
    interrupt.begin()
    Path(sys.argv[1], "view").write_text(str(view._view.pid))
    print("printed meanwhile", flush=True)
    slowest = 0.0
    for step in range(1, 1000):
        run.log(row(step))
        begin = time.monotonic()
        view.log(step, row(step))
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.02)
        if interrupt.requested:
            break
    view.close()
print(f"left after its step, slowest {slowest:.3f}")
"""


class Terminal:
    """A process on a terminal of its own, and what it has written there."""

    def __init__(self, arguments: list[str]) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in what a shell starts in the background
            os.environ |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
            os.execv(sys.executable, [sys.executable, *arguments])
        self.written, self.is_over = "", False

    def wait_for(self, expected: str | Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not (re.search(expected, self.written) if isinstance(expected, str) else expected()):
            assert time.monotonic() < deadline, self.written[-2000:]
            self.read(0.05)

    def read(self, seconds: float) -> bool:
        if select.select([self._master], [], [], seconds)[0]:
            try:
                self.written += os.read(self._master, 65536).decode(errors="replace")
            except OSError:
                return False
        return True

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def close(self) -> int:
        """Wait for the process to end, and return its exit code."""
        while self.read(0.05) and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            pass
        while select.select([self._master], [], [], 0.0)[0] and self.read(0.0):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self._master)
        self.is_over = True
        return os.waitstatus_to_exitcode(status)


@contextmanager
def live_loop(tmp_path: Path) -> Iterator[tuple[Terminal, Path]]:
    """Run a loop with a live view, and yield its terminal and the run's directory."""
    terminal, run = Terminal(["-c", LOOP, str(tmp_path / "one")]), tmp_path / "one"
    try:
        yield terminal, run
    finally:
        if not terminal.is_over:
            os.kill(terminal.pid, signal.SIGKILL)
            terminal.close()


def view_pid(run: Path) -> int:
    return int((run / "view").read_text())


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_ctrl_c_reaches_the_run_alone_and_what_was_printed_comes_after_the_view(tmp_path: Path) -> None:
    with live_loop(tmp_path) as (terminal, run):
        terminal.wait_for(r"one.*step [1-9]\d*/10")
        assert "printed meanwhile" not in terminal.written
        terminal.press(b"\x03")
        assert terminal.close() == 0
        after = terminal.written.split("\x1b[?1049l")[-1]
        assert re.search(r"printed meanwhile.*SIGINT: finishing this step.*left after its step", after, re.DOTALL)
        assert float(terminal.written.rsplit("slowest ", 1)[1].split()[0]) < 0.1
        assert ended(view_pid(run))


def test_a_view_that_is_killed_gives_the_terminal_back_and_the_loop_goes_on_with_plain_lines(tmp_path: Path) -> None:
    with live_loop(tmp_path) as (terminal, run):
        terminal.wait_for(r"one.*step [1-9]\d*/10")
        os.kill(view_pid(run), signal.SIGKILL)
        terminal.wait_for(r"\x1b\[\?1049l[\s\S]*printed meanwhile[\s\S]*reward ")
        terminal.press(b"\x03")
        assert terminal.close() == 0 and "left after its step" in terminal.written


def test_a_view_that_stands_still_holds_up_nothing(tmp_path: Path) -> None:
    with live_loop(tmp_path) as (terminal, run):
        terminal.wait_for(r"one.*step [1-9]\d*/10")
        os.kill(view_pid(run), signal.SIGSTOP)
        before = len((run / "metrics.jsonl").read_text().splitlines())
        terminal.wait_for(lambda: len((run / "metrics.jsonl").read_text().splitlines()) > before + 5)
        terminal.press(b"\x03")
        assert terminal.close() == 0 and "left after its step" in terminal.written and ended(view_pid(run))


def test_a_view_ends_with_a_run_that_is_killed(tmp_path: Path) -> None:
    with live_loop(tmp_path) as (terminal, run):
        terminal.wait_for(r"one.*step [1-9]\d*/10")
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.wait_for(lambda: ended(view_pid(run)))


def test_watch_follows_a_run_until_it_ends_and_leaves_its_last_view(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "one")
    run.log(evaluation(0, 0.5), row(1))
    terminal = Terminal(["-m", "orchestrator.cli", "watch", str(run.path)])
    terminal.wait_for("step 1/10")
    run.log(row(2))
    terminal.wait_for("step 2/10")
    run.hold(pid=finished_pid())
    assert terminal.close() == 0
    assert "stopped: the same command resumes it" in terminal.written.split("\x1b[?1049l")[-1]


def test_ctrl_c_leaves_the_watch_without_a_word_of_resuming(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "one")
    run.log(row(1))
    terminal = Terminal(["-m", "orchestrator.cli", "watch", str(run.path)])
    terminal.wait_for("step 1/10")
    terminal.press(b"\x03")
    assert terminal.close() == 0 and "resumes" not in terminal.written


def test_in_a_pipe_watch_prints_the_lines_that_the_run_prints(tmp_path: Path, capsys) -> None:
    run = WrittenRun(tmp_path / "one")
    run.log(evaluation(0, 0.5), row(1), row(2) | evaluation(2, 0.6))
    run.hold(pid=finished_pid())
    assert main(["watch", str(run.path)]) == 0
    out = capsys.readouterr().out.splitlines()
    firsts = ["held-out before training", "step   1/10", "held-out after step 2", "step   2/10"]
    assert [line[: len(first)] for line, first in zip(out[:-1], firsts, strict=True)] == firsts
    assert out[-1] == "one: stopped at step 2 of 10" and "right 5.0%" in out[1]


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path, capsys) -> None:
    assert main(["watch", str(tmp_path)]) == 2
    assert "is not a run: it has no config.json" in capsys.readouterr().err
