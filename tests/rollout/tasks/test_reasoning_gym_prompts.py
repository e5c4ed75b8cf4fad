"""Problems of reasoning_gym: seeded, disjoint, JSON-able; wrong names and settings are refused; chain_sum's traces."""

import json
import random
import re
from collections import Counter
from itertools import islice

import pytest
from pydantic import ValidationError

from orchestrator.config.recipe import ConfigError, load
from rewards.tasks.reasoning_gym import score
from rollout.prompts.config import PromptsConfig
from rollout.prompts.stream import PromptStream
from rollout.supervised.reasoning_gym import sum_trace, traces
from rollout.tasks.reasoning_gym import MAX_INDEX, DatasetConfig, ReasoningGymConfig, load_dataset, source
from tests.support.byte_tokenizer import Bytes

SUMS = {"name": "chain_sum", "settings": {"min_terms": 3, "max_terms": 4, "max_digits": 1}}


def config(*datasets) -> ReasoningGymConfig:
    return ReasoningGymConfig(datasets=datasets)


def test_problems_are_seeded_and_reproducible_by_index() -> None:
    first, second = source(config(SUMS), 20, 0), source(config(SUMS), 20, 0)
    assert [first.train(i) for i in range(30)] == [second.train(i) for i in reversed(range(30))][::-1]
    assert second.train(7) == first.train(7) and first.held_out == second.held_out
    assert [source(config(SUMS), 20, 1).train(i).key for i in range(9)] != [first.train(i).key for i in range(9)]


def test_no_question_is_both_held_out_and_trained_on() -> None:
    tight = {"name": "chain_sum", "settings": {"min_terms": 2, "max_terms": 2, "max_digits": 1}}  # 200 questions
    problems = source(config(tight), 150, 0)
    held_out = {problem.fields["question"] for problem in problems.held_out}
    trained = {problems.train(index).fields["question"] for index in range(400)}
    assert len(held_out) == 150 and len(trained) > 30 and not held_out & trained
    with pytest.raises(ValueError, match=r"lower it, or widen prompts\.reasoning_gym\.datasets"):
        source(config(tight), 201, 0)


def test_several_data_sets_come_by_weight_each_with_its_settings() -> None:
    problems = source(config(SUMS | {"weight": 3.0}, {"name": "spell_backward"}), 10, 0)
    drawn = [problems.train(index) for index in range(400)]
    counts = Counter(problem.difficulty for problem in drawn)
    assert set(counts) == {"chain_sum", "spell_backward"} and 260 < counts["chain_sum"] < 340
    for problem in drawn:
        assert json.loads(json.dumps(problem.answer)) == problem.answer
        assert problem.answer["dataset"] == problem.difficulty
        if problem.difficulty == "chain_sum":
            assert len(re.findall(r"\d+", problem.fields["question"])) in (3, 4)
            assert re.fullmatch(r"-?\d\d?", problem.answer["answer"])


@pytest.mark.parametrize("name", ["acre", "gsm_symbolic", "list_functions", "word_ladder"])
def test_data_sets_of_a_fixed_size_are_asked_too(name) -> None:
    problems = source(config({"name": name}), 3, 0)
    assert len({problems.train(index).key for index in range(20)}) > 15


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"name": "chain_sums"}, "no data set 'chain_sums': did you mean 'chain_sum'"),
        ({"name": "zzz"}, "no data set 'zzz': there are ab, acre,"),
        (SUMS | {"settings": {"min_term": 1}}, "chain_sum has no setting 'min_term': did you mean 'min_terms'"),
        (SUMS | {"settings": {"min_terms": 9, "max_terms": 3}}, "refuses settings = .*max_terms must be >= min_terms"),
        (SUMS | {"settings": {"min_terms": "two"}}, "refuses settings = "),
    ],
)
def test_what_the_library_does_not_have_is_refused_before_anything_starts(dataset, message) -> None:
    with pytest.raises(ValueError, match=message):
        source(config(dataset), 1, 0)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ([{"name": "composite"}], "'composite' cannot be asked: list its data sets"),
        ([SUMS | {"settings": {"seed": 1, "size": 9}}], r"settings has \['seed', 'size'\]: the seed is prompts\.seed"),
        ([SUMS, SUMS], "lists 'chain_sum' twice"),
        ([], "at least 1"),
        ([SUMS | {"weight": 0}], "greater than 0"),
    ],
)
def test_a_recipe_that_cannot_be_right_is_refused_when_it_is_loaded(datasets, message) -> None:
    with pytest.raises(ValidationError, match=message):
        config(*datasets)


