"""Pictures from saved metrics: the curve of a run, any metric of it, and what is said of one that no step has."""

import json
import re
import xml.etree.ElementTree as ET
from math import isnan, nan
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.evaluate.evaluation import summarize
from orchestrator.records.metrics import rollout_metrics
from orchestrator.report.plots import draw_curve, draw_metrics, running_mean
from tests.support.groups import scored_group


def texts(file: Path) -> set[str]:
    """Return what an SVG says, which matplotlib writes as comments beside the glyphs."""
    ET.fromstring(file.read_text())
    return set(re.findall(r"<!-- (.*?) -->", file.read_text()))


def lines_of(num_steps: int) -> list[dict[str, float]]:
    """Return lines with rollout metrics of every step and evaluations in two formats of the first and the last."""
    groups = [scored_group("a", [True, False]), scored_group("b", [True, True])]
    lines = []
    for step in range(num_steps + 1):
        measured = summarize(groups, groups).metrics() | summarize(groups, groups).metrics("eval/natural")
        training = rollout_metrics(groups) | {"reward/total": step / num_steps}
        lines.append({"step": step} | (training if step else {}) | (measured if step in (0, num_steps) else {}))
    return lines


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"name": "mine", "a_setting_of_another_version": 1}')
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines_of(12)) + '{"step": 13, "rew'
    )
    return folder


def test_every_format_has_a_curve(tmp_path: Path) -> None:
    draw_curve(lines_of(1), tmp_path / "curve.svg", "one")
    said = texts(tmp_path / "curve.svg")
    assert {"held-out pass@1, 95% interval, the recipe's format", "held-out pass@1, 95% interval, natural"} <= said


@pytest.mark.parametrize("lines", [[], lines_of(2)[:1], [{"step": 1, "reward/total": nan}]])
def test_a_run_that_died_early_has_a_curve_too(tmp_path: Path, lines) -> None:
    draw_curve(lines, tmp_path / "curve.png", "one", smooth=5)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_plot_draws_the_curve_and_any_metrics_smoothed(run: Path, capsys) -> None:
    assert main(["plot", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "plot.png")
    assert (run / "plot.png").read_bytes().startswith(b"\x89PNG") and not (run / "curve.png").exists()
    picture = run / "two.svg"
    named = ["--metric", "reward/total", "eval/pass_at_1", "--metric", "rollout/truncated"]
    assert main(["plot", str(run), *named, "--smooth", "10", "--output", str(picture)]) == 0
    assert {"mine", "reward/total", "eval/pass_at_1", "rollout/truncated", "[reward]", "step"} <= texts(picture)


def test_the_curve_of_supervised_training_is_its_loss(run: Path) -> None:
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {n}, "optim/loss": {1 / n}}}\n' for n in range(1, 5)))
    picture = run / "curve.svg"
    assert main(["plot", str(run), "--output", str(picture)]) == 0
    assert "optim/loss" in texts(picture) and "mean reward" not in texts(picture)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "reward/totl"], r"--metric reward/totl: no step of the run has it; did you mean reward/total"),
        (["--metric", "pass_at_1"], r"did you mean .*eval/pass_at_1"),
        (["--metric", "zzz"], r"it has eval/.* and others. docs/metrics.md"),
        (["--smooth", "0"], r"--smooth 0: the number of steps"),
        (["--output", "a.pdf"], r"--output a.pdf: only .png or .svg can be drawn"),
        (
            ["--output", "/dev/null/a.png"],
            r"--output /dev/null/a.png: cannot be written \((File exists|Not a directory)",
        ),
    ],
)
def test_wrong_input_is_named_with_what_to_do(run: Path, capsys, arguments, said: str) -> None:
    assert main(["plot", str(run), *arguments]) == 2
    assert re.search(said, capsys.readouterr().err)


def test_what_is_damaged_of_the_metrics_is_left_out_and_the_rest_drawn(run: Path, capsys) -> None:
    damaged = [b'{"step": 12, "rew\n', b"5\n", b"[]\n", b'{"reward/total": 1}\n', b'{"step": null}\n', b"\xff\x00\n"]
    more = b'{"step": 20, "reward/total": 1.0, "reward/late": 1.0, "reward/text": "high"}\n'
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"\n" + b"".join(damaged) + more)
    assert main(["plot", str(run), "--metric", "reward/late"]) == 0
    assert main(["plot", str(run), "--metric", "reward/text"]) == 2
    assert "no step of the run has it" in capsys.readouterr().err
    (run / "config.json").write_text("[]")
    assert main(["plot", str(run)]) == 2
    assert "config.json is not JSON (it holds no settings)" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_said_with_the_run_that_was_meant(run: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(run.parent.parent)
    assert main(["plot", "mine"]) == 2
    assert "mine is not a run: it has no config.json. Did you mean runs/mine?" in capsys.readouterr().err
    (run / "metrics.jsonl").unlink()
    assert main(["plot", "runs/mine"]) == 2
    assert "has no step to draw yet" in capsys.readouterr().err


def test_a_running_mean_leaves_out_what_is_not_finite() -> None:
    assert running_mean([1.0, 3.0, nan, 5.0], 2) == [1.0, 2.0, 3.0, 5.0]
    assert isnan(running_mean([nan], 3)[0])


def test_a_name_is_no_formula(tmp_path: Path) -> None:
    draw_metrics([{"step": 1, r"reward/$\frac{$": 1.0}], [r"reward/$\frac{$"], tmp_path / "a.png", "$x^{$")
    assert (tmp_path / "a.png").exists()
