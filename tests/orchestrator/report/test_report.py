"""A report is made of whatever a run directory holds, and says nothing of the machine."""

import json
import os
import re
import shutil
import socket
import statistics
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.config.recipe import load
from orchestrator.evaluate.evaluation import summarize
from orchestrator.records.meanings.table import METRICS
from orchestrator.records.run_directory import RunDirectory
from orchestrator.report.cost import cost
from orchestrator.report.page import document, overview
from orchestrator.report.page.chart import healthy
from orchestrator.report.reading.embedding import embedded
from orchestrator.report.reading.recorded_run import RecordedRun, read_run
from orchestrator.report.report import write_report
from tests.support.groups import scored_group
from tests.support.paths import ROOT
from tests.support.planted import planted_run
from tests.support.run_directories import data_of, set_in, written_run

pytest.importorskip("plotly", reason="`make install` installs plotly")


def test_a_runs_report_holds_what_its_pages_show(tmp_path: Path, capsys) -> None:
    run = written_run(tmp_path)
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.startswith(str(run / "report.html"))
    (found,) = data_of(run / "report.html")["runs"]
    summary = found["summary"]
    assert (summary["state"], summary["steps"], summary["evaluated"]) == ("complete", [4, 4], [0, 4])
    outcome = summary["outcome"]
    assert outcome["title"] == "pass@1 (sampled)" and outcome["before"][0] == 0.0 and outcome["after"][0] == 1.0
    mean, low, high, p = outcome["change"]
    assert mean == 1.0 and 0 < low < high <= 1 and p == pytest.approx(2 / 2**6)
    figures = {each["title"]: each for each in summary["figures"]}
    assert figures["pass@4 (sampled)"]["change"][0] == 1.0 and "change_half" not in figures["pass@4 (sampled)"]
    greedy, before, after = (figures["pass@1 (greedy)"][name] for name in ("change_half", "before", "after"))
    assert greedy**2 == pytest.approx(before[1] ** 2 + after[1] ** 2) and greedy > 0
    assert found["rollouts"]["kept"] == found["rollouts"]["of"] == 4 * 2 * 4 + 3 * 6 * 4
    charts = {chart["title"]: chart for section in found["learning"] for chart in section["charts"]}
    assert {"Right answers", "Mean reward", "Groups by outcome", "Cut off at the limit"} <= charts.keys()
    assert all(chart["note"] and "unit" in chart for chart in charts.values())
    units = {title: charts[title]["unit"] for title in ("pass@group on training prompts", "Cut off at the limit")}
    assert set(units.values()) == {"share"}
    lengths = charts["Length of right and wrong completions, training"]["lines"]
    (line,) = lines_of(lengths, "wrong")
    mean, low, high = found["counted"][line["key"]]
    assert (found["steps"], mean) == ([0, 1, 2, 3, 4], [None, 3.5, 3.5, 3.5, None])
    assert [below < 3.5 < above for below, above in zip(low[1:4], high[1:4], strict=True)] == [True] * 3


def lines_of(lines: list[dict], label: str) -> list[dict]:
    return [line for line in lines if line["label"] == label]


@pytest.mark.parametrize(
    ("mode", "settings", "held"),
    [
        ("cpu", {}, "2.2 core-hours, 6.0 GiB of main memory"),
        ("cpu", {"rollout": {"threads_per_generator": 2}}, "4.2 core-hours, 6.0 GiB of main memory"),
        ("cpu", {"max_staleness": 1}, "3.2 core-hours, 6.0 GiB of main memory"),
        ("colocated", {"rollout": {"num_generators": 2}}, "1 GPU-hours, 6.0 GiB of main memory"),
        ("pods", {"rollout": {"tensor_parallel_size": 2}}, "5 GPU-hours, 6.0 GiB of main memory"),
        ("pods", {"rollout": {"tensor_parallel_size": 64}}, "129 GPU-hours, 6.0 GiB of main memory"),
        ("", {}, "6.0 GiB of main memory"),
    ],
)
def test_what_a_run_cost_is_what_its_actors_held(mode: str, settings: dict, held: str) -> None:
    """Two generators, one rank and a reward worker for an hour, whatever the recipe names."""
    cpus = {"learner": {"cpus_per_rank": 0.8}, "rewards": {"cpus_per_worker": 0.2}}
    rollout = {"num_generators": 8, "cpus_per_generator": 0.5} | settings.get("rollout", {})
    peaks = {"generator-0": 2.0, "generator-1": 2.0, "learner-0": 1.5, "reward-0": 0.5}
    rows = [{"step": float(step), "time/step_s": 1800.0, "reward/total": 0.5} for step in (1, 2)]
    settings = settings | cpus | {"rollout": rollout}
    found = RecordedRun(Path(), settings, rows, {}, {}, "complete", peak_gib=peaks, mode=mode)
    assert cost(found) == held