def test_a_recipe_without_the_question_in_its_template_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"template must show \{question\}"):
        load("reasoning-gym-tiny", ["prompts.template=Go on"])


def test_questions_are_worded_in_every_format() -> None:
    prompts = PromptsConfig(task="reasoning_gym", chat=False, max_prompt_tokens=2000, num_held_out=2)
    stream = PromptStream(prompts, Bytes())
    plain, shown, natural = (stream.held_out(format)[0] for format in ("zero_shot", "one_shot", "natural"))
    assert "<answer>" in plain.text and plain.key in plain.text and plain.key in natural.text
    assert shown.text.startswith("State the final answer to the following arithmetic problem: 6 + 7 - 4 =")
    assert "<answer>" not in natural.text and natural.answer["extraction"] == "natural"
    assert score(f"I add.\n{natural.answer['answer']}", natural.answer)["correctness"] == 1.0


def test_a_trace_works_a_sum_out_or_stops_after_so_many_lines() -> None:
    assert sum_trace("4 + 3 - 9 + 5") == "4+3=7\n7-9=-2\n-2+5=3\n</think><answer>3</answer>"
    assert sum_trace("4 + 3 - 9 + 5", num_lines=1) == "4+3=7\n</think><answer>7</answer>"
    rng = random.Random(0)
    for _ in range(200):
        terms = [rng.choice((1, -1)) * rng.randint(1, 9) for _ in range(rng.randint(1, 6))]
        expression = " ".join(["7", *(f"{'-' if term < 0 else '+'} {abs(term)}" for term in terms)])
        assert sum_trace(expression).endswith(f"={7 + sum(terms)}\n</think><answer>{7 + sum(terms)}</answer>")


def test_the_share_of_traces_that_are_right_is_the_recipes() -> None:
    def share(**changes) -> float:
        recipe = load("reasoning-gym-tiny")
        endless = traces(recipe.prompts, recipe.traces.model_copy(update=changes), 0)
        right = [score(f"<think>{text}", problem.answer)["correctness"] for problem, text in islice(endless, 300)]
        return sum(right) / len(right)

    assert share(give_up_rate=0.0) == 1.0
    assert 0.2 < share() < 0.4


@pytest.mark.parametrize("seed", [-1, 2**31 + 1, 2**40])
def test_seeds_that_numpy_does_not_take_are_refused_before_the_start(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"prompts\.seed = {seed}: .*pool_matrix takes seeds from 0 to 2147483648"):
        load_dataset(DatasetConfig(name="pool_matrix"), seed)
    assert load_dataset(DatasetConfig(name="chain_sum"), seed)[MAX_INDEX - 1]["question"]


def test_the_largest_seed_goes_with_the_largest_index() -> None:
    assert load_dataset(DatasetConfig(name="pool_matrix"), 2**31)[MAX_INDEX - 1]["question"]


def test_settings_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match=r"settings = \{'max_value': inf\} holds NaN or infinity"):
        DatasetConfig(name="chain_sum", settings={"max_value": float("inf")})


def test_traces_of_another_data_set_are_refused() -> None:
    recipe = load("reasoning-gym-tiny", ['prompts.reasoning_gym.datasets=[{name = "maze"}]'])
    with pytest.raises(ValueError, match=r"\['maze'\]: synthetic traces .* only for chain_sum; set warm_start\.data"):
        next(traces(recipe.prompts, recipe.traces, 0))
