"""A lock names a process: not one that has its number now, and not a thread."""

import os
import socket
import subprocess
import threading

from orchestrator.records.files.lock_holder import LockHolder, start_of


def test_a_holder_lives_while_its_process_does() -> None:
    this = LockHolder.this()
    assert LockHolder.read(this.text + "\n") == this and this.lives and not this.is_elsewhere
    assert this.shown == f"process {os.getpid()} on {socket.gethostname()}"


def test_another_process_of_the_same_number_is_no_holder() -> None:
    started = start_of(os.getpid())
    assert started is not None
    assert not LockHolder(os.getpid(), socket.gethostname(), started - 1).lives


def test_a_file_of_an_earlier_version_says_no_start() -> None:
    assert LockHolder.read(f"process {os.getpid()} on {socket.gethostname()}").lives
    assert LockHolder.read(f"process {os.getpid()} on elsewhere").is_elsewhere
    assert not LockHolder.read("").lives and not LockHolder.read("process x on y").lives


def test_a_thread_is_no_process() -> None:
    numbers, end = list[int](), threading.Event()
    began = threading.Event()

    def live() -> None:
        numbers.append(threading.get_native_id())
        began.set()
        end.wait()

    thread = threading.Thread(target=live)
    thread.start()
    began.wait()
    try:
        assert numbers[0] != os.getpid() and not LockHolder(numbers[0], socket.gethostname()).lives
    finally:
        end.set()
        thread.join()


def test_a_process_that_waits_to_be_buried_holds_nothing() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert start_of(process.pid) is None
    process.wait()