def test_evaluations_are_told_apart_and_that_before_training_counts(tmp_path: Path) -> None:
    settings = {"rollout": {"num_generators": 1}, "learner": {"num_ranks": 1}, "rewards": {"num_workers": 0}}
    step = {"time/step_s": 3600.0, "time/evaluation_s": 1800.0, "reward/total": 0.5}
    rows = [{"step": 0.0, "time/evaluation_s": 900.0}, {"step": 1.0} | step, {"step": 2.0} | step]
    assert cost(RecordedRun(tmp_path, settings, rows, {}, {}, "complete", mode="cpu")) == (
        "1 core-hours and 1.2 for evaluations"
    )


@pytest.mark.parametrize(("mode", "held"), [("cpu", "2 core-hours"), ("pods", "2 GPU-hours")])
def test_a_run_of_sft_has_neither_generators_nor_reward_workers(mode: str, held: str, tmp_path: Path) -> None:
    settings = {"rollout": {"num_generators": 8}, "learner": {"num_ranks": 2}, "rewards": {"num_workers": 4}}
    rows = [{"step": 1.0, "time/step_s": 3600.0, "optim/loss": 1.0}]
    run = RecordedRun(tmp_path, settings, rows, {}, {}, "complete", mode=mode)
    assert cost(run) == held and dict(overview.facts(run))["Actors"] == "2 learner ranks"


def test_a_run_says_in_its_log_which_placement_it_got(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    said = "INFO placement: cpu, the cluster has no GPU"
    (run / "log.txt").write_text(f"2026-01-01 00:00:00,000 {said}\n")
    assert read_run(run).mode == "cpu" and dict(overview.facts(read_run(run)))["Cost"].endswith(" core-hours")


def test_tokens_carry_the_learners_gap_and_what_the_update_changed_at_evaluations(tmp_path: Path) -> None:
    (found,) = data_of(write_report([written_run(tmp_path)]))["runs"]
    groups = [group for group in found["rollouts"]["groups"] if group["split"] == "train"]
    for group in groups:
        assert ("largest gap" in group.get("reasons", [])) == group["id"].endswith("-0")
        first = group["completions"][0]
        if group["id"].endswith("-1"):  # which the learner left out
            assert not first.keys() & {"gaps", "changes"}
            continue
        assert first["gaps"] == [0, 200, 0]
        assert first.get("changes") == ([0, 1000, 0] if group["step"] in (2, 4) else None)
    assert not [group for group in found["rollouts"]["groups"] if group["split"] != "train" and "gaps" in str(group)]


def test_a_report_keeps_its_limit_whatever_a_model_wrote_and_however_many_steps_there_are(
    tmp_path: Path, monkeypatch
) -> None:
    run = written_run(tmp_path, steps=30, text="<" * 2_000)
    most = document.empty_page() + document.EXAMPLES + 500_000
    monkeypatch.setattr(document, "MAX_PAGE", most)
    (few,) = data_of(write_report([run]))["runs"]
    assert 0 < few["rollouts"]["kept"] < few["rollouts"]["of"]
    assert 0.9 * most < len((run / "report.html").read_bytes()) <= most
    long = {f"reward/part_{n}": 1 / 3 for n in range(100)}
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"step": step, **long}) + "\n" for step in range(31, 331))
    (fewer,) = data_of(write_report([run]))["runs"]
    assert len(embedded(fewer["rollouts"]["groups"])) < len(embedded(few["rollouts"]["groups"]))
    assert len((run / "report.html").read_bytes()) <= most


def test_several_runs_share_the_room(tmp_path: Path) -> None:
    runs = [written_run(tmp_path, name) for name in ("one", "two")]
    file = write_report(runs)
    assert file == tmp_path / "report.html" and [run["name"] for run in data_of(file)["runs"]] == ["one", "two"]


def test_a_run_that_died_at_step_0_is_reported_as_what_it_is(tmp_path: Path) -> None:
    run = written_run(tmp_path, steps=0, every=0)
    (run / "final").rmdir()
    (run / "metrics.jsonl").unlink(missing_ok=True)
    (found,) = data_of(write_report([run]))["runs"]
    assert found["summary"]["outcome"] is None and found["steps"] == [] and found["learning"] == []


def test_a_run_without_evaluations_is_compared_with_its_own_beginning(tmp_path: Path) -> None:
    (found,) = data_of(write_report([written_run(tmp_path, steps=30, every=0)]))["runs"]
    outcome = found["summary"]["outcome"]
    assert outcome["is_training"] and outcome["before"][0] < 0.3 < 0.8 < outcome["after"][0]
    assert found["summary"]["figures"] == []


