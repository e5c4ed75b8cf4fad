"""What a grading process answers, without the process."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from rewards.environments.answering import decode_reply
from rewards.function import Outcome, RewardFunction
from rewards.subject import Subject
from rewards.workers.children.grading import decode_outcome, encode_batch, run
from rewards.workers.concurrent.lane import _decode


def grade(text: str, answer: Mapping[str, Any]) -> float:
    return float(len(text))


def test_markers_are_sought_in_what_the_model_wrote_and_told_with_the_last_function() -> None:
    first, last = (RewardFunction(name, "m:grade", (name,)) for name in ("first", "last"))
    prefix = "Step 1: "
    texts = ("Wait, let's try 5.", "hello")
    tasks = [((first, last), Subject((prefix + text,), {}, prefix_characters=len(prefix))) for text in texts]
    ours, theirs = socket.socketpair()
    with ours, ours.makefile("rb") as answers:
        ours.sendall(encode_batch(tasks))
        ours.shutdown(socket.SHUT_WR)
        with theirs:
            run(theirs, {each.name: (each, grade) for each in (first, last)}, memory_gib=None)
        outcomes = [decode_outcome(line) for line in answers]
    assert [each.markers for each in outcomes] == [None, ("backtracking", "exploration"), None, ()]
    assert [*map(dict, (each.grades for each in outcomes))] == [
        {"first": 26},
        {"last": 26},
        {"first": 13},
        {"last": 13},
    ]


RIGHT = ["ok", {"tidy": 1.0}, "", 0.5, None, [], {}]
WRONG = {
    "number": b"5",
    "object": b"{}",
    "null": b"null",
    "deep": b"[" * 200_000,
    "too few": b'["ok"]',
    "bytes": b"\xff",
    **{
        f"{index} is {value!r:.9}": json.dumps([*RIGHT[:index], value, *RIGHT[index + 1 :]]).encode()
        for index, value in [
            (0, "fine"),
            (0, [1]),
            (1, [1]),
            (1, {"tidy": "good"}),
            (1, {"tidy": 10**400}),
            (2, [1]),
            (3, None),
            (3, 10**400),
            (4, 5),
            (5, None),
            (5, [[]]),
            (6, {"a": None}),
        ]
    },
}


def test_an_outcome_is_read() -> None:
    outcome = Outcome("ok", {"tidy": 1.0}, "", 0.5)
    assert decode_outcome(json.dumps(RIGHT).encode()) == outcome
    assert _decode(json.dumps([3, False, RIGHT]).encode()).outcome == outcome


@pytest.mark.parametrize("line", WRONG.values(), ids=WRONG.keys())
def test_other_lines_are_a_process_that_went_wrong(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not an outcome: "):
        decode_outcome(line)
    with pytest.raises(ValueError, match=r"^not an answer: "):
        _decode(line)
    with pytest.raises(ValueError, match=r"^not an answer: "):
        _decode(b"[1, false, " + line + b"]")


def test_a_call_has_a_number() -> None:
    with pytest.raises(ValueError, match=r"^not an answer: "):
        _decode(json.dumps([[1], False, RIGHT]).encode())


@pytest.mark.parametrize(
    "fields",
    [
        ["error", "", True, {}, [1], 0.0],
        ["error", "", True, {}, "", 10**400],
        ["ok", "", True, {}, "", 10**400],
        ["ok", "", True, [1], "", 0.0],
        [["ok"], "", True, {}, "", 0.0],
    ],
)
def test_other_replies_of_an_environment_are_a_process_that_went_wrong(fields: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"^not a reply: "):
        decode_reply(json.dumps(fields).encode(), 1000)
