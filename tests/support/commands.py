"""`rayzero` as a user types it, and what its runs leave behind."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from orchestrator.cli import main

RAYZERO = (sys.executable, "-m", "orchestrator.cli")
TIMEOUT_S = 500.0


def rayzero(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    return subprocess.run(
        [*RAYZERO, *arguments],
        env=os.environ | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def rayzero_here(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run a command in this process, which has imported already what a new one would import for seconds."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, environment or {}), redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


class Workplace:
    """A folder in which one command is started for runs of several names: their directories, outputs and cache."""

    def __init__(self, folder: Path, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """`command` is what all runs have in common, such as ``train``, a recipe and overrides."""
        self.folder = folder
        self._command = command
        self.environment = {"RAYZERO_CACHE": str(folder / "cache"), **(environment or {})}

    def run(self, name: str) -> Path:
        """The run's directory."""
        return self.folder / "runs" / name

    def finish(self, name: str, *overrides: str) -> subprocess.CompletedProcess:
        """Run the command to its end."""
        return rayzero(*self._arguments(name, overrides), environment=self.environment)

    def refuse(self, name: str, *overrides: str) -> subprocess.CompletedProcess:
        """Run the command in this process. For one that ends before it starts anything."""
        return rayzero_here(*self._arguments(name, overrides), environment=self.environment)

    def succeed(self, name: str, *overrides: str) -> str:
        """What a command printed that ends well."""
        done = self.finish(name, *overrides)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name: str, *overrides: str) -> subprocess.Popen:
        """Start the command; `output` has what it prints."""
        with self._output(name).open("w") as output:
            return subprocess.Popen(
                [*RAYZERO, *self._arguments(name, overrides)],
                env=os.environ | self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def output(self, name: str) -> str:
        return self._output(name).read_text()

    def wait_for_step(self, name: str, step: int, process: subprocess.Popen) -> None:
        """Return when metrics.jsonl has that step."""
        deadline = time.monotonic() + TIMEOUT_S
        while not any(line["step"] >= step for line in self.metrics(name)):
            assert process.poll() is None, self.output(name)
            assert time.monotonic() < deadline, f"step {step} never came"
            time.sleep(0.01)

    def stop_after(self, name: str, step: int, number: signal.Signals, *overrides: str) -> int:
        """Start the command, send it a signal after a step, and return its exit code."""
        process = self.start(name, *overrides)
        self.wait_for_step(name, step, process)
        process.send_signal(number)
        return process.wait(timeout=120)

    def metrics(self, name: str) -> list[dict]:
        """The whole lines of metrics.jsonl."""
        file = self.run(name) / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def weights_digest(self, name: str) -> str:
        return hashlib.sha256((self.run(name) / "final" / "model.safetensors").read_bytes()).hexdigest()

    def _arguments(self, name: str, overrides: tuple[str, ...]) -> list[str]:
        return [*self._command, f"runs_dir={self.folder / 'runs'}", f"name={name}", *overrides]

    def _output(self, name: str) -> Path:
        return self.folder / f"{name}.out"