def test_a_run_that_goes_on_says_so_and_one_that_was_killed_does_not(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    (run / "final").rmdir()
    for process, state in ((os.getpid(), "going on"), (2**22 + 1, "ended early")):
        (run / ".lock").write_text(f"process {process} on {socket.gethostname()}")
        (found,) = data_of(write_report([run]))["runs"]
        assert found["summary"]["state"] == state


def test_a_run_of_sft_has_the_steps_of_its_warm_start(tmp_path: Path) -> None:
    run = written_run(tmp_path, "one", 0, 0, "", "num_steps=10", "warm_start.num_steps=15")
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"step": step, "optim/loss": 1.0}) + "\n" for step in range(1, 16))
    (found,) = data_of(write_report([run]))["runs"]
    summary, facts = found["summary"], dict(found["summary"]["facts"])
    assert (summary["state"], summary["steps"], summary["command"]) == ("complete", [15, 15], "sft")
    assert facts["Steps"] == "15 of 15" and facts["Algorithm"] == "supervised, by rayzero sft"
    assert facts["A step"].endswith(" examples")
    assert summary["checks"] == 0  # the health checks are of rewards and groups
    assert facts["Task"] == "countdown"  # whose traces it was taught
    set_in(run, "warm_start", data="/home/someone/pairs.jsonl")
    (found,) = data_of(write_report([run]))["runs"]
    assert dict(found["summary"]["facts"])["Task"] == "pairs.jsonl" == found["summary"]["task"]
    assert data_of(write_report([written_run(tmp_path, "two")]))["runs"][0]["summary"]["command"] == "train"


def test_restarts_and_resumes_are_events(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    (run / "log.txt").write_text("2026-01-01 00:00:00,000 INFO a new command resumes the run after step 2\n")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "system/generator_restarts": 1.0, "reward/timeouts": 3.0}) + "\n{torn")
    (found,) = data_of(write_report([run]))["runs"]
    assert [event["step"] for event in found["events"]] == [2, 5, 5]
    assert "3 × gradings passed their deadline" in [event["text"] for event in found["events"]]


@pytest.mark.parametrize(("line", "replaced"), [("a new command resumes the run", [1, 3]), ("training goes on", [1])])
def test_counters_begin_again_with_a_command_and_not_with_the_learner(
    line: str, replaced: list[int], tmp_path: Path
) -> None:
    run = written_run(tmp_path, "one", 0, 0)
    (run / "log.txt").write_text(f"2026-01-01 00:00:00,000 INFO {line} after step 2\n")
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"step": n, "system/generator_restarts": 1.0}) + "\n" for n in (1, 2, 3, 4))
    (found,) = data_of(write_report([run]))["runs"]
    assert [each["step"] for each in found["events"] if each["text"] == "a generator was replaced"] == replaced


def test_replaced_groups_were_sampled_too(tmp_path: Path) -> None:
    run = written_run(tmp_path, "one", 0, 0, "", "prompts_per_step=2", "group_size=4")
    rows = [{"step": 0, "eval/reward": 0.1}, {"step": 1, "reward/total": 0.1, "rollout/replaced_groups": 3.0}]
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in [*rows, {"step": 2, "reward/total": 0.1}])
    assert data_of(write_report([run]))["runs"][0]["sampled"] == [0, 20, 28]


def test_a_run_of_the_first_version_has_a_report(tmp_path: Path) -> None:
    run = tmp_path / "old"
    shutil.copytree(ROOT / "tests" / "data" / "run-of-0.1.0", run)
    (found,) = data_of(write_report([run]))["runs"]
    assert found["rollouts"]["kept"] == 32 and found["summary"]["steps"][0] == 2
    assert all("markers" in each for group in found["rollouts"]["groups"] for each in group["completions"])


