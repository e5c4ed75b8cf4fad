"""What each metric of a run means. docs/metrics.md is made from this: ``make docs``."""

from __future__ import annotations

from orchestrator.records.meanings.learning import OPTIM
from orchestrator.records.meanings.metric import MetricMeaning
from orchestrator.records.meanings.sampling import CURRICULUM, REWARD, ROLLOUT
from orchestrator.records.meanings.service import EVAL, MARKER, SYSTEM, TIME

SECTIONS = (REWARD, ROLLOUT, CURRICULUM, OPTIM, EVAL, MARKER, TIME, SYSTEM)
METRICS = {metric.key: metric for section in SECTIONS for metric in section.metrics}


def find_metric(key: str) -> MetricMeaning | None:
    """Return the entry of a logged key: its own, or else the first whose pattern fits. None for an unknown key."""
    return METRICS.get(key) or next((metric for metric in METRICS.values() if metric.pattern.fullmatch(key)), None)
