"""Environments are found by their names, and what is wrong with one is said before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from rewards.environments.registry import SHIPPED, EnvironmentConfigError, environment_spec, max_bytes_of
from tests.support.environments import HOSTILE


def test_those_that_are_shipped() -> None:
    for name in SHIPPED:
        spec = environment_spec(name, {})
        assert spec.stop and spec.parts and (spec.name, spec.path) == (name, SHIPPED[name])
    assert environment_spec("calculator", {}).stop == ("</calc>",)


def test_one_of_your_own() -> None:
    spec = environment_spec(HOSTILE, {"hint": "h"}, 3.0, max_bytes_of(100))
    assert (spec.path, spec.stop, spec.parts, spec.parameters) == (HOSTILE, ("</do>",), ("told",), {"hint": "h"})
    assert (spec.deadline_s, spec.max_bytes) == (3.0, 4896)
    assert spec.load()(**spec.parameters).hint == "h"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("calculater", {}, r'prompts.environment = "calculater".*did you mean \'calculator\'\? One of your own'),
        ("no_such_module:Game", {}, r"no_such_module cannot be imported \(ModuleNotFoundError.*PYTHONPATH"),
        ("hostile_environments:Nothing", {}, "has no class 'Nothing'"),
        ("hostile_environments:time", {}, "has no class 'time'"),
        ("hostile_environments:NoStep", {}, r"has a method step\(text\).*docs/environments.md"),
        ("hostile_environments:OddStop", {}, r"stop = '</do>' must be a tuple of texts that end a turn"),
        (
            "hostile_environments:StopMethod",
            {},
            r'environment = "hostile.*StopMethod".* stop = <function.* must be a tuple',
        ),
        ("hostile_environments:PartsProperty", {}, r"PartsProperty.* parts = <property .* must be a tuple of names"),
        ("hostile_environments:NoParts", {}, r"NoParts.* parts = None must be a tuple of names"),
        ("hostile_environments:Needy", {}, r"needs its parameter folder: set environment.parameters.Needy.folder"),
        (HOSTILE, {"hnt": "x"}, r"environment.parameters.Hostile.hnt: .* no such parameter; did you mean 'hint'\?"),
        ("calculator", {"digit": 3}, r"environment.parameters.calculator.digit: .*did you mean 'digits'\?"),
        ("calculator", {"digits": 99}, r"environment.parameters.calculator = \{'digits': 99\}: digits must be from 1"),
        ("calculator", {"digits": float("nan")}, "must not hold NaN or infinity"),
        ("calculator", {"digits": 2.5}, r"environment\.parameters\.calculator\.digits = 2\.5: .*valid integer"),
        ("calculator", {"digits": True}, r"environment\.parameters\.calculator\.digits = true: .*valid integer"),
        ("guess", {"most": 2.5}, r"environment\.parameters\.guess\.most = 2\.5: .*valid integer"),
        ("python", {"max_output_characters": 2.5}, r"python\.max_output_characters = 2\.5: .*valid integer"),
        ("python", {"stateful": "false"}, r'environment\.parameters\.python\.stateful = "false": .*valid boolean'),
        ("python", {"require": "network"}, r'environment\.parameters\.python\.require = "network"'),
        ("openenv:maze_env", {"show": "text"}, r'environment\.parameters\.maze_env\.show = "text"'),
        ("guess", {"highest": 0}, "highest must be 1 or more"),
        ("python", {"time_limit_s": -1}, "time_limit_s is above 0"),
        ("python", {"time_limit_s": "2"}, "environment.parameters.python"),
        ("python", {"time_limit_s": 4}, "environment.deadline_s = 10 kills python before its own limit of 12 s"),
    ],
)
def test_what_is_wrong_is_said_with_the_fix(name: str, parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(EnvironmentConfigError, match=says):
        environment_spec(name, parameters)
