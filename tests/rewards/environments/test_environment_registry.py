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
        ("calculater", {}, r'prompts.environment = "calculater".*did you mean \'calculator\'\? Your own'),
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
        ("calculator", {"digits": 99}, r"parameters\.calculator\.digits = 99: must be from 1 to 15; the default is 10"),
        ("calculator", {"digits": float("nan")}, "must not hold NaN or infinity"),
        ("calculator", {"digits": 2.5}, r"parameters\.calculator\.digits = 2\.5: .*valid integer; write it like 10"),
        ("calculator", {"digits": True}, r"parameters\.calculator\.digits = true: .*valid integer; write it like 10"),
        ("guess", {"most": 2.5}, r"parameters\.guess\.most = 2\.5: .*valid integer; write it like 0"),
        ("guess", {"highest": 9, "most": -1}, r"\.guess\.most = -1: must be 0 or more; the default is 0"),
        ("guess", {"highest": 0, "most": 9}, r"\.guess\.highest = 0: must be 1 or more; the default is 100"),
        (
            "python",
            {"max_output_characters": 2.5},
            r"python\.max_output_characters = 2\.5: .*integer; write it like 2000",
        ),
        ("python", {"max_output_characters": 0}, r"max_output_characters = 0: must be 1 or more; the default is 2000"),
        ("python", {"memory_mib": 63}, r"\.memory_mib = 63: must be from 64 to 1,048,576; the default is 512"),
        ("python", {"stateful": "false"}, r'python\.stateful = "false": .*valid boolean; write it like true'),
        (
            "python",
            {"require": "network"},
            r'\.require = "network": .*; write it like \["network", "files", "processes"\]',
        ),
        ("openenv:maze_env", {"show": "text"}, r'parameters\.maze_env\.show = "text": .*; write it like \[\]'),
        ("openenv:maze_env", {"init": 3}, r"parameters\.maze_env\.init = 3: .*; write it like \{\}"),
        ("python", {"time_limit_s": -1}, r"\.time_limit_s = -1: must be from 0\.01 to 3,600; the default is 2\.0"),
        ("python", {"time_limit_s": "2"}, r'python\.time_limit_s = "2": .*valid number; write it like 2\.0'),
        ("python", {"time_limit_s": 4}, "environment.deadline_s = 10 kills python before its own limit of 12 s"),
    ],
)
def test_what_is_wrong_is_said_with_the_fix(name: str, parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(EnvironmentConfigError, match=says):
        environment_spec(name, parameters)
