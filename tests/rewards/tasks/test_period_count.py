"""Period count: full stops, whatever the text is."""

import pytest

from rewards.config import RewardsConfig
from rewards.registry import functions_of
from rewards.tasks import period_count


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
def test_full_stops_are_counted(text: str, periods: int) -> None:
    assert period_count.score(text, {}) == {"periods": float(periods)}


def test_a_hostile_length_is_counted_too() -> None:
    assert period_count.score("." * 5_000_000, {"anything": None}) == {"periods": 5_000_000.0}


def test_the_task_is_found_by_its_name() -> None:
    (function,) = functions_of("period_count", RewardsConfig(weights={"periods": 0.3}))
    assert function.load() is period_count.score
    assert function.parts == tuple(period_count.score("", {}))
