from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rewards.config import EnsembleConfig, RewardsConfig


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"deadline_s": 0}, r"rewards\.deadline_s = 0.*above 0"),
        ({"deadline_s": float("nan")}, r"deadline_s\n.*finite number"),
        ({"deadlines_s": {"length": -1}}, r"rewards\.deadlines_s\.length = -1.*above 0"),
        ({"weights": {}}, r"rewards\.weights = \{\}.*such as correctness = 0\.9"),
        ({"weights": {"correctness": 0.0}}, r"rewards\.weights.*every completion would get reward 0"),
        ({"weights": {"correctness": float("inf")}}, r"weights\.correctness\n.*finite number"),
        ({"num_workers": 0}, r"rewards\.num_workers = 0.*at least 1"),
        ({"max_pending_groups": 0}, r"rewards\.max_pending_groups = 0.*at least 1"),
        ({"cpus_per_worker": -1}, r"rewards\.cpus_per_worker = -1.*0 or more"),
        ({"memory_gib": 0.1}, r"rewards\.memory_gib = 0\.1.*at least 1 GiB"),
        ({"max_failed_share": 1.5}, r"rewards\.max_failed_share = 1\.5.*0 to 1"),
        ({"tasks": {"mine": "my_rewards.score"}}, r"rewards\.tasks\.mine.*my_rewards\.score.*module:function"),
        ({"functions": ["closeness"]}, r"rewards\.functions.*closeness.*module:function.*my_rewards:closeness"),
        ({"functions": ["a:close", "b:close"]}, r"rewards\.functions has 2 functions named close"),
        ({"ensembles": {"best": {"by": "mean", "weights": {"a": 1}}}}, r"by"),
        ({"ensembles": {"best": {"by": "max", "weights": {}}}}, r"rewards\.ensembles\.best\.weights is empty"),
        (
            {"ensembles": {"a": {"by": "max", "weights": {"b": 1}}, "b": {"by": "max", "weights": {"length": 1}}}},
            r"rewards\.ensembles\.a\.weights\.b: an ensemble is made of parts",
        ),
        (
            {"functions": ["m:best"], "ensembles": {"best": {"by": "max", "weights": {"length": 1}}}},
            r"rewards\.ensembles\.best has the name of m:best",
        ),
        ({"on_timeout": "ignore"}, r"on_timeout"),
        ({"dead_line": 3}, r"dead_line"),
    ],
)
def test_mistakes_name_key_value_and_fix(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        RewardsConfig(**settings)


@pytest.mark.parametrize("config", [RewardsConfig, EnsembleConfig])
def test_every_setting_is_documented(config: type[RewardsConfig]) -> None:
    assert not [name for name, field in config.model_fields.items() if not field.description]
