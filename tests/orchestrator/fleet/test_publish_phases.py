"""The publishing transaction as a table of decisions: what each phase says, and what becomes of every generator."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import pytest

from orchestrator.cluster.calls import Outcomes
from orchestrator.config.checks import resolve_transport
from orchestrator.fleet.learner_group import LearnerLostError
from orchestrator.fleet.publish import PublishError, publish

OK: dict[str, str] = {}


class Script(NamedTuple):
    """What goes wrong with whom in one attempt; everybody else does what is asked."""

    stage: dict[str, str] = OK
    commit: dict[str, str] = OK


class ScriptedTransport:
    """Plays one script for each attempt, and keeps what every generator runs."""

    def __init__(self, *attempts: Script, old_version: int = 6) -> None:
        self._attempts = list(attempts)
        self.runs: dict[str, int | None] = {}
        self.old_version = old_version
        self.staged: list[list[str]] = []
        self.committed: list[list[str]] = []
        self.dropped: list[list[str]] = []
        self.attempt_ids: list[int] = []

    def stage(self, attempt: Any, generators: Any) -> Outcomes:
        self.attempt_ids.append(attempt.id)
        self.staged.append(list(generators))
        self.runs = dict.fromkeys(generators, self.old_version) | self.runs
        script = self._attempts[len(self.staged) - 1]
        if "learner" in script.stage:
            raise LearnerLostError("learner-0 died")
        return played(generators, script.stage)

    def commit(self, attempt: Any, generators: Any) -> Outcomes:
        self.committed.append(list(generators))
        outcomes = played(generators, self._attempts[len(self.staged) - 1].commit, attempt.version)
        self.runs |= outcomes.answered | dict.fromkeys(outcomes.failed)
        return outcomes

    def drop(self, attempt: Any, generators: Any) -> None:
        self.dropped.append(list(generators))


def played(generators: Any, troubles: dict[str, str], version: int | None = None) -> Outcomes:
    outcomes = Outcomes()
    for name in generators:
        match troubles.get(name):
            case None:
                outcomes.answered[name] = version
            case "behind":
                outcomes.answered[name] = 6
            case kind:
                getattr(outcomes, kind)[name] = f"{name} is {kind}"
    return outcomes


def run(*attempts: Script, generators: str = "ab") -> tuple[ScriptedTransport, dict[str, str]]:
    transport = ScriptedTransport(*attempts)
    handles = {name: object() for name in generators}
    return transport, publish(None, handles, 7, timeout_s=1, bucket_bytes=1, transport=transport)  # type: ignore[arg-type]


def test_a_publish_stages_everywhere_before_anybody_commits() -> None:
    transport, lost = run(Script())
    assert (transport.staged, transport.committed, transport.dropped, lost) == ([["a", "b"]], [["a", "b"]], [], {})
    assert transport.runs == {"a": 7, "b": 7}


@pytest.mark.parametrize("trouble", ["refused", "late"])
def test_what_fails_in_staging_changes_nothing_and_is_tried_again_as_a_whole(trouble: str, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        transport, lost = run(Script(stage={"b": trouble}), Script())
    assert transport.dropped == [["a", "b"]]
    assert transport.staged == [["a", "b"]] * 2 and transport.committed == [["a", "b"]]
    assert transport.attempt_ids[0] < transport.attempt_ids[1]
    assert (transport.runs, lost) == ({"a": 7, "b": 7}, {})
    assert caplog.messages == [f"publishing version 7 failed and is repeated: b is {trouble}"]


def test_weights_that_are_refused_twice_reach_nobody() -> None:
    with pytest.raises(PublishError, match=r"version 7 was refused, and every .* continues .*: b is refused"):
        run(Script(stage={"b": "refused"}), Script(stage={"b": "refused"}))


@pytest.mark.parametrize("phase", ["stage", "commit"])
def test_one_that_dies_is_lost_and_fails_no_other(phase: str) -> None:
    transport, lost = run(Script(**{phase: {"b": "died"}}))
    assert lost == {"b": "b is died"}
    assert transport.runs["a"] == 7
    assert len(transport.staged) == 1


def test_who_is_late_twice_is_lost_when_others_have_it() -> None:
    transport, lost = run(Script(stage={"b": "late"}), Script(stage={"b": "late"}))
    assert lost == {"b": "b is late"}
    assert transport.committed == [["a"]]
    assert transport.runs == {"a": 7, "b": 6}


def test_when_everybody_is_late_twice_the_run_is_told() -> None:
    with pytest.raises(PublishError, match="version 7 reached no generator: a is late; b is late"):
        run(*[Script(stage={"a": "late", "b": "late"})] * 2)


def test_a_commit_that_fails_is_tried_again_for_that_one_alone() -> None:
    transport, lost = run(Script(commit={"b": "refused"}), Script())
    assert transport.staged == [["a", "b"], ["b"]] and transport.committed == [["a", "b"], ["b"]]
    assert (transport.runs, lost) == ({"a": 7, "b": 7}, {})


@pytest.mark.parametrize("second", [Script(commit={"b": "refused"}), Script(stage={"b": "refused"})])
def test_a_commit_that_fails_twice_loses_the_generator(second: Script) -> None:
    transport, lost = run(Script(commit={"b": "late"}), second)
    assert lost == {"b": "b is refused"}
    assert transport.runs == {"a": 7, "b": None}
    assert ["b"] in transport.dropped


def test_a_generator_that_confirms_another_version_stops_the_run() -> None:
    with pytest.raises(PublishError, match="published version 7, but b runs 6"):
        run(Script(commit={"b": "behind"}))


def test_when_the_learner_is_lost_everybody_drops_what_was_staged() -> None:
    transport = ScriptedTransport(Script(stage={"learner": "died"}))
    with pytest.raises(LearnerLostError):
        publish(None, {"a": object()}, 7, timeout_s=1, bucket_bytes=1, transport=transport)  # type: ignore[arg-type]
    assert transport.dropped == [["a"]] and transport.runs == {"a": 6}


def test_with_no_generator_there_is_nothing_to_lose() -> None:
    assert run(Script(), generators="")[1] == {}


@pytest.mark.parametrize(
    ("setting", "mode", "backend"),
    [
        ("auto", "cpu", "ray"),
        ("auto", "colocated", "ipc"),
        ("auto", "pods", "nccl"),
        ("ray", "colocated", "ray"),
        ("ray", "pods", "ray"),
        ("ipc", "colocated", "ipc"),
        ("nccl", "pods", "nccl"),
    ],
)
def test_the_backend_follows_the_placement(setting: Any, mode: Any, backend: str) -> None:
    assert resolve_transport(setting, mode) == backend


@pytest.mark.parametrize(
    ("setting", "mode", "fix"),
    [
        ("ipc", "pods", 'set it to "nccl" or "ray"'),
        ("nccl", "colocated", 'set it to "ipc" or "ray"'),
        ("ipc", "cpu", 'set it to "ray", or leave'),
        ("nccl", "cpu", 'set it to "ray", or leave'),
    ],
)
def test_a_backend_that_cannot_work_is_refused_with_the_fix(setting: Any, mode: Any, fix: str) -> None:
    with pytest.raises(
        ValueError, match=f'rollout.publish_backend = "{setting}" does not work where .*"{mode}".*{fix}'
    ):
        resolve_transport(setting, mode)
