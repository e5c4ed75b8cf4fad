"""What a grading process answers, without the process."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from rewards.function import RewardFunction
from rewards.subject import Subject
from rewards.workers.grading import decode_outcome, encode_batch, run


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
