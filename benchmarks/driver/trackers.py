"""What it takes to tell a program of a run: CPU and memory of the process beside the loop.

python -m benchmarks.driver.trackers tensorboard
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestrator.records.trackers.build import PACKAGES
from tests.support.run_files import WrittenRun, row

NUM_STEPS, NUM_METRICS = 20, 60


def main() -> None:
    """Print the figures of the program that is named, with a run of NUM_STEPS steps and one evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PACKAGES)
    name = parser.parse_args().name
    with tempfile.TemporaryDirectory() as folder:
        run = WrittenRun(Path(folder) / "runs" / "one")
        more = {f"marker/{index}": 0.1 for index in range(NUM_METRICS)}
        run.log(*(row(step, **more) for step in range(NUM_STEPS)))
        run.write_rollouts(0, *("a text " * 100 for _ in range(40)), folder="held_out")
        (run.path / "report.html").write_text("the report")
        command = [sys.executable, "-m", "orchestrator.records.trackers.follow", str(run.path), name]
        alone = {"HOME": folder, "TRACKIO_DIR": f"{folder}/trackio", "WANDB_MODE": "offline"}
        subprocess.run(command, stdin=subprocess.DEVNULL, env=os.environ | alone, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{name}: {used.ru_utime + used.ru_stime:.1f} s of CPU, {used.ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
