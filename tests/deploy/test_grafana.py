"""The Grafana dashboard: its shape is Grafana's, and no panel is empty because of a name that nobody exports."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.records.meanings.table import METRICS
from orchestrator.records.trackers.ray_metrics import metric_name
from tests.support.paths import ROOT

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "rayzero.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
GRID_COLUMNS = 24


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def charted(prefix: str) -> set[str]:
    """Metrics with that prefix that a panel or a variable asks for."""
    asked = [*(query for panel in CHARTS for query in queries(panel)), VARIABLES["run"]["query"]["query"]]
    return {name for query in asked for name in re.findall(rf"\b{prefix}\w+", query)}


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells = {panel["id"]: cells_of(panel["gridPos"]) for panel in PANELS}
    assert not [pair for pair in combinations(cells, 2) if cells[pair[0]] & cells[pair[1]]]


def cells_of(place: dict[str, int]) -> set[tuple[int, int]]:
    assert place["x"] >= 0 and place["w"] > 0 and place["h"] > 0 and place["x"] + place["w"] <= GRID_COLUMNS
    columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return {(x, y) for x in columns for y in lines}


@pytest.mark.parametrize("panel", CHARTS, ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_a_panel_asks_the_chosen_prometheus_and_says_what_it_shows(panel: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == chosen and all(target["datasource"] == chosen for target in panel["targets"])
    assert VARIABLES["datasource"]["type"] == "datasource" and VARIABLES["datasource"]["query"] == "prometheus"
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    assert panel["description"] and all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("panel", CHARTS, ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_rayzeros_metrics_are_those_of_the_chosen_runs(panel: dict[str, Any]) -> None:
    for query in queries(panel):
        assert query.count("ray_rayzero_") == query.count('run=~"$run"}')
    assert VARIABLES["run"]["query"]["query"] == VARIABLES["run"]["definition"]


def test_every_metric_of_ours_is_a_documented_key() -> None:
    documented = {f"ray_{metric_name(key)}" for key in ("step", *METRICS)}
    # A pattern asks for all names with its beginning.
    assert all(name in documented or begins_one(name, documented) for name in charted("ray_rayzero_"))
    everything = {"reward_total", "reward_correctness", "rollout_tokens_per_s", "time_update_s", "rollout_staleness"}
    assert {f"ray_rayzero_{name}" for name in everything} <= charted("ray_rayzero_")


def begins_one(name: str, documented: set[str]) -> bool:
    return name.endswith("_") and any(each.startswith(name) for each in documented)


def test_every_other_metric_is_one_of_rays() -> None:
    """Ray's node agent has gauges `"node_mem_used"`; its own panels ask for `ray_object_store_memory{…}`."""
    modules = Path(ray.__file__).parent / "dashboard" / "modules"
    gauges = re.findall(r'"(node_\w+|component_\w+)"', (modules / "reporter" / "reporter_agent.py").read_text())
    charts = re.findall(r"\bray_\w+", (modules / "metrics" / "dashboards" / "default_dashboard_panels.py").read_text())
    others = charted("ray_(?!rayzero_)")
    assert (
        {"ray_node_mem_used", "ray_node_gpus_utilization"} <= others <= {*charts, *(f"ray_{name}" for name in gauges)}
    )
