from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rewards.config import RewardsConfig


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"deadline_s": 0}, r"rewards\.deadline_s = 0.*above 0"),
        ({"deadline_s": float("nan")}, r"rewards\.deadline_s = nan"),
        ({"weights": {}}, r"rewards\.weights = \{\}.*such as correctness = 0\.9"),
        ({"weights": {"correctness": 0.0}}, r"rewards\.weights.*every completion would get reward 0"),
        ({"weights": {"correctness": float("inf")}}, r"rewards\.weights\.correctness = inf.*finite"),
        ({"num_workers": 0}, r"rewards\.num_workers = 0.*at least 1"),
        ({"cpus_per_worker": -1}, r"rewards\.cpus_per_worker = -1.*0 or more"),
        ({"memory_gib": 0.1}, r"rewards\.memory_gib = 0\.1.*at least 1 GiB"),
        ({"functions": {"mine": "my_rewards.score"}}, r"rewards\.functions\.mine.*module:function"),
        ({"on_timeout": "ignore"}, r"on_timeout"),
        ({"dead_line": 3}, r"dead_line"),
    ],
)
def test_mistakes_name_key_value_and_fix(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        RewardsConfig(**settings)


def test_every_setting_is_documented() -> None:
    assert not [name for name, field in RewardsConfig.model_fields.items() if not field.description]
