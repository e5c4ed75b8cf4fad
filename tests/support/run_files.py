"""A run's directory as it is while the run goes on, without training."""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zstandard


def row(step: int, **more: float) -> dict[str, float]:
    """Return a line of metrics.jsonl as `rayzero train` writes it."""
    seconds = {"time/rollout_s": 3.0, "time/update_s": 0.9, "time/publish_s": 0.1, "time/other_s": 0.0}
    rollout = {"rollout/completion_tokens": 40.0 + step, "rollout/tokens_per_s": 4000.0, "rollout/logprob_gap": 1e-7}
    reward = {"reward/total": step / 10, "reward/correctness": step / 20}
    return {"step": step, **reward, **rollout, **seconds, "time/step_s": 4.0, **more}


def evaluation(step: int, right: float) -> dict[str, float]:
    measured = {"reward": right, "pass_at_1": right, "pass_at_1_ci95": 0.03, "completion_tokens": 40.0}
    return {"step": step} | {f"eval/{name}": value for name, value in measured.items()}


class WrittenRun:
    """Writes what a run writes."""

    def __init__(self, folder: Path, num_steps: int = 10) -> None:
        self.path = folder
        folder.mkdir(parents=True)
        (folder / "rollouts").mkdir()
        self.configure(num_steps=num_steps)
        self.hold()

    def configure(self, **settings: Any) -> None:
        told = {"name": self.path.name, "warm_start": {"num_steps": 7}, "of_another_version": 1} | settings
        (self.path / "config.json").write_text(json.dumps(told))

    def hold(self, pid: int | None = None, host: str | None = None) -> None:
        """Say who trains it; this process unless another is named."""
        (self.path / ".lock").write_text(f"process {pid or os.getpid()} on {host or socket.gethostname()}")

    def log(self, *rows: Mapping[str, float]) -> None:
        with (self.path / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(each) + "\n" for each in rows)

    def cut(self, step: int) -> None:
        """Remove the lines of later steps, as a resume does."""
        file = self.path / "metrics.jsonl"
        kept = [line for line in file.read_text().splitlines() if json.loads(line)["step"] <= step]
        aside = file.with_name("aside")
        aside.write_text("".join(f"{line}\n" for line in kept))
        aside.replace(file)

    def warn(self, said: str) -> None:
        with (self.path / "log.txt").open("a", errors="surrogatepass") as file:
            file.write(f"2026-11-29 16:00:00,123 WARNING {said}\n")

    def write_rollouts(self, step: int, *completions: str, folder: str = "rollouts", **more: Any) -> None:
        records = [
            {
                "step": step,
                "prompt_id": f"p{index}",
                "prompt": f"question {index}\n",
                "completion": text,
                "finish_reason": "stop",
                "token_ids": [1, 2, 3],
                "reward": 1.0,
                "parts": {"correctness": {"value": 1.0, "status": "ok"}},
            }
            | more
            for index, text in enumerate(completions)
        ]
        file = self.path / folder / f"step_{step:06d}.jsonl.zst"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(zstandard.compress("".join(json.dumps(each) + "\n" for each in records).encode()))
