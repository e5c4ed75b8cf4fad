"""Rows are known again, and those that were added, removed or changed are told."""

import numpy as np

from rollout.problems.fingerprint import Fingerprint

ROWS = [(f"question {n}", f"answer {n}", f"rows.jsonl, line {n}") for n in range(1, 31)]


def test_the_order_counts_only_where_it_decides_something() -> None:
    first, other = Fingerprint.of(ROWS), Fingerprint.of(ROWS[::-1])
    assert first.summary() == other.summary() and first.summary()["count"] == 30
    assert first.summary(is_ordered=True) != other.summary(is_ordered=True)
    assert other.since(first) == ""


def test_keys_and_references_have_hashes_of_their_own() -> None:
    before, now = Fingerprint.of(ROWS), Fingerprint.of([("question 1", "another answer", ""), *ROWS[1:]])
    assert before.summary()["keys"] == now.summary()["keys"]
    assert before.summary()["contents"] != now.summary()["contents"]


def test_what_has_changed_is_counted_and_named() -> None:
    before = Fingerprint.of(ROWS)
    assert Fingerprint.of(ROWS[:-2]).since(before) == "2 removed"
    new = [("new", "7", "rows.jsonl, line 31"), ("new", "7", "rows.jsonl, line 32")]
    assert Fingerprint.of([*ROWS, *new]).since(before) == "2 added (line 31, line 32)"
    changed = [("question 1", "2", "rows.jsonl, line 1"), *ROWS[2:], *new[:1]]
    assert Fingerprint.of(changed).since(before) == (
        "1 added (line 31), 1 removed, 1 with another question or answer (line 1)"
    )
    others = Fingerprint.of((f"other {n}", "", f"rows.jsonl, line {n}") for n in range(9))
    assert others.since(before) == "9 added (line 0, line 1, line 2, line 3, line 4, …), 30 removed"
    assert others.num_new_keys(before) == 9 and before.num_new_keys(before) == 0


def test_a_row_that_stands_twice_counts_twice() -> None:
    twice = Fingerprint.of([*ROWS, ROWS[0]])
    assert twice.since(Fingerprint.of(ROWS)) == "1 added (line 1, line 1)"
    assert Fingerprint.of(ROWS).since(twice) == "1 removed"


def test_half_characters_and_no_rows_have_a_fingerprint_too() -> None:
    assert Fingerprint.of([("\ud83d", "\udc00", "")]).summary()["count"] == 1
    empty = Fingerprint.of([])
    assert empty.summary()["count"] == 0 and empty.keys.dtype == np.dtype("<u8")
