"""Every metric has a meaning, and docs/metrics.md is made of them."""

import json
import re

import pytest

from orchestrator.records.meanings.table import METRICS, SECTIONS, find_metric, page
from orchestrator.records.metrics import Clock, rollout_metrics
from tests.orchestrator.evaluate.test_evaluation import paid
from tests.support.groups import scored_group
from tests.support.paths import ROOT

PREFIXES = "|".join(section.prefix for section in SECTIONS)
ANY = {metric.key for metric in METRICS.values() if metric.key in ("reward/<name>", "eval/<format>/<figure>")}
"""Entries that fit any key of their section: what only they fit has no entry of its own."""


def has_an_entry(key: str) -> bool:
    found = find_metric(key)
    return found is not None and found.key not in ANY


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == page(), "run `make docs`"


def test_every_key_of_a_run_has_an_entry() -> None:
    lines = (ROOT / "tests" / "data" / "run-of-0.1.0" / "metrics.jsonl").read_text().splitlines()
    keys = {key for line in lines for key in json.loads(line)} - {"step"}
    assert len(keys) > 40 and not [key for key in keys if not has_an_entry(key)]


def test_every_key_in_the_code_has_an_entry() -> None:
    text = "\n".join(
        path.read_text() for name in ("rollout", "learner", "orchestrator") for path in (ROOT / name).rglob("*.py")
    )
    found = set(re.findall(rf'f?"((?:{PREFIXES})/[\w{{}}./]+)"', text))
    keys = {key for key in found if "{" not in key and not key.endswith("_")}  # what others begin with
    assert len(keys) > 40 and not [key for key in keys if not has_an_entry(key)]


def test_every_key_of_a_step_has_an_entry() -> None:
    keys = {*rollout_metrics([scored_group("a", [True, False])]), *rollout_metrics([paid("a", 1.0, 2.0)])}
    assert not [key for key in keys | {*Clock().seconds()} if not has_an_entry(key)]


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("optim/kl_exact", "optim/kl_<estimator>"),
        ("optim/kl_beta", "optim/kl_beta"),
        ("eval/pass_at_16", "eval/pass_at_<k>"),
        ("eval/pass_at_8_ci95", "eval/<estimate>_ci95"),
        ("eval/natural/truncated", "eval/<format>/<figure>"),
        ("reward/correctness/gsm8k-hard.v2", "reward/correctness/<source>"),
        ("reward/my_own", "reward/<name>"),
        ("health/unknown", None),
    ],
)
def test_a_key_with_a_name_in_it_is_found_by_its_pattern(key: str, entry: str | None) -> None:
    found = find_metric(key)
    assert (found and found.key) == entry
