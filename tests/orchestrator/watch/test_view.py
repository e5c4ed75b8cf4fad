"""What the view shows of a run, from its files alone, whatever models wrote into them."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.records.final_model import note_step
from orchestrator.records.run_directory import read_records
from orchestrator.records.trackers.terminal import step_line
from orchestrator.watch.printable import printable
from orchestrator.watch.run_state import MAX_RECORD, RunReader
from orchestrator.watch.sparkline import BARS, sparkline
from orchestrator.watch.view import RunView
from tests.support.processes import finished_pid
from tests.support.run_directories import written_run
from tests.support.run_files import WrittenRun, evaluation, row


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    return WrittenRun(tmp_path / "one")


def shown(run: WrittenRun | Path, width: int = 100, encoding: str = "utf-8") -> str:
    """Return the view as a terminal gets it, escape sequences included."""
    path = run.path if isinstance(run, WrittenRun) else run
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    Console(file=file, width=width, force_terminal=True, color_system=None).print(RunView(RunReader(str(path)).read()))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def test_a_run_that_goes_on_shows_progress_curves_verdicts_and_a_completion(run: WrittenRun) -> None:
    run.log(evaluation(0, 0.5), *(row(step) for step in range(1, 4)), row(4, **{"health/cut_off": 0.0}))
    run.warn("before training: trainable")
    run.warn("health/cut_off after step 2: most completions are cut off")
    run.warn("health/no_spread after step 3: nearly all groups are wrong")
    run.write_rollouts(4, "4 + 3 = 7\n<answer>7</answer>", "another")
    text = " ".join(shown(run).split())
    assert re.match(r"one step 4/10 · elapsed 0:16 · left 0:2[0-3] · running, process \d+ on \S+; last written", text)
    for expected in (
        "reward 0.400 ▁▃▆█ 0.100 … 0.400",
        "pass rate 20.0% ▁▃▆█",
        "held-out pass@1 50.0% ± 3.0%",
        "completion, tokens 44 ▁▃▆█ 41 … 44",
        "rollout 3.0 s ▄▄▄▄",
        "before training: trainable",
        "no longer: health/cut_off after step 2",
        "completions are cut off health/no_spread after step 3",
        "step 4, a completion: right, reward 1.000",
        "question 0",
        "│ 4 + 3 = 7",
        "│ <answer>7</answer>",
    ):
        assert expected in text
    assert "held-out reward" not in text and "another" not in text


def test_a_run_without_a_step_yet_and_one_of_sft_are_shown_too(run: WrittenRun) -> None:
    assert "one  step 0/10 · elapsed 0:00 · running" in shown(run) and "no step yet" in shown(run)
    run.log({"step": 1, "optim/loss": 2.5, "time/step_s": 0.5, "time/update_s": 0.4})
    text = shown(run)
    assert "step 1/7" in text and "loss" in text and "reward" not in text


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda run: run.hold(host="elsewhere"), "trained by process .* on elsewhere; last written 0:0. ago"),
        (lambda run: run.hold(pid=finished_pid()), "stopped: the same command resumes it"),
        (lambda run: (run.path / "final").mkdir(), "complete"),
        (lambda run: exported(run, 10), "complete"),
        (lambda run: exported(run, 9), "stopped: the same command resumes it"),
        (lambda run: (run.path / ".lock").unlink(), "stopped"),
    ],
)
def test_how_a_run_has_ended_is_said(run: WrittenRun, end, said: str) -> None:
    run.log(row(10))
    end(run)
    assert re.search(said, " ".join(shown(run).split()))


def test_a_run_that_was_stopped_as_hopeless_is_not_said_to_be_resumed(tmp_path: Path) -> None:
    run = written_run(tmp_path, "one", 4, 0, "no", "health.stop_after=2")
    (run / ".lock").unlink()
    rows = [{"step": step, "reward/total": 0.0, "rollout/groups_without_spread": 1.0} for step in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = " ".join(shown(run).split())
    assert "stopped as hopeless: raise health.stop_after" in text and "resumes it" not in text


def exported(run: WrittenRun, step: int) -> None:
    run.hold(pid=finished_pid())
    (run.path / "final").mkdir()
    note_step(run.path / "final", step)


HOSTILE = [
    "[bold red]markup[/] [/nothing] [link=http://x]y[/link] :smile:",
    "\x1b[2J\x1b]0;title\x07\x9b31m\x90q\x9c",
    "\u202eevil\u2066\u200b\ud800\x00\r\n\x08\x7f\ue000",
    "x" * 300_000,
    "\n" * 500,
    "👩‍👩‍👧 日本語 é",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text(run: WrittenRun, text: str) -> None:
    run.log(row(1))
    run.write_rollouts(1, text, prompt=text)
    run.warn(text.replace("\n", " "))
    output = shown(run)
    assert not {character for character in output if character not in "\n\u200d" and not character.isprintable()}
    assert len(output.splitlines()) < 70
    if "markup" in text:
        assert output.count("[bold red]markup[/] [/nothing] [link=http://x]y[/link] :smile:") == 3


def test_what_a_terminal_would_obey_has_a_sign_instead() -> None:
    assert printable("a\x1b[1m\n\tb\x00\x7f\x9b\u202e é日👩") == "a␛[1m\n\tb␀␡\ufffd\ufffd é日👩"
    assert printable("plain [text] $x$\n") == "plain [text] $x$\n"


def test_a_record_that_is_too_long_or_torn_is_left_out(run: WrittenRun) -> None:
    run.log(row(1), row(2))
    run.write_rollouts(2, "x" * MAX_RECORD)
    assert "a completion" not in shown(run)
    (run.path / "rollouts" / "step_000002.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd torn")
    assert "a completion" not in shown(run)


def test_rollouts_that_come_later_are_shown_meanwhile_with_those_before(run: WrittenRun) -> None:
    run.log(row(1), row(2))
    run.write_rollouts(1, "the first")
    assert "step 1, a completion" in shown(run)


def test_a_run_of_the_first_version_is_shown() -> None:
    old = Path(__file__).parents[2] / "data" / "run-of-0.1.0"
    text = shown(old)
    record = read_records(old / "rollouts" / "step_000002.jsonl.zst")[0]
    assert "step 2/" in text and f"step 2, a completion: wrong, reward {record['reward']:.3f}" in text


def test_a_terminal_without_unicode_or_width_gets_a_view_too(run: WrittenRun) -> None:
    run.log(*(row(step) for step in range(1, 9)))
    assert "_" in shown(run, encoding="ascii") and not set(BARS) & {*shown(run, encoding="ascii")}
    assert shown(run, width=20)


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([0.0, 1.0], "▁█"),
        ([5.0, 5.0], "▄▄"),
        ([0, 1, 2, 3, 4, 5, 6, 7], BARS),
        ([float("nan"), 1.0, float("inf"), 2.0], " ▁ █"),
        ([], ""),
        ([float("nan")], ""),
        ([float(value) for value in range(80)], BARS),
    ],
)
def test_a_sparkline_has_a_bar_for_each_value_or_their_means(values, bars: str) -> None:
    assert sparkline(values, 8) == bars


def test_the_time_left_has_at_most_59_seconds() -> None:
    times = dict.fromkeys(("time/rollout_s", "time/update_s", "time/publish_s"), 1.0) | {"time/step_s": 119.7}
    others = ("reward/total", "rollout/completion_tokens", "rollout/tokens_per_s", "rollout/logprob_gap")
    assert "ETA 1:59" in step_line(1, 2, times | dict.fromkeys(others, 1.0))
