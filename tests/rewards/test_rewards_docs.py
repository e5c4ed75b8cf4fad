"""What docs/rewards.md shows works as it says."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from rewards.config import RewardsConfig
from rewards.function import Outcome, RewardFunction, call
from rewards.registry import GENERAL, check, functions_of, tasks
from rewards.score import compose
from rollout.types.completions import Group
from tests.support.judge_server import scores, serving
from tests.support.paths import ROOT
from tests.support.reward_workers import rewards_of

PAGE = (ROOT / "docs" / "rewards.md").read_text("utf-8")
RECIPES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
OF_A_TEXT = [text for text in RECIPES if not text.startswith(("# of ", "# with a judge"))]
"""Those whose functions each read one text, and ask nobody."""
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


@pytest.mark.parametrize("text", OF_A_TEXT, ids=lambda text: text.partition("\n")[0])
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


def test_functions_that_wait_or_rank_a_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_group: Callable[..., Group]
) -> None:
    write_module(tmp_path, monkeypatch, "style_rewards")
    group = make_group([f"{RIGHT} please", RIGHT, RIGHT], task="countdown", answer=PROBLEM)
    (rewards,) = rewards_of(recipe("of style_rewards.py"), group)
    assert [reward.total for reward in rewards] == pytest.approx([1.2, 1.0, 1.0])
    assert rewards[0].logged == {"asked_characters": len(group.prompt.text)}


def test_a_reward_written_for_trl(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_group: Callable[..., Group]
) -> None:
    write_module(tmp_path, monkeypatch, "ported_rewards")
    config = next(RewardsConfig(**tomllib.loads(text)["rewards"]) for text in RECIPES if "of ported_rewards.py" in text)
    group = make_group([r"so \boxed{4}", "four"], answer={"ground_truth": "4", "task": "chat"})
    (rewards,) = rewards_of(config, group)
    assert [reward.total for reward in rewards] == pytest.approx([1.0 - 0.0012, -0.0004])


def test_a_judge(make_group: Callable[..., Group]) -> None:
    config = recipe("with a judge")
    with serving(scores(5)) as server:
        judge = config.judges["clarity"].model_copy(update={"base_url": server.url, "cache": ""})
        local = config.model_copy(update={"judges": {"clarity": judge}})
        group = make_group(["<answer>7</answer>"], task="exact_match", answer={"answer": "7"})
        ((reward,),) = rewards_of(local, group)
    assert reward.total == pytest.approx(0.8 + 0.2 * 0.5)
    assert "The right answer is 7." in server.requests[0]["messages"][1]["content"]


def test_every_general_part_and_every_task_with_parts_of_its_own_is_listed() -> None:
    rows = {row for cell in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for row in re.findall(r"`(\w+)`", cell)}
    assert rows >= GENERAL.keys()
    assert rows >= {"countdown", "gsm8k", "reasoning_gym", "code", "period_count", "text_length"} & set(tasks())


def write_module(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "my_rewards") -> None:
    (source,) = re.findall(rf"```python\n# {name}\.py\n(.*?)```", PAGE, re.DOTALL)
    (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)
