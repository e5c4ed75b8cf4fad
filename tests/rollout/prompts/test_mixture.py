"""Several tasks: in the shares asked for, without held-out problems of one among the training problems of another."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.prompts.config import PromptsConfig
from rollout.prompts.mixture import shares
from rollout.prompts.stream import PromptStream
from tests.support.byte_tokenizer import Bytes
from tests.support.scored_groups import scored

TEMPLATE = "{numbers_spaced} -> {target}\n"


def prompts_config(**changes) -> PromptsConfig:
    return PromptsConfig.model_validate({"chat": False, "template": TEMPLATE, "num_held_out": 30, **changes})


def stream(**changes) -> PromptStream:
    return PromptStream(prompts_config(**changes), Bytes())


TWO_AND_THREE = {"two": {"weight": 1.0, "countdown": {"numbers_per_problem": 2}}, "three": {"weight": 3.0}}


def test_prompts_come_in_the_shares_of_the_weights() -> None:
    prompts = stream(mixture=TWO_AND_THREE).take(4000)
    num_two = sum(prompt.source == "two" for prompt in prompts)
    assert abs(num_two - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5  # four standard deviations
    assert all(len(p.answer["numbers"]) == {"two": 2, "three": 3}[p.source] for p in prompts)
    # Whose turn it is does not alternate: every run of ten prompts can hold any number of either.
    assert len({sum(p.source == "two" for p in prompts[i : i + 10]) for i in range(0, 4000, 10)}) > 4


def test_the_same_seed_asks_the_same_and_another_does_not() -> None:
    texts = [[p.text for p in stream(mixture=TWO_AND_THREE, seed=seed).take(40)] for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_entries_that_overlap_share_no_held_out_problem_with_training() -> None:
    entries = {
        "all": {"weight": 1.0},
        "small": {"weight": 1.0, "countdown": {"max_target": 15}},
        "list": {"weight": 1.0, "countdown": {"num_problems": 40, "max_target": 20}},
    }
    mixed = stream(mixture=entries, countdown={"max_number": 4}, num_held_out=90)
    held_out = {prompt.key for prompt in mixed.held_out()}
    assert {prompt.source for prompt in mixed.held_out()} == set(entries)
    trained = mixed.take(1500)
    assert {prompt.source for prompt in trained} == set(entries)
    assert not held_out & {prompt.key for prompt in trained}


def test_tasks_mix_each_with_its_own_wording_and_grader() -> None:
    entries = {"countdown": {"weight": 1.0}, "talk": {"weight": 1.0, "task": "period_count"}}
    prompts = stream(mixture=entries).take(60)
    assert {(p.source, p.grader) for p in prompts} == {("countdown", "countdown"), ("talk", "period_count")}
    assert all(("->" in p.text) == (p.grader == "countdown") for p in prompts)


def test_held_out_problems_are_divided_by_largest_remainder() -> None:
    assert shares(10, {"a": 1.0, "b": 1.0, "c": 1.0}) == {"a": 4, "b": 3, "c": 3}
    assert shares(7, {"a": 0.5, "b": 0.3, "c": 0.2}) == {"a": 4, "b": 2, "c": 1}
    assert shares(5, {"a": 0.0, "b": 2.0}) == {"a": 0, "b": 5}
    counts = [p.source for p in stream(mixture=TWO_AND_THREE, num_held_out=41).held_out()]
    assert (counts.count("two"), counts.count("three")) == (10, 31)


@given(st.integers(0, 500), st.dictionaries(st.text(max_size=3), st.floats(0.001, 1000), min_size=1, max_size=6))
def test_every_held_out_problem_belongs_to_an_entry_and_none_is_one_off_its_share(total, weights) -> None:
    counts = shares(total, weights)
    assert sum(counts.values()) == total
    whole = sum(weights.values())
    assert all(abs(counts[name] - total * weight / whole) < 1 + 1e-9 for name, weight in weights.items())


LISTED = {
    "list": {"weight": 2.0, "countdown": {"num_problems": 3}},
    "small": {"weight": 1.0, "countdown": {"max_target": 15}},
    "talk": {"weight": 1.0, "task": "period_count"},
}
CURRICULUM = {
    "stages": [
        {"weights": {"small": 1.0, "list": 2.0}, "num_steps": 2},
        {"weights": {"list": 3.0, "talk": 1.0}, "pass_rate": 0.6},
        {"weights": {"list": 1.0, "small": 1.0}},
    ],
    "window_groups": 5,
    "drop_solved_after": 2,
}


@given(st.lists(st.lists(st.sampled_from([None, 0.5, 1.0, 1.0]), max_size=6), max_size=12), st.integers(0, 12))
@settings(max_examples=40)
def test_a_run_stopped_anywhere_goes_on_as_if_it_never_had(steps, stop) -> None:
    """Over any results: mixture, curriculum, dropped problems and the one-shot share, all at once."""
    config = prompts_config(
        mixture=LISTED, curriculum=CURRICULUM, one_shot_steps=5, max_prompt_tokens=1000, num_held_out=6
    )
    whole, stopped = PromptStream(config, Bytes()), PromptStream(config, Bytes())
    for number, rates in enumerate(steps):
        if number == stop:
            state = json.loads(json.dumps(stopped.state()))
            stopped = PromptStream(config, Bytes())
            stopped.restore(state)
        taken = [each.take(len(rates)) for each in (whole, stopped)]
        assert [(p.id, p.text, p.source, p.format) for p in taken[0]] == [
            (p.id, p.text, p.source, p.format) for p in taken[1]
        ]
        assert whole.metrics() == stopped.metrics()
        for each, prompts in zip((whole, stopped), taken, strict=True):
            each.observe([scored(prompt, rate) for prompt, rate in zip(prompts, rates, strict=True)])
    assert whole.state() == stopped.state()


def test_an_entry_inherits_what_it_does_not_say() -> None:
    config = prompts_config(
        countdown={"max_number": 5, "max_target": 30},
        mixture={"hard": {"countdown": {"max_target": 39}}, "own": {"template": "{numbers} {target}"}},
    )
    hard, own = config.tasks["hard"], config.tasks["own"]
    assert (hard.settings.max_number, hard.settings.max_target) == (5, 39)
    assert (hard.template, own.template) == (TEMPLATE, "{numbers} {target}")
    assert PromptsConfig.model_validate(config.model_dump(mode="json")) == config


def test_an_entry_of_another_task_inherits_settings_but_no_wording() -> None:
    example = {"fields": {"numbers_spaced": "1 2", "target": "3"}, "completion": "1 + 2"}
    config = prompts_config(
        natural_template=TEMPLATE,
        example=example,
        period_count={"max_adjectives": 1},
        mixture={"talk": {"task": "period_count"}, "numbers": {}},
    )
    talk, numbers = config.tasks["talk"], config.tasks["numbers"]
    assert (talk.template, talk.natural_template, talk.example) == (None, None, None)
    assert talk.settings.max_adjectives == 1
    assert numbers.template == numbers.natural_template == TEMPLATE and numbers.example == config.example
    settings = config.model_dump(mode="json")
    assert PromptsConfig.model_validate(settings).model_dump(mode="json") == settings


def test_an_entry_that_names_no_environment_has_the_one_of_prompts() -> None:
    entries = {
        "plain": {},
        "talk": {"task": "period_count"},
        "none": {"environment": ""},
        "other": {"environment": "guess"},
    }
    config = prompts_config(environment="calculator", mixture=entries)
    assert [task.environment for task in config.tasks.values()] == ["calculator", "calculator", "", "guess"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixture": {"a": {"weight": 0.0}, "b": {"weight": 0.0}}}, "mixture: every weight is 0.* give at least one"),
        ({"mixture": {"a": {"weight": -1.0}}}, "mixture.a.weight"),
        ({"mixture": {"a": {"template": "{goal}"}}}, r"(?s)mixture\.a.*asks for the fields \['goal'\]"),
        ({"mixture": {"a": {"countdown": {"max_number": 0}}}}, r"mixture\.a\.countdown\.max_number"),
    ],
)
def test_a_wrong_mixture_names_key_value_and_fix(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        prompts_config(**changes)


def test_an_entry_whose_every_problem_another_holds_out_says_so() -> None:
    tiny = {"numbers_per_problem": 2, "max_number": 2, "max_target": 4}  # six problems
    held = stream(
        mixture={"all": {"countdown": tiny}, "list": {"countdown": {**tiny, "num_problems": 2}}},
        curriculum={"stages": [{"weights": {"list": 1.0}, "num_steps": 1}, {"weights": {"all": 1.0}}]},
        num_held_out=6,
    )
    with pytest.raises(ValueError, match=r"no problem of 'list' is left to train on.*Lower prompts\.num_held_out"):
        held.take(1)
