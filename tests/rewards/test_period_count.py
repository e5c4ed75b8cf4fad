"""Period count: full stops, whatever the text is."""

import pytest

from rewards import period_count
from rewards.registry import load, path_of


@pytest.mark.parametrize(
    ("text", "periods"),
    [
        ("", 0),
        (" sleeps quietly.", 1),
        (" sleeps. my dog runs.", 2),
        ("...", 3),
        ("no end", 0),
        ("3.14", 1),
        ("。․…", 0),
        ("\x00.\ud800.\n.", 3),
    ],
)
def test_full_stops_are_counted(text, periods) -> None:
    assert period_count.score(text, {}) == {"periods": float(periods)}


def test_a_hostile_length_is_counted_too() -> None:
    assert period_count.score("." * 5_000_000, {"anything": None}) == {"periods": 5_000_000.0}


def test_the_task_is_found_by_its_name() -> None:
    assert load(path_of("period_count", {})) is period_count.score
