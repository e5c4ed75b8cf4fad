"""The meaning of every metric of a run. `make docs` writes docs/metrics.md from it."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.records.meanings.health import HEALTH
from orchestrator.records.meanings.learning import OPTIM
from orchestrator.records.meanings.metric import MetricMeaning, MetricSection
from orchestrator.records.meanings.sampling import CURRICULUM, REWARD, ROLLOUT
from orchestrator.records.meanings.service import EVAL, MARKER, SYSTEM, TIME

SECTIONS = (REWARD, ROLLOUT, CURRICULUM, OPTIM, EVAL, MARKER, HEALTH, TIME, SYSTEM)
METRICS = {metric.key: metric for section in SECTIONS for metric in section.metrics}

INTRODUCTION = """\
# What does this metric mean, and what is healthy?

Every line of `runs/<name>/metrics.jsonl` is a step; step 0 is the evaluation before training.
Grafana charts the same numbers ([dashboard](dashboard.md)). Units end names: `_s` seconds,
`_tokens` tokens. The unit reward is that of `rewards.weights`. Shares and means are over the step's
completions unless an entry says otherwise.

This page is made by `make docs` from `orchestrator/records/meanings/`: change the entry there.
"""
HEAD = "| key | unit | meaning | healthy | when it is not |\n| --- | --- | --- | --- | --- |"


def find_metric(key: str) -> MetricMeaning | None:
    """Return the entry of a logged key: its own, or else the first entry whose pattern fits. None for unknown keys."""
    return METRICS.get(key) or next((metric for metric in METRICS.values() if metric.fits(key)), None)


def page() -> str:
    """Return the page in Markdown."""
    return "\n".join([INTRODUCTION, *(line for section in SECTIONS for line in lines(section))])


def lines(section: MetricSection) -> Iterator[str]:
    """Yield a section's heading, introduction and table."""
    yield f"## {section.prefix}/\n"
    if section.introduction:
        yield f"{section.introduction}\n"
    yield HEAD
    for metric in section.metrics:
        yield f"| `{metric.key}` | {metric.unit} | {metric.meaning} | {metric.healthy} | {metric.otherwise} |"
    yield ""


if __name__ == "__main__":
    print(page(), end="")
