"""The teacher of a run: found, and of the policy's tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner.model.build import build_model
from orchestrator.base_model import load_tokenizer
from orchestrator.config.recipe import ConfigError, load
from orchestrator.config.schema import RunConfig
from orchestrator.model_source import PolicyError
from orchestrator.plan.run_plan import model_line
from orchestrator.teacher import teacher_model
from tests.support.tiny import BUILD


def recipe(teacher: Path | str) -> RunConfig:
    return load("countdown-tiny", [f"model.teacher={teacher}", "learner.algorithm.preset=distill"])


def test_a_teacher_of_any_size_with_the_policys_tokens_is_taken(tmp_path: Path) -> None:
    for name, hidden in (("policy", 32), ("teacher", 64)):
        build_model(BUILD.model_copy(update={"hidden_size": hidden}), 0, tmp_path / name)
    tokenizer = load_tokenizer(str(tmp_path / "policy"))
    config = recipe(tmp_path / "teacher")
    assert teacher_model(config, tokenizer) == str(tmp_path / "teacher")
    assert f"taught by {tmp_path / 'teacher'}" in model_line(config)


def test_other_tokens_are_named(tmp_path: Path) -> None:
    build_model(BUILD, 0, tmp_path / "policy")
    build_model(BUILD.model_copy(update={"words": (*BUILD.words, "why")}), 0, tmp_path / "teacher")
    with pytest.raises(PolicyError, match=r"another tokenizer than the policy: 1 tokens differ, such as 'why'"):
        teacher_model(recipe(tmp_path / "teacher"), load_tokenizer(str(tmp_path / "policy")))


def test_a_teacher_that_is_not_there_is_said() -> None:
    with pytest.raises(PolicyError, match=r"model\.teacher: 'runs/no/final' is not a model: it does not exist"):
        teacher_model(recipe("runs/no/final"), None)


def test_without_a_teacher_there_is_none_and_distillation_needs_one() -> None:
    assert teacher_model(load("countdown-tiny", []), None) is None
    with pytest.raises(ConfigError, match=r"model\.teacher"):
        load("countdown-tiny", ["learner.algorithm.preset=distill"])
