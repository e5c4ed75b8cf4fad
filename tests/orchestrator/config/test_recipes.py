"""Recipes and overrides: what is right loads, what is wrong says the key, the value and the fix."""

from pathlib import Path

import pytest

from learner.algorithm.settings import AlgorithmConfig
from orchestrator.config.recipe import RECIPES, ConfigError, load
from orchestrator.evaluate.models import NamedModel, named_model
from orchestrator.plan.run_plan import notices
from orchestrator.report.comparison_file import comparison_file


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(recipe: Path) -> None:
    config = load(str(recipe))
    assert config.name == recipe.stem


def test_overrides_win_and_keep_their_types() -> None:
    config = load(
        "countdown-tiny",
        ["learner.learning_rate=2e-6", "name=mine", "prompts.countdown.max_number=12", "tracking.wandb=true"],
    )
    assert config.learner.learning_rate == 2e-6
    assert config.name == "mine"
    assert config.prompts.settings.max_number == 12
    assert config.tracking.wandb is True


def test_a_recipe_is_found_by_path_too(tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text((RECIPES / "countdown-tiny.toml").read_text())
    assert load(str(recipe)).name == "own"


WRONG = {
    "learner.lerning_rate=1": ["learner.lerning_rate", "did you mean 'learning_rate'"],
    "lerner.learning_rate=1": ["lerner", "did you mean 'learner'"],
    "group_size=1": ["group_size = 1", "compares the completions of a prompt", "set group_size to 2"],
    "group_size=0": ["group_size = 0", "greater than or equal to 1"],
    "learner.algorithm.preset=dpao": ["learner.algorithm", "preset is 'dpao'", "did you mean 'dapo'"],
    "learner.algorithm.kl_target=0.1": ["learner.algorithm", "kl_target is 0.1 with kl_beta 0", "set kl_beta"],
    "learner.algorithm.reference=base": ["learner.algorithm.reference", "without model.lora", 'reference = "copy"'],
    "learner.algorithm.overlong_buffer_tokens=448": ["overlong_buffer_tokens = 448", "lower it"],
    "learner.algorithm.advantage_scale=group": ["learner.algorithm.advantage_scale = 'group'", "'group_std'"],
    'model.lora={"rank"=0}': ["model.lora.rank = 0", "greater than or equal to 1"],
    'model.lora={"target_modules"=[]}': ["model.lora", "target_modules is empty", "all-linear"],
    "learner.learning_rate=true": ["learner.learning_rate = true: input should be a number"],
    "num_steps=false": ["num_steps = false: input should be a number"],
    "rewards.weights=3": ["rewards.weights = 3: must be a table, such as {name = value}"],
    "environment.parameters={digits=4}": ["environment.parameters.digits = 4: must be a table, such as {name = value}"],
    "learner=3": ["learner = 3: must be a table, such as {name = value}"],
    "rewards.weights.correctness=true": ["rewards.weights.correctness = true: input should be a number"],
    "evaluation.pass_at=[1,true]": ["evaluation.pass_at.1 = true: input should be a number"],
    "num_steps=many": ["num_steps = 'many'", "integer"],
    "learner.learning_rate=-1": ["learner.learning_rate = -1", "greater than 0"],
    "sampling.temperature=0": ["sampling.temperature = 0", "set it above 0"],
    "learner.updates_per_step=65": [
        "learner.updates_per_step = 65",
        "does not divide prompts_per_step = 32",
        "[1, 2, 4,",
    ],
    "learner.max_tokens_per_microbatch=50": ["learner.max_tokens_per_microbatch = 50", "raise it"],
    "sampling.max_completion_tokens=4000": ["max_completion_tokens", "raise it"],
    "prompts.chat=true": ["prompts.chat = true", "set it to false"],
    "rollout.hang_timeout_s=300": ["rollout.hang_timeout_s = 300", "stall_timeout_s = 300", "lower it"],
    "rewards.deadline_s=300": ["rewards.deadline_s = 300", "stall_timeout_s = 300", "lower it"],
    "rewards.deadlines_s.countdown=600": ["rewards.deadlines_s.countdown = 600", "stall_timeout_s = 300", "lower it"],
    "max_staleness=9": ["max_staleness = 9", "less than or equal to 8"],
    "prompts.template=Hello": ["prompts", "template must show {target}"],
    "prompts.template={oops} {target}": ["['oops']", "numbers_spaced"],
    "prompts.countdown.operators=+^": ["operators = '+^'", "use only + - * /"],
    "prompts.countdown.min_number=11": ["min_number = 11", "lower it"],
    "prompts.mixture.easy.countdown.max_nmber=3": ["max_nmber = 3", "did you mean 'max_number'?"],
    "prompts.countdown.max_nmber=3": ["prompts.countdown.max_nmber = 3", "did you mean 'max_number'?"],
    "prompts.cuntdown.max_number=3": ["prompts.cuntdown = ", "unknown key; did you mean 'countdown'?"],
    "prompts.mixture.easy.tsak=gsm8k": ["prompts.mixture.easy.tsak", "did you mean 'task'?"],
    "prompts.task=cuntdown": ["prompts.task", "no task 'cuntdown'", "did you mean 'countdown'?"],
    "prompts.task=nowhere.my_task": ["prompts.task", "'nowhere.my_task' cannot be imported", "PYTHONPATH"],
    "prompts.gsm8k.sorce=x": ["prompts.gsm8k.sorce = 'x'", "did you mean 'source'?"],
    'prompts.mixture={"easy"={"countdown"={"max_target"=99}}}': ["no token for 99", "raise it"],
    'prompts.curriculum.stages=[{"weights"={"esay"=1}}]': ["'esay'", "there are ['countdown']"],
    'prompts.curriculum.stages=[{"weigths"={"x"=1}}]': ["did you mean 'weights'?"],
    "prompts.natural_template=What?": ["natural_template must show {target}"],
    "prompts.format=fewshot": ["prompts.format = 'fewshot'", "'one_shot'"],
    "rewards.weights.closness=1": ["rewards.weights.closness", "did you mean 'closeness'?"],
    "model.path=x": ["path and build", "exactly one"],
    "rewards.deadline_s=0": ["rewards.deadline_s = 0", "above 0"],
    "prompts.countdown.numbers_per_problem=4": ["numbers_per_problem = 4", "set warm_start.num_steps = 0"],
    "prompts.countdown.source=rows.jsonl": ["source = 'rows.jsonl'", "set warm_start.num_steps = 0"],
    "prompts.countdown.max_target=99": ["model.build.max_integer = 60", "no token for 99", "raise it"],
    "name=a/b": ["name = 'a/b'", "match pattern"],
    "name=.": ["name = '.'", "use at least one letter or digit"],
    "name=..": ["name = '..'", "use at least one letter or digit"],
    'sampling.stop=["</answer>",""]': ["sampling.stop.1 = ''", "at least 1 character"],
    "sampling.temperature=0.009": ["sampling.temperature", "0.009", "vLLM samples with 0.01", "set it to 0.01 or more"],
    "evaluation.temperature=0.001": ["evaluation.temperature", "0.001", "set it to 0.01 or more"],
    "evaluation.temperature=2.01": ["evaluation.temperature = 2.01", "less than or equal to 2"],
    'rewards.functions=["my_rewards:total"]': ["my_rewards:total", "reward/total is a metric", "rename it"],
    'rewards.functions=["my_rewards:right_untagged"]': ["my_rewards:right_untagged", "is a metric", "rename it"],
    'rewards.ensembles.errors={"by"="max","weights"={"correctness"=1}}': ["rewards.ensembles.errors", "rename it"],
    "rewards.weights.correctness=-2e6": ["rewards.weights.correctness = -2000000.0", "from -1e+06 to 1e+06"],
    "rewards.deadline_s=1e6": ["rewards.deadline_s = 1000000.0", "at most 86400 s"],
    "rewards.parameters.length.max_words=inf": ["rewards.parameters.length.max_words = inf", "set a finite number"],
    "prompts.countdown.max_number=1000000000000": ["max_number = 1000000000000", "less than or equal to 1000000000"],
    "model.build.max_integer=1000000000": ["model.build.max_integer = 1000000000", "less than or equal to 1000000"],
    "prompts_per_step=1000000000000": ["prompts_per_step = 1000000000000", "less than or equal to 1000000"],
    "num_steps=9223372036854775808": ["num_steps has about 19 digits", "lower it"],
    "rewards.parameters.countdown=[1,99999999999999999999]": ["rewards.parameters.countdown.1 has about 20 digits"],
    "num_steps=1" + 5000 * "0": ["num_steps = ", "integer"],
    "placement.mode=moon": ["placement.mode = 'moon'", "'cpu'"],
    "learner.learning_rate.x=1": ["is a value, not a section"],
    "=3": ["is not an override"],
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_override_names_key_value_and_fix(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("countdown-tiny", [override])
    for part in WRONG[override]:
        assert part in str(caught.value)


def test_a_judge_may_not_take_as_long_as_stops_the_run() -> None:
    judge = 'rewards.judges={"clear"={"model"="m","rubric"="r"}}'
    load("countdown-tiny", [judge])
    with pytest.raises(ConfigError, match=r"deadlines_s\.clear = 240 is not below rollout\.stall_timeout_s = 200"):
        load("countdown-tiny", [judge, "rollout.stall_timeout_s=200"])


RIGHT_OR_WRONG, BY_LENGTH = (
    f'{{"jsonl"={{"source"="x.jsonl","reward"="{name}"}}}}' for name in ("math", "text_length")
)
TWO_FILES = f'prompts.mixture={{"a"={RIGHT_OR_WRONG},"b"={BY_LENGTH}}}'
TWO_OTHERS = f'prompts.mixture={{"b"={BY_LENGTH},"c"={RIGHT_OR_WRONG}}}'
MIXED = 'prompts.mixture={"sums"={},"dots"={"task"="period_count"}}'
STAGES = 'prompts.curriculum.stages=[{"weights"={"period_count"=1},"pass_rate"=0.5},{"weights"={"period_count"=1}}]'
TOGETHER = [
    (
        "countdown-tiny",
        ["placement.mode=cpu", "rollout.publish_backend=ipc"],
        ['publish_backend = "ipc"', 'placement is "cpu"', 'set it to "ray"'],
    ),
    (
        "period-count-tiny",
        ['rewards.weights={"correctness"=1}'],
        ["rewards.weights.correctness", "task 'period_count' has no such part"],
    ),
    ("period-count-tiny", [STAGES], ["pass_rate = 0.5", "end that stage by num_steps"]),
    (
        None,
        ['rewards.weights={"answer_tags"=1}', MIXED],
        ["'dots', graded by period_count, are not", "a run of its own"],
    ),
    (
        "jsonl-4090",
        ['rewards.weights={"answer_tags"=1}', TWO_FILES],
        ["answers of 'b', graded by text_length, are not"],
    ),
    (
        "jsonl-4090",
        ['rewards.weights={"answer_tags"=1}', TWO_OTHERS],
        ["answers of 'b', graded by text_length, are not"],
    ),
    (
        None,
        ["rewards.weights.repetition=0.1", 'rewards.parameters.repetition.ngram_size="3"'],
        ["rewards.parameters.repetition = {'ngram_size': '3'}", "TypeError"],
    ),
    (
        None,
        ["rewards.weights.repetition=0.1", "rewards.parameters.repetition.max_penalty=1e300"],
        ["rewards.parameters.repetition = {'max_penalty': 1e+300}", "its value would be"],
    ),
    (
        None,
        ["rewards.weights.length=0.1", "rewards.parameters.length.max_words=5"],
        ["rewards.parameters.length = {'max_words': 5}", "at most max_words = 5"],
    ),
    (
        None,
        ['rewards.weights={"format"=1}', "prompts.assistant_prefix=Well. <think>"],
        ["'Well.'", "set rewards.parameters.format.lead_in = 'Well.'"],
    ),
    (
        None,
        ["rewards.weights.length=1", "rewards.parameters.length.max_wrods=3"],
        ["rewards.parameters.length.max_wrods", "did you mean 'max_words'?"],
    ),
]


@pytest.mark.parametrize(("recipe", "overrides", "parts"), TOGETHER)
def test_settings_that_do_not_fit_each_other_are_refused(
    recipe: str | None, overrides: list[str], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(recipe, overrides)
    for part in parts:
        assert part in str(caught.value)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load("countdown-tiny", ["group_size=0", "learner.nope=1", "num_steps=-1"])
    assert len(str(caught.value).splitlines()) == 3


def test_a_preset_on_the_command_line_replaces_the_recipes_algorithm_and_other_overrides_win() -> None:
    assert load("countdown-tiny").learner.algorithm.loss_aggregation == "token_mean"
    chosen = ["learner.algorithm.clip_eps_high=0.5", "learner.algorithm.preset=dr_grpo"]
    algorithm = load("countdown-tiny", chosen).learner.algorithm
    assert algorithm == AlgorithmConfig(preset="dr_grpo", clip_eps_high=0.5)
    assert algorithm.loss_aggregation == "constant"


@pytest.mark.parametrize(
    ("recipe", "overrides", "weights"),
    [
        ("countdown-4090", ["repetition=0.1"], {"correctness": 0.9, "answer_tags": 0.1, "repetition": 0.1}),
        ("countdown-4090", ["answer_tags=0"], {"correctness": 0.9, "answer_tags": 0.0}),
        ("countdown-tiny", ["repetition=0.1"], {"correctness": 0.7, "answer_tags": 0.3, "repetition": 0.1}),
    ],
)
def test_one_weight_on_the_command_line_leaves_the_others(recipe, overrides, weights) -> None:
    """The first recipe has no weights, so that the default ones hold."""
    assert load(recipe, [f"rewards.weights.{each}" for each in overrides]).rewards.weights == weights
    alone = load(recipe, ["rewards.weights={correctness=1}"]).rewards.weights
    assert alone == {"correctness": 1.0}


def test_the_plan_warns_of_what_runs_have_come_to_grief_with() -> None:
    rloo = ["learner.algorithm.preset=rloo"]
    assert not notices(load("countdown-tiny", rloo)) and not notices(load("countdown-tiny"))
    (notice,) = notices(load("countdown-tiny", [*rloo, "learner.updates_per_step=2"]))
    assert "learner.updates_per_step 2" in notice and "Set updates_per_step=1" in notice
    (notice,) = notices(load("countdown-tiny", ["learner.algorithm.kl_beta=0.1", "learner.algorithm.kl_estimator=k1"]))
    assert "zero expected gradient" in notice


def test_a_kl_without_a_reference_is_refused() -> None:
    overrides = ["learner.algorithm.kl_beta=0.1", "learner.algorithm.reference=none"]
    with pytest.raises(ConfigError, match=r'reference is "none" with kl_beta 0\.1.*set reference = "auto"'):
        load("countdown-tiny", overrides)


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'countdown-tiny'"):
        load("countdown-tny")


def test_a_recipe_that_is_not_toml_says_where(tmp_path: Path) -> None:
    recipe = tmp_path / "broken.toml"
    recipe.write_text("num_steps = \n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML.*line 1"):
        load(str(recipe))


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    recipe = tmp_path / "marked.toml"
    recipe.write_bytes(b"\xef\xbb\xbf" + (RECIPES / "countdown-tiny.toml").read_bytes())
    assert load(str(recipe)).name == "marked"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'name = "x"\ntemplate = "caf\xe9"',
            r"broken\.toml, line 2 is not UTF-8 \(byte 0xe9\): save",
        ),
        ('name = "x"'.encode("utf-16"), r"line 1 is not UTF-8 \(byte 0xff\)"),
    ],
)
def test_a_recipe_that_is_not_utf_8_says_where(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(str(tmp_path / "broken.toml"))


def test_an_override_of_bytes_that_are_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'prompts.template=.udce9' is not UTF-8"):
        load("countdown-tiny", ["prompts.template=\udce9"])


@pytest.mark.parametrize(
    ("key", "recipe"),
    [
        ("model.path", "gsm8k-4090"),
        ("warm_start.data", "sft"),
        ("prompts.gsm8k.source", "gsm8k-4090"),
        ("prompts.gsm8k.held_out_source", "gsm8k-4090"),
        ("prompts.jsonl.source", "jsonl-4090"),
        ("prompts.countdown.source", "countdown-4090"),
    ],
)
def test_the_home_folder_may_be_a_tilde_wherever_a_path_is_named(
    key: str, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    supervised_only = recipe == "sft"
    value = load(recipe, [f"{key}=~/rows.jsonl"], supervised_only=supervised_only)
    for part in key.split("."):
        value = getattr(value, part)
    assert value == f"{tmp_path}/rows.jsonl"
    with pytest.raises(ConfigError, match=rf"{key}: the home folder of ~nosuchuser is not known; give the whole path"):
        load(recipe, [f"{key}=~nosuchuser/rows.jsonl"], supervised_only=supervised_only)


def test_a_recipe_and_a_model_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.toml").write_bytes((RECIPES / "countdown-tiny.toml").read_bytes())
    assert load("~/mine.toml").name == "mine"
    assert named_model("base:~/model") == NamedModel("base", f"{tmp_path}/model")
    config = load("~/mine.toml", ["runs_dir=~/runs"])
    assert config.directory == tmp_path / "runs" / "mine"
    assert comparison_file(None, config).is_relative_to(tmp_path / "runs")
    assert comparison_file("~/figures.json", config) == tmp_path / "figures.json"


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "empty.toml"
    recipe.write_text("num_steps = 3\n")
    with pytest.raises(ConfigError, match="prompts_per_step: missing"):
        load(str(recipe))
