from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest

from rewards import registry
from rewards.config import RewardConfigError, RewardsConfig
from rewards.function import RewardFunction, import_function
from rewards.registry import UnknownPartError, UnknownTaskError, check, functions_of
from rewards.tasks import countdown
from tests.support.paths import ROOT

DEFAULT = RewardsConfig()


def config(**settings: Any) -> RewardsConfig:
    return RewardsConfig(**{"weights": {"correctness": 1.0}, **settings})


def names(functions: tuple[RewardFunction, ...]) -> list[str]:
    return [function.name for function in functions]


def test_a_task_that_cannot_be_marked_here_says_so_when_it_is_loaded() -> None:
    (code,) = functions_of(
        "code", RewardsConfig(weights={"correctness": 1}, parameters={"code": {"require": ["netwrok"]}})
    )
    with pytest.raises(ValueError, match=r"rewards.parameters.code.require names \['netwrok'\]"):
        code.load()


def test_every_task_can_be_loaded_and_says_its_parts() -> None:
    assert {"countdown", "period_count"} <= {*registry.tasks()}
    for task in registry.tasks():
        assert callable(import_function(f"rewards.tasks.{task}:score"))
        parts = importlib.import_module(f"rewards.tasks.{task}").PARTS
        assert not {*parts} & {*registry.GENERAL}, f"{task} returns a part with a general part's name"


def test_every_general_part_can_be_loaded() -> None:
    assert all(callable(import_function(path)) for path in registry.GENERAL.values())


def test_the_default_marks_countdown_by_its_score_and_a_general_part() -> None:
    score, tags = functions_of("countdown", DEFAULT)
    assert (score.name, score.parts, score.grades_task) == ("countdown", countdown.PARTS, True)
    assert score.load() is countdown.score
    assert (tags.name, tags.path, tags.parts) == ("answer_tags", "rewards.parts.format:answer_tags", ("answer_tags",))
    check("countdown", DEFAULT)


def test_functions_are_called_weighed_or_not_and_general_parts_only_if_named() -> None:
    found = functions_of("countdown", config(functions=["mine:style"]))
    assert names(found) == ["countdown", "style"]
    members = {"best": {"by": "max", "weights": {"correctness": 1, "tag_pairs": 0.1}}}
    assert names(functions_of("countdown", config(ensembles=members))) == ["countdown", "tag_pairs"]


def test_a_marking_of_ones_own_comes_first_and_gives_what_nothing_else_does() -> None:
    settings = config(
        tasks={"countdown": "mine:score"}, weights={"right": 1, "length": 0, "style": 1}, functions=["m:style"]
    )
    score = functions_of("countdown", settings)[0]
    assert (score.path, score.parts) == ("mine:score", ("right",))


def test_parameters_and_deadlines_go_by_function() -> None:
    settings = config(
        deadline_s=3, deadlines_s={"style": 7}, parameters={"style": {"target": 5}}, functions=["m:style"]
    )
    score, style = functions_of("countdown", settings)
    assert (score.deadline_s, dict(score.parameters)) == (3, {})
    assert (style.deadline_s, dict(style.parameters)) == (7, {"target": 5})


@pytest.mark.parametrize(
    ("task", "settings", "says"),
    [
        ("countdown", {"weights": {"corectness": 1}}, r"rewards\.weights\.corectness: task 'countdown'.*'correctness'"),
        ("countdown", {"weights": {"answer_tag": 1}}, r"rewards\.weights\.answer_tag.*'answer_tags'"),
        (
            "countdown",
            {"ensembles": {"best": {"by": "max", "weights": {"tag_pair": 1}}}},
            r"rewards\.ensembles\.best\.weights\.tag_pair: .*'tag_pairs'",
        ),
        ("countdown", {"functions": ["m:correctness"]}, r"correctness is a part of task 'countdown': .*another name"),
        ("countdown", {"functions": ["m:length"]}, r"length is a general part.*another name"),
        ("countdown", {"functions": ["m:countdown"]}, r"countdown is a task.*another name"),
        (
            "countdown",
            {"ensembles": {"closeness": {"by": "max", "weights": {"correctness": 1}}}},
            r"closeness is a part of task 'countdown': rename rewards\.ensembles\.closeness",
        ),
        ("countdown", {"deadlines_s": {"correctness": 3}}, r"rewards\.deadlines_s\.correctness.*name the task"),
        ("countdown", {"parameters": {"lenght": {}}}, r"rewards\.parameters\.lenght.*'length'"),
        (
            "countdown",
            {"weights": {"correctness": 1, "format": 1}, "parameters": {"format": {"leadin": "x"}}},
            r"rewards\.parameters\.format\.leadin: .*'lead_in'",
        ),
        (
            "countdown",
            {"parameters": {"countdown": {"x": 1}}},
            r"rewards\.parameters\.countdown\.x: .*no such parameter",
        ),
    ],
)
def test_mistakes_are_found_before_anything_starts(task: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownPartError, match=says):
        check(task, config(**settings))


def test_unknown_task_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownTaskError, match=r"'countdwon'.*did you mean 'countdown'"):
        check("countdwon", DEFAULT)
    with pytest.raises(UnknownTaskError, match=r"rewards\.tasks\.zebra; there are .*countdown"):
        check("zebra", DEFAULT)
    with pytest.raises(UnknownTaskError):
        check("registry", DEFAULT)


def test_a_task_without_a_marking_will_do_when_functions_give_every_part() -> None:
    check("zebra", config(weights={"stripes": 1}, functions=["mine:stripes"]))


def test_checking_does_not_import_what_is_not_ours() -> None:
    check("countdown", config(functions=["no_such_module:style"]))


def test_a_path_without_a_function() -> None:
    with pytest.raises(TypeError, match="no function 'nothing'"):
        import_function("rewards.tasks.countdown:nothing")
    with pytest.raises(ImportError):
        import_function("no_such_module:score")


def test_all_mistakes_are_mistakes_in_the_settings() -> None:
    assert issubclass(UnknownTaskError, RewardConfigError)
    assert issubclass(UnknownPartError, RewardConfigError)


def test_what_a_worker_imports_is_light() -> None:
    """A worker that booted with numpy, torch or pydantic would boot slowly, each time one is replaced."""
    code = (
        "import sys, rewards.workers.worker, rewards.tasks.countdown, rewards.parts.format; "
        "print(*{'ray', 'torch', 'numpy', 'pydantic'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_parts_of_an_environment_may_be_weighed() -> None:
    weights = {"correctness": 0.9, "tool_used": 0.1}
    check("countdown", config(weights=weights), environment_parts=("tool_used",))
    assert names(functions_of("countdown", config(weights=weights), ("tool_used",))) == ["countdown"]
    with pytest.raises(UnknownPartError, match=r"rewards.weights.tool_usd.*did you mean 'tool_used'"):
        check("countdown", config(weights={"tool_usd": 1.0}), environment_parts=("tool_used",))
    for taken in ("correctness", "style", "best", "total"):
        settings = config(functions=["mine:style"], ensembles={"best": {"by": "max", "weights": {"correctness": 1}}})
        with pytest.raises(UnknownPartError, match=f"{taken} is a part of"):
            functions_of("countdown", settings, (taken,))
