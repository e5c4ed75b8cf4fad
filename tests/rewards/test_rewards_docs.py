"""What docs/rewards.md shows works as it says."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from rewards.config import RewardsConfig
from rewards.function import Outcome, RewardFunction, call
from rewards.registry import GENERAL, check, functions_of, tasks
from rewards.score import compose
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "rewards.md").read_text("utf-8")
RECIPES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
PROBLEM = {"numbers": [3, 7, 9], "target": 34}
THOUGHT = "Let me solve this step by step.\n<think>3 * 9 = 27</think>\n"
RIGHT = THOUGHT + "<answer>3 * 9 + 7</answer>"
WRONG = THOUGHT + "<answer>3 * 9 - 7</answer>"
TALKATIVE = THOUGHT + "<answer>I get 3 * 9 + 7</answer>"
UNTAGGED = "3 * 9 + 7"


def recipe(comment: str) -> RewardsConfig:
    (text,) = (text for text in RECIPES if text.startswith(f"# {comment}\n"))
    return RewardsConfig(**tomllib.loads(text)["rewards"])


def reward(config: RewardsConfig, text: str) -> float:
    functions = functions_of("countdown", config)
    return compose(functions, [outcome(function, text) for function in functions], config).total


def outcome(function: RewardFunction, text: str) -> Outcome:
    made = call(function, function.load(), text, PROBLEM)
    assert made.status == "ok", made.reason
    return made


@pytest.mark.parametrize("text", RECIPES, ids=lambda text: text.partition("\n")[0])
def test_recipes_can_mark_countdown(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_module(tmp_path, monkeypatch)
    config = RewardsConfig(**tomllib.loads(text)["rewards"])
    check("countdown", config)
    for completion in (RIGHT, WRONG, TALKATIVE, UNTAGGED, ""):
        reward(config, completion)


@pytest.mark.parametrize(
    ("name", "right", "wrong", "talkative", "untagged"),
    [
        ("TinyZero", 1.0, 0.1, 0.1, 0.0),
        ("nano-aha-moment", 2.0, 1.0, 0.5, 0.0),
        ("open-r1", 3.0, 2.0, 1.5, 0.0),
        ("0.1 for each pair of tags, replaced by 1.0 for a correct answer", 1.0, 0.2, 0.2, 0.0),
        ("DAPO", 2.0, 0.0, 0.0, 0.0),
    ],
)
def test_rewards_of_other_projects(name: str, right: float, wrong: float, talkative: float, untagged: float) -> None:
    config = recipe(name)
    paid = [reward(config, text) for text in (RIGHT, WRONG, TALKATIVE, UNTAGGED)]
    assert paid == pytest.approx([right, wrong, talkative, untagged])


def test_the_function_of_your_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_module(tmp_path, monkeypatch)
    config = recipe("recipe")
    assert reward(config, RIGHT) == pytest.approx(0.9 + 0.05 + 0.05 * 1.5)
    assert reward(config, THOUGHT + "<answer>3 * 9</answer>") == pytest.approx(0.05 + 0.05 * 2 / 3)


def test_every_general_part_and_every_task_with_parts_of_its_own_is_listed() -> None:
    rows = {row for cell in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for row in re.findall(r"`(\w+)`", cell)}
    assert rows >= GENERAL.keys()
    assert rows >= {"countdown", "gsm8k", "reasoning_gym", "code", "period_count", "text_length"} & set(tasks())


def write_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = re.findall(r"```python\n# my_rewards\.py\n(.*?)```", PAGE, re.DOTALL)
    (folder / "my_rewards.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
