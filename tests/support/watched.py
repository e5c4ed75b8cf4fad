"""A training run as Prometheus and its own files show it while it goes on."""

import json
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.records.trackers.ray_metrics import metric_name
from tests.support.ray_head import RayHead


class Watched:
    """What can be read of a run on a cluster."""

    def __init__(self, head: RayHead, directory: Path) -> None:
        """`directory` is the run's own, and has its name."""
        self.address, self.directory, self.name = head.address, directory, directory.name
        self._targets = head.temp / "prom_metrics_service_discovery.json"

    def gauges(self) -> dict[str, float]:
        """Rayzero's metrics of this run, by their names there."""
        samples = [sample for family in self.families() for sample in family.samples]
        return {sample.name: sample.value for sample in samples if sample.labels.get("run") == self.name}

    def families(self) -> list[Any]:
        """All metrics of all addresses where Ray tells Prometheus to look, and somebody answers."""
        addresses = [address for group in json.loads(self._targets.read_text()) for address in group["targets"]]
        families: list[Any] = []
        for address in addresses:
            with suppress(OSError), urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
                families += text_string_to_metric_families(page.read().decode())
        return families

    def lines(self) -> dict[int, dict[str, float]]:
        """metrics.jsonl, by step."""
        file = self.directory / "metrics.jsonl"
        text = file.read_text() if file.exists() else ""
        return {line["step"]: line for line in map(json.loads, text.splitlines())}

    def left_behind(self, last_step: int) -> dict[str, float]:
        """What the gauges must show after a step: of each key the value that was logged last."""
        lines = [line for step, line in self.lines().items() if step <= last_step]
        return {f"ray_{metric_name(key)}": value for line in lines for key, value in line.items()}
