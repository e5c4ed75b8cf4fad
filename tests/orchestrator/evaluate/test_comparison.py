"""Models side by side: the prompts they are asked, the engines that answer, and what is refused before a start."""

import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from orchestrator.cluster.layout import Bundle, Layout
from orchestrator.config.recipe import ConfigError, load
from orchestrator.evaluate import comparison
from orchestrator.evaluate.comparison import compare, prompts_of, with_room_for
from orchestrator.evaluate.models import NamedModel
from orchestrator.model_source import PolicyError
from orchestrator.plan.model_fits import check_context, max_positions
from tests.support.groups import scored_group
from tests.support.paths import WARM_START


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ['prompts.natural_template="Make {target} of {numbers}, please"'],
            "none of them can be used.* cannot encode 'Make",
        ),
        (["evaluation.num_prompts=999"], "999, but 256 problems are held out"),
    ],
)
def test_a_format_that_the_model_cannot_read_is_refused_before_anything_starts(overrides, message) -> None:
    formats = 'evaluation.formats=["zero_shot", "one_shot", "natural"]'
    with pytest.raises(ConfigError, match=message):
        prompts_of(NamedModel("warm", str(WARM_START)), load("countdown-tiny", [formats, *overrides]))


def test_every_format_asks_the_same_problems_in_its_own_words() -> None:
    config = load("countdown-tiny", ['evaluation.formats=["natural", "one_shot"]', "evaluation.num_prompts=4"])
    found = prompts_of(NamedModel("warm", str(WARM_START)), config)
    assert list(found) == ["natural", "one_shot"]
    assert [prompt.key for prompt in found["natural"]] == [prompt.key for prompt in found["one_shot"]]
    assert found["one_shot"][0].text.endswith(found["natural"][0].text + "<think>")


def test_engines_have_room_for_the_longest_prompt_of_any_format() -> None:
    """A run reserves what its own format needs; the worked example of another is longer."""
    config = load("countdown-tiny", ['evaluation.formats=["natural", "one_shot"]', "prompts.max_prompt_tokens=20"])
    asked = {"warm": prompts_of(NamedModel("warm", str(WARM_START)), config)}
    longest = max(len(prompt.token_ids) for prompt in asked["warm"]["one_shot"])
    assert longest > 20
    assert with_room_for(asked, config).max_model_len == longest + config.sampling.max_completion_tokens
    assert longest < load("countdown-tiny").prompts.max_prompt_tokens
    assert with_room_for(asked, load("countdown-tiny")) == load("countdown-tiny")


def test_what_the_model_has_no_positions_for_is_refused_before_a_cluster_is_started(monkeypatch) -> None:
    monkeypatch.setattr(comparison, "ray_cluster", lambda **_: pytest.fail("a cluster was started"))
    config = load("countdown-tiny", ["prompts.num_held_out=4", "evaluation.num_prompts=4"])
    warm = NamedModel("warm", str(WARM_START))
    asked = {"warm": prompts_of(warm, config)}
    too_long = config.sampling.model_copy(update={"max_completion_tokens": 500})
    config = config.model_copy(update={"sampling": too_long})
    refused = r"countdown-warm-start.*512 tokens.*sampling.max_completion_tokens = 500 take 564: lower sampling"
    with pytest.raises(PolicyError, match=refused):
        compare([warm], asked, config, Console(quiet=True))
    with pytest.raises(PolicyError, match=refused):
        check_context(config, str(WARM_START))
    check_context(load("countdown-tiny"), str(WARM_START))


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("rope", "positions"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, 512),
        ({"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}, 2048),
        (LLAMA3, 512),
    ],
)
def test_positions_that_a_scaling_adds_count(tmp_path, rope, positions) -> None:
    settings = json.loads((WARM_START / "config.json").read_text())
    settings["rope_parameters"] = rope
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert max_positions(str(tmp_path)) == positions


def test_models_share_one_cluster_and_the_engines_of_one_end_before_the_next_begin(monkeypatch) -> None:
    events: list[str] = []

    class Fleet:
        rollouts = SimpleNamespace(
            collect=lambda request: [scored_group(prompt.id, [True] * request.group_size) for prompt in request.prompts]
        )

        def __init__(self, run, placement) -> None:
            self._model = Path(run.engine.model_folder).name
            events.append(f"start {self._model}")

        def wait_until_ready(self) -> None:
            events.append(f"ready {self._model}")

        def close(self) -> None:
            events.append(f"close {self._model}")

    @contextmanager
    def noted(name: str):
        events.append(f"enter {name}")
        layout = Layout("cpu", (Bundle(0, 1.0),), generators=(0,), ranks=(), rewards=())
        yield SimpleNamespace(layout=layout, gpu_gib=None, free_share=None)
        events.append(f"leave {name}")

    # There are no such models.
    monkeypatch.setattr(comparison, "check_context", lambda *_: None)
    monkeypatch.setattr("orchestrator.evaluate.models.local_model", lambda path: path)
    monkeypatch.setattr(comparison, "ray_cluster", lambda **_: noted("cluster"))
    monkeypatch.setattr(comparison.Placement, "of", lambda *_: noted("placement"))
    monkeypatch.setattr(comparison, "check_folders", lambda *_: None)
    monkeypatch.setattr(comparison, "RolloutFleet", Fleet)
    models = [NamedModel("base", "/models/a"), NamedModel("trained", "/models/b")]
    config = load("countdown-tiny", ['evaluation.formats=["zero_shot", "natural"]', "evaluation.num_prompts=2"])
    warm = prompts_of(NamedModel("warm", str(WARM_START)), config)
    results = comparison.compare(models, dict.fromkeys(("base", "trained"), warm), config, Console(quiet=True))
    assert [(result.model.name, result.format) for result in results] == [
        (name, format) for name in ("base", "trained") for format in ("zero_shot", "natural")
    ]
    of_each = [
        ["enter placement", f"start {name}", f"ready {name}", f"close {name}", "leave placement"] for name in "ab"
    ]
    assert events == ["enter cluster", *of_each[0], *of_each[1], "leave cluster"]
