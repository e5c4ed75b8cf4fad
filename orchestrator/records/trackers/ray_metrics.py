"""The numbers of each step as metrics of Ray, which Prometheus reads and Grafana charts; see docs/dashboard.md."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence

from ray.util.metrics import Counter, Gauge

from orchestrator.records.meanings.table import find_metric
from orchestrator.records.trackers.base import RemoteAdvantages, Tracker
from rollout.types.completions import Group

REPEAT_S = 1.0
"""Seconds after which values are set in Ray again. Ray's report interval is never shorter."""


class RayMetricsTracker(Tracker):
    """Keeps a gauge for each metric key, tagged with the run's name, and a counter of steps.

    Ray gives all of them the prefix `ray_`, and the counter the suffix `_total`. A gauge keeps its value until a step
    logs that key again, so the held-out figures stay between two evaluations. Nothing waits for Ray's metrics agent:
    the values stay in this process until Ray sends them to the agent, every RAY_metrics_report_interval_ms. Without an
    agent they are never sent.
    """

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._gauges: dict[str, Gauge] = {}
        self._values: dict[str, float] = {}
        self._steps = Counter("rayzero_steps", "steps done since the run was started or resumed", tag_keys=("run",))
        self._lock = threading.Lock()  # an old value must not be set after a new one
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_reporting, name="ray-metrics", daemon=True)
        self._thread.start()

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        with self._lock:
            self._values |= {"step": float(step)} | {key: float(value) for key, value in metrics.items()}
            self._report()
        if step > 0:
            self._steps.inc(tags=self._tags)

    def close(self) -> None:
        """Stop reporting. Ray drops the run's values two report intervals later."""
        self._closed.set()
        self._thread.join()

    def _keep_reporting(self) -> None:
        # Ray reports a value once, and drops it after two report intervals without a new one: a step may take longer.
        while not self._closed.wait(REPEAT_S):
            with self._lock:
                self._report()

    def _report(self) -> None:
        for key, value in self._values.items():
            self._gauge(key).set(value, self._tags)

    def _gauge(self, key: str) -> Gauge:
        if key not in self._gauges:
            text = description(key).encode("ascii", "replace").decode()
            self._gauges[key] = Gauge(metric_name(key), text, tag_keys=("run",))
        return self._gauges[key]


def metric_name(key: str) -> str:
    """Return a metric's name in Ray: `rayzero_time_update_s` for `time/update_s`."""
    return "rayzero_" + re.sub(r"\W", "_", key, flags=re.ASCII)


def description(key: str) -> str:
    """Return the meaning of a metric; the key itself if the metric has no entry in the table."""
    metric = find_metric(key)
    return metric.meaning if metric else key
