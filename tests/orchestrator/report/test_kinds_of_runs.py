"""A report of each kind of run: with a critic, of a mixture, in several formats, and of what hostile models wrote."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.recipe import load
from orchestrator.evaluate.evaluation import held_out_metrics, summarize
from orchestrator.records.metrics import rollout_metrics
from orchestrator.records.run_directory import RunDirectory
from orchestrator.report.report import write_report
from rollout.types.completions import Group
from tests.support.groups import scored_group
from tests.support.run_directories import data_of, written_run

pytest.importorskip("plotly", reason="`make install` installs plotly")
LARGEST_MIB = 15


def charts_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {chart["title"]: chart for section in found["learning"] for chart in section["charts"]}


def test_a_run_with_a_critic_shows_it_and_says_which_baseline_it_has(tmp_path: Path) -> None:
    run = written_run(tmp_path, "critic", 2, 2, "no", "learner.algorithm.preset=ppo")
    with (run / "metrics.jsonl").open("a") as file:
        figures = {"optim/value_loss": 0.5, "optim/value_explained_variance": 0.25, "optim/value_mean": 0.1}
        file.write(json.dumps({"step": 3, **figures}) + "\n")
    (found,) = data_of(write_report([run]))["runs"]
    assert found["credit"]["algorithm"]["baseline"] == "value" and found["credit"]["examples"]
    first = next(group for group in found["rollouts"]["groups"] if group["id"] == "train/1-0")["completions"][0]
    assert first["credits"] == [0, 200, 0]
    assert {"The critic's loss", "The critic's explained variance"} <= charts_of(found).keys()
    assert found["series"]["optim/value_loss"] == [None, None, None, 0.5]


def test_a_distilled_run_is_not_explained_by_its_rewards(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    settings = json.loads((run / "config.json").read_text())
    settings["learner"]["algorithm"]["surrogate"] = "none"
    settings["model"]["teacher"] = "/home/planted/SmolLM2-1.7B"
    (run / "config.json").write_text(json.dumps(settings))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "reward/total": 0.5, "optim/kl_exact": 0.2}) + "\n")
    (found,) = data_of(write_report([run]))["runs"]
    assert found["credit"]["algorithm"]["surrogate"] == "none" and found["credit"]["examples"] == []
    assert "KL to the teacher" in charts_of(found)
    assert dict(found["summary"]["facts"])["Teacher"] == "SmolLM2-1.7B"


def mixed(step: int) -> list[Group]:
    """Two groups, each of another entry of the mixture."""
    groups = [scored_group(f"train/{step}-{n}", [n == 1, False]) for n in range(2)]
    entries = ("easy", "hard")
    return [replace(group, prompt=replace(group.prompt, source=entries[n])) for n, group in enumerate(groups)]


def test_a_mixture_is_told_apart_by_entry(tmp_path: Path) -> None:
    entries = [f"prompts.mixture.{name}.task=countdown" for name in ("easy", "hard")]
    directory = RunDirectory(load("countdown-tiny", [f"runs_dir={tmp_path}", "num_steps=2", *entries])).open()
    for step in (1, 2):
        groups = mixed(step)
        directory.write_rollouts(step, [(group, [0.5, -0.5]) for group in groups])
        directory.log_metrics(step, rollout_metrics(groups))
    (found,) = data_of(write_report([directory.path]))["runs"]
    lines = charts_of(found)["Right answers by entry of the mixture, training"]["lines"]
    assert [line["label"] for line in lines] == ["easy", "hard"]
    assert [found["series"][line["key"]] for line in lines] == [[0, 0], [0.5, 0.5]]
    assert [found["counted"][line["key"]][0] for line in lines] == [[0, 0], [0.5, 0.5]]
    assert len({line["role"] for line in lines}) == len(lines)
    assert {group["source"] for group in found["rollouts"]["groups"]} == {"easy", "hard"}
    assert "countdown" in found["summary"]["task"]


def test_several_formats_are_compared_on_the_same_problems(tmp_path: Path) -> None:
    config = load(
        "countdown-tiny",
        [f"runs_dir={tmp_path}", "num_steps=2", 'evaluation.formats=["one_shot", "natural"]'],
    )
    directory = RunDirectory(config).open()
    for step in (0, 2):
        groups = [scored_group(f"held_out/{n}", [step > n, False]) for n in range(4)]
        evaluations = [summarize(groups) for _ in config.measured_formats]
        directory.write_held_out(step, groups)
        directory.log_metrics(step, held_out_metrics(evaluations, config))
    (found,) = data_of(write_report([directory.path]))["runs"]
    lines = charts_of(found)["Held-out pass@1 by format"]["lines"]
    assert [line["label"] for line in lines] == ["the recipe's own", "one shot", "natural"]
    assert [found["series"][line["key"]][-1] for line in lines] == [0.25, 0.25, 0.25]


HOSTILE = (
    "</script><script>alert(1)</script>",
    "\u202eevil\u2066",
    "\u0000",
    "😀 👩\u200d👧",
    "<!-- <script>",
    "x" * 2**20,
)


@pytest.mark.parametrize("text", HOSTILE, ids=["element", "turned", "NUL", "emoji", "comment", "a megabyte in a line"])
def test_hostile_completions_are_text_of_a_whole_run(tmp_path: Path, text: str) -> None:
    run = written_run(tmp_path, "hostile", 1, 1, text)
    file = write_report([run])
    page = file.read_text()
    assert page.count("</script>") == 3 and page.count("<script") == 3 and "alert(1)</" not in page
    assert len(page) < LARGEST_MIB * 2**20
    assert not re.findall("[\u0000\u202a-\u202e\u2066-\u2069]", page)
    (found,) = data_of(file)["runs"]
    shown = [each["text"] for group in found["rollouts"]["groups"] for each in group["completions"]]
    assert any(text[:40] in each for each in shown) and max(map(len, shown)) < 21_000