def test_a_step_can_be_asked_for(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    assert main(["report", str(run), "--steps", "3", "--output", str(tmp_path / "three.html")]) == 0
    groups = data_of(tmp_path / "three.html")["runs"][0]["rollouts"]["groups"]
    assert {group["step"] for group in groups if "asked for" in group.get("reasons", [])} == {3}


@pytest.mark.parametrize("step", ["999", "-1"])
def test_a_step_that_is_not_there_is_refused_with_those_that_are(step: str, tmp_path: Path, capsys) -> None:
    run = written_run(tmp_path)
    assert main(["report", str(run), "--steps", "3", step]) == 2
    assert capsys.readouterr().err == f"error: --steps {step}: steps 0 to 4 have completions\n"
    assert not (run / "report.html").exists()


def test_a_missing_folder_is_made_and_the_report_opened(tmp_path: Path, monkeypatch, capsys) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    file = tmp_path / "reports" / "new" / "those.html"
    assert main(["report", str(written_run(tmp_path)), "--open", "--output", str(file)]) == 0
    assert file.is_file() and opened == [file.as_uri()]
    picture = tmp_path / "pictures" / "curve.svg"
    assert main(["plot", str(tmp_path / "one"), "--output", str(picture)]) == 0 and picture.is_file()


@pytest.mark.parametrize("arguments", [["nowhere"], ["."], [".", "--output", "/dev/null/report.html"]])
def test_what_is_no_run_is_refused_in_one_line(arguments, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_nothing_of_the_machine_is_in_a_report(tmp_path: Path, monkeypatch) -> None:
    run, secrets = planted_run(tmp_path, monkeypatch)
    text = write_report([run]).read_text()
    assert "base-1b" in text and "pairs.jsonl" in text
    shown = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not [secret for secret in secrets if len(secret) > 3 and secret in shown]


def test_what_is_healthy_is_said_by_the_metrics_own_documentation() -> None:
    assert healthy("optim/entropy").startswith("Healthy: falls slowly. Otherwise: collapses to 0: lower learner.")
    assert healthy("optim/loss").startswith("The surrogate loss; on-policy it is near 0")
    assert healthy("no/such") == ""


def test_no_chart_says_what_is_healthy_in_words_of_its_own(tmp_path: Path) -> None:
    page = ROOT / "orchestrator" / "report" / "page"
    files = [*page.glob("*.py"), *page.glob("assets/*.js")]
    assert {file.name for file in files if "Healthy" in file.read_text()} == {"chart.py", "charts.js"}
    assert not [key for key in METRICS if re.search(r"`|\]\(", healthy(key))]
    (found,) = data_of(write_report([written_run(tmp_path)]))["runs"]
    notes = {chart["title"]: chart["note"] for section in found["learning"] for chart in section["charts"]}
    assert notes["Right answers"] == healthy("eval/pass_at_1") and "by heart" in notes["Right answers"]
    assert notes["Cut off at the limit"] == healthy("rollout/truncated") == healthy("wrong/rollout/truncated")
    assert "Healthy: below 0.05." in notes["Cut off at the limit"]
    assert "Healthy: none right below 0.7; all right below 0.7." in notes["Groups by outcome"]
    assert "](" not in "".join(text for meaning in found["meanings"].values() for text in meaning)


def evaluated_run(folder: Path, lengths: dict[int, list[int]], first_problem: dict[int, int] | None = None) -> Path:
    """A run with an evaluation at some steps: the lengths of the completions, problem by problem."""
    directory = RunDirectory(load("countdown-tiny", [f"runs_dir={folder}", f"num_steps={max(lengths)}"])).open()
    for step, tokens in lengths.items():
        start = (first_problem or {}).get(step, 0)
        groups = [scored_group(f"held_out/{start + n}", [n > 2, step > n], each) for n, each in enumerate(tokens)]
        directory.write_held_out(step, groups)
        directory.log_metrics(step, summarize(groups).metrics())
    return directory.path


def shown_figures(run: Path) -> dict[str, dict]:
    return {each["title"]: each for each in data_of(write_report([run]))["runs"][0]["summary"]["figures"]}


def test_changes_on_the_same_problems_are_judged_problem_by_problem(tmp_path: Path) -> None:
    before, after = [10, 20, 30, 40, 50, 60], [12, 24, 32, 44, 52, 64]
    found = shown_figures(evaluated_run(tmp_path, {0: before, 5: after}))
    length = found["mean completion, tokens"]
    assert length["before"] == [35, pytest.approx(1.96 * 18.708 / 6**0.5, rel=1e-3)]
    differences = [2, 4, 2, 4, 2, 4]
    half = 1.96 * statistics.stdev(differences) / 6**0.5
    assert length["change"] == [3, pytest.approx(3 - half, rel=1e-3), pytest.approx(3 + half, rel=1e-3), None]
    mean, low, high, p = found["mean reward"]["change"]
    assert mean == pytest.approx(0.375) and 0 < low < mean < high and p is None
    assert found["well-formed answers"]["change"][0] == 0 and found["well-formed answers"]["change"][3] == 1


def test_changes_on_other_problems_have_the_interval_of_two_sets(tmp_path: Path) -> None:
    found = shown_figures(evaluated_run(tmp_path, {0: [10, 20, 30, 40], 5: [11, 21, 31, 41]}, {5: 100}))
    length = found["mean completion, tokens"]
    assert length["change"] is None
    assert length["change_half"] == pytest.approx(2**0.5 * length["before"][1])
