"""Programs have the time that they may use and no more, whatever they try, and read their input as usual."""

from __future__ import annotations

import pytest

from tests.support.boxes import call, run

BUSY = "import threading, time\ndef busy(s):\n    t = time.thread_time()\n    while time.thread_time() < t + s: pass\n"
TRICKS = {
    "ignore": "import signal\nfor n in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(n, signal.SIG_IGN)\n",
    "block": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n",
    "disarm": "import signal\nfor n in range(3): signal.setitimer(n, 0)\nsignal.setitimer(signal.ITIMER_PROF, 1000)\n",
    "raise limits": "import resource\n"
    "try: resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))\nexcept (OSError, ValueError): pass\n",
    "fork": "import os\ntry:\n    if os.fork(): os._exit(0)\nexcept OSError: pass\n",
    "write anywhere": "import os\nfor n in range(3, 64):\n    for data in (bytes(9), b'\\xff' * 8):\n"
    "        try: os.pwrite(n, data, 0)\n        except OSError: pass\n",
    "threads": "def busy(s, busy=busy):\n    both = [threading.Thread(target=busy, args=(s / 2,)) for _ in range(2)]\n"
    "    for thread in both: thread.start()\n    for thread in both: thread.join()\n",
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
def test_no_trick_gives_a_call_or_a_program_more_processor_time(trick: str) -> None:
    program = f"{BUSY}{trick}def f(x):\n    busy(x)\n    return x\n"
    assert call(program, 0.01, 2, time_limit_s=0.1) == ([0.01], True)
    assert run(f"{BUSY}{trick}busy(0.2)", time_limit_s=0.1) is None


def test_each_call_has_its_time_and_loading_has_too() -> None:
    assert call(f"{BUSY}def f(x):\n    busy(x)\n    return x\n", 0.3, 0.3, 0.3, time_limit_s=0.5) == ([0.3] * 3, False)
    assert call(f"{BUSY}busy(2)\ndef f(x): return x\n", 1, time_limit_s=0.2) == ([], True)


@pytest.mark.parametrize(
    "program",
    [
        "print(input(), input())",
        "import sys; print(*map(str.strip, sys.stdin))",
        "import sys; print(*sys.stdin.buffer.read().decode().split('\\n'))",
        "print(*open(0).read().split('\\n'))",
        "print(*open('/dev/stdin').read().split('\\n'))",
        "with open('/dev/fd/0', 'rb') as file: print(*map(bytes.decode, map(bytes.strip, file)))",
        "from pathlib import Path; print(*Path('/dev/stdin').read_text().split('\\n'))",
        "import sys; sys.stdin = open('/dev/stdin'); print(input(), input(), file=open('/dev/stdout', 'w'))",
        "import asyncio\nasync def main(): print(input(), await asyncio.to_thread(input))\nasyncio.run(main())",
    ],
)
def test_input_is_read_as_usual(program: str) -> None:
    output, exit_code = run(program, "first 1\nsecond 2")
    assert (output.strip(), exit_code) == ("first 1 second 2", 0)
