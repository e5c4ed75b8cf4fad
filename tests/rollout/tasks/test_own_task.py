"""A task and a grader of one's own, as docs/tasks.md shows them: two files outside of rayzero."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.config.recipe import ConfigError, load
from rewards.config import RewardConfigError, RewardsConfig
from rewards.function import call
from rewards.registry import check, functions_of
from rewards.score import compose
from rollout.prompts.config import PromptsConfig
from rollout.prompts.stream import PromptStream
from rollout.types.completions import Completion, Group, Reward
from rollout.types.prompts import Prompt
from tests.support.byte_tokenizer import Bytes
from tests.support.markdown import Page
from tests.support.paths import ROOT

TASK, GRADER, RECIPE = (text for _, text in Page(ROOT / "docs" / "tasks.md").blocks[-3:])
SETTINGS = tomllib.loads(RECIPE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on the path with the package `my_package`."""
    folder = tmp_path_factory.mktemp("own")
    package = folder / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "my_task.py").write_text(TASK)
    (package / "my_grader.py").write_text(GRADER)
    (package / "seed.py").write_text(TASK)
    (package / "no_task.py").write_text("SETTINGS = None")
    (package / "no_grader.py").write_text("PARTS = ()")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.fixture
def prompts(folder: Path) -> PromptsConfig:
    return PromptsConfig.model_validate({"chat": False, "num_held_out": 20, **SETTINGS["prompts"]})


def reward(text: str, prompt: Prompt) -> Reward:
    config = RewardsConfig(**SETTINGS["rewards"])
    functions = functions_of(prompt.grader, config)
    return compose(functions, [call(each, each.load(), text, prompt.answer) for each in functions], config)


def test_its_questions_are_asked_and_its_answers_graded(prompts: PromptsConfig) -> None:
    stream = PromptStream(prompts, Bytes())
    train, held_out = stream.take(50), stream.held_out()
    assert not {prompt.key for prompt in train} & {prompt.key for prompt in held_out}
    prompt = train[0]
    assert prompt.text.startswith(f"Write {prompt.key} from back to front.") and len(prompt.key) == 4
    assert (prompt.source, prompt.grader) == ("my_task", "my_package.my_grader")
    assert reward(f"</think><answer>{prompt.key[::-1]}</answer>", prompt).total == pytest.approx(1.0)
    assert reward("<answer>no digits</answer>", prompt).total == 0.0


def test_its_section_is_dumped_and_read_again(prompts: PromptsConfig) -> None:
    settings = prompts.model_dump(mode="json")
    assert settings["my_task"] == {"num_digits": 4} and settings["task"] == "my_package.my_task"
    assert PromptsConfig.model_validate(settings) == prompts


def test_a_recipe_takes_it_alone_and_in_a_mixture(folder: Path) -> None:
    own = ["prompts.task=my_package.my_task", "rewards.weights={correctness=1}"]
    assert load("gsm8k-4090", [*own, "prompts.my_task.num_digits=3"]).prompts.settings.num_digits == 3
    entry = 'prompts.mixture={own={task="my_package.my_task"},numbers={}}'
    named = ["prompts.my_task.num_digits=5", "rewards.deadlines_s.my_grader=2", "warm_start.num_steps=0"]
    mixed = load("countdown-tiny", [entry, *named])
    assert mixed.prompts.mixture["own"].settings.num_digits == 5
    assert {task.grader for task in mixed.prompts.tasks.values()} == {"countdown", "my_package.my_grader"}


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["prompts.my_task.num_digit=3"], ["prompts.my_task.num_digit = 3: unknown key", "'num_digits'"]),
        (["prompts.my_task.num_digits=1"], ["prompts.my_task.num_digits = 1", "greater than or equal to 2"]),
        (["prompts.template=Write"], ["template must show {number}"]),
        (["rewards.weights.digts=1"], ["rewards.weights.digts: task 'my_grader' has no such part", "'digits'"]),
        (["rewards.parameters.my_grader.x=1"], ["rewards.parameters.my_grader.x", "no such parameter"]),
        (["prompts.task=my_package.my_tsk"], ["prompts.task = 'my_package.my_tsk'", "cannot be imported"]),
        (["prompts.task=my_package.no_task"], ["has no TEMPLATE, NATURAL_TEMPLATE, EXAMPLE, fields, source"]),
        (["prompts.task=my_package.seed"], ["prompts.task = 'my_package.seed'", "prompts.seed", "rename the module"]),
        (["prompts.task=my_package.gsm8k"], ["'my_package.gsm8k' has the last name", "rename the module"]),
        (["warm_start.num_steps=3"], ["warm_start", "model.build"]),
    ],
)
def test_a_mistake_names_key_value_and_fix(folder: Path, overrides: list[str], parts: list[str]) -> None:
    own = ["prompts.task=my_package.my_task", "rewards.weights={correctness=0.9,digits=0.1}"]
    with pytest.raises(ConfigError) as caught:
        load("gsm8k-4090", [*own, *overrides])
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("grader", "says"),
    [
        ("my_package.nothing", "'my_package.nothing' cannot be imported .* PYTHONPATH, on every machine"),
        ("my_package.no_grader", "has no score: it needs PARTS"),
        ("my_package.countdown", "has the last name of one of rayzero's: rename its module"),
    ],
)
def test_a_grader_that_cannot_grade_is_refused(folder: Path, grader: str, says: str) -> None:
    with pytest.raises(RewardConfigError, match=says):
        check(grader, RewardsConfig(weights={"correctness": 1.0}))


def test_a_task_is_imported_only_when_a_recipe_names_it() -> None:
    code = (
        "import sys; from orchestrator.config.recipe import load; load('countdown-tiny'); "
        "print(*(name for name in sys.modules if name.startswith('rollout.tasks.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    tasks = {name.split(".")[2] for name in done.stdout.split()}
    assert tasks == {"base", "datasets", "countdown", "countdown_problems"}


@pytest.mark.slow
def test_a_reward_worker_finds_the_grader_on_its_own_path(ray_here: None, folder: Path, prompts: PromptsConfig) -> None:
    """As on another node: the worker is started with a path of its own and knows the grader by its name only."""
    import ray

    from rewards.workers.pool import RewardPool, stored

    prompt = PromptStream(prompts, Bytes()).take(1)[0]
    tokens, logprobs = np.zeros(1, np.int32), np.zeros(1, np.float32)
    texts = [f"<answer>{prompt.key[::-1]}</answer>", "<answer>?</answer>"]
    group = Group(prompt, tuple(Completion(tokens, logprobs, "stop", (0,), text) for text in texts))
    environment = {"runtime_env": {"env_vars": {"PYTHONPATH": f"{folder}:{ROOT}"}}}
    config = RewardsConfig(**SETTINGS["rewards"])
    pool = RewardPool(config, "own", [prompt.grader], lambda index: environment)
    pool.submit(stored(group))
    deadline, graded = time.monotonic() + 60, []
    while not graded and time.monotonic() < deadline:
        ray.wait(pool.refs(), num_returns=1, timeout=pool.next_deadline())
        graded = pool.poll()
    assert [reward.total for reward in graded[0].rewards] == [pytest.approx(1.0), 0.0]
    pool.close()
