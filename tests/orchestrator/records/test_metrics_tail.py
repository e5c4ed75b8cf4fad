"""Following a metrics.jsonl while it grows and while a resume cuts it."""

import json
from pathlib import Path

import pytest

from orchestrator.records.metrics_tail import MetricsTail
from tests.support.run_files import WrittenRun


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    return WrittenRun(tmp_path / "one")


def steps(rows) -> list[tuple[int, float]]:
    return [(row["step"], row["value"]) for row in rows]


def rows(*pairs: tuple[int, float]) -> list[dict[str, float]]:
    return [{"step": step, "value": value} for step, value in pairs]


def test_each_row_comes_once_and_a_half_written_one_when_it_is_whole(run: WrittenRun) -> None:
    file = run.path / "metrics.jsonl"
    tail = MetricsTail(file)
    assert tail.poll() == []
    run.log(*rows((0, 0.0), (1, 0.1)))
    assert steps(tail.poll()) == [(0, 0.0), (1, 0.1)] and tail.poll() == []
    with file.open("a") as opened:
        opened.write('{"step": 2, "val')
        opened.flush()
        assert tail.poll() == []
        opened.write('ue": 0.2}\nnot JSON\n5\n[]\n{"value": 1}\n{"step": null}\n{"step": "3"}\n')
    assert steps(tail.poll()) == [(2, 0.2)] and tail.poll() == []
    run.log(*rows((3, 0.3)))
    assert steps(tail.poll()) == [(3, 0.3)]


@pytest.mark.parametrize("again", [(), (3,), (3, 4), (3, 4, 5, 6)])
def test_after_a_resume_the_steps_that_are_done_again_come_again(run: WrittenRun, again) -> None:
    tail = MetricsTail(run.path / "metrics.jsonl")
    run.log(*rows(*((step, 0.1) for step in range(5))))
    tail.poll()
    run.cut(2)
    run.log(*rows(*((step, 0.2) for step in again)))
    assert steps(tail.poll()) == [(step, 0.2) for step in again]
    assert [row["step"] for row in tail.rows] == [0, 1, 2, *again]
    run.log({"step": 9, "value": 0.3})
    assert steps(tail.poll()) == [(9, 0.3)]


def test_steps_that_were_done_again_alike_are_not_told_twice(run: WrittenRun) -> None:
    tail = MetricsTail(run.path / "metrics.jsonl")
    run.log(*rows((1, 0.1), (2, 0.2)))
    tail.poll()
    run.cut(1)
    run.log(*rows((2, 0.2), (3, 0.3)))
    assert steps(tail.poll()) == [(3, 0.3)]


def test_only_what_is_new_is_read(run: WrittenRun, monkeypatch) -> None:
    run.log(*rows(*((step, 0.1) for step in range(1000))))
    tail = MetricsTail(run.path / "metrics.jsonl")
    tail.poll()
    run.log({"step": 1000, "value": 0.2})
    read: list[str] = []
    monkeypatch.setattr(json, "loads", lambda text, loads=json.loads: read.append(text) or loads(text))
    assert len(tail.poll()) == 1 == len(read)
