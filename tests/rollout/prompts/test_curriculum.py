"""What is asked over a run: when a stage ends, what is left out, and what the metrics say."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.base_model import warm_start_folder
from orchestrator.config.recipe import load
from rollout.prompts.config import PromptsConfig
from rollout.prompts.stream import PromptStream
from tests.support.byte_tokenizer import Bytes
from tests.support.scored_groups import scored


def stream(stages=(), num_problems=None, **curriculum) -> PromptStream:
    return PromptStream(config(stages, num_problems, **curriculum), Bytes())


def config(stages=(), num_problems=None, **curriculum) -> PromptsConfig:
    return PromptsConfig.model_validate(
        {
            "chat": False,
            "template": "{numbers_spaced} -> {target}\n",
            "num_held_out": 10,
            "countdown": {"num_problems": num_problems},
            "mixture": {"easy": {"countdown": {"numbers_per_problem": 2}}, "hard": {}},
            "curriculum": {"stages": list(stages), **curriculum},
        }
    )


def step(prompts: PromptStream, *rates: float | None) -> set[str]:
    """Take a step of as many prompts with those pass rates. Return the entries that were asked."""
    taken = prompts.take(len(rates))
    prompts.observe([scored(prompt, rate) for prompt, rate in zip(taken, rates, strict=True)])
    return {prompt.source for prompt in taken}


EASY = {"easy": 1.0}
HARD = {"hard": 1.0}


def test_a_stage_ends_after_its_steps_whatever_came_of_them() -> None:
    prompts = stream([{"weights": EASY, "num_steps": 3}, {"weights": HARD}])
    assert [step(prompts, 0.0, 0.5) for _ in range(6)] == [{"easy"}] * 3 + [{"hard"}] * 3


def test_a_stage_ends_by_the_mean_pass_rate_of_a_full_window() -> None:
    prompts = stream([{"weights": EASY, "pass_rate": 0.75}, {"weights": HARD}], window_groups=4)
    assert step(prompts, 1.0, 1.0) == {"easy"}  # right, but only half a window
    assert step(prompts, 0.5, 0.25) == {"easy"}  # 0.6875 in the window
    assert step(prompts, 1.0, 1.0) == {"easy"}  # the last four: 0.6875
    assert step(prompts, 0.5, 0.5) == {"easy"}  # the last four: 0.75
    assert step(prompts, 0.0, 0.0) == {"hard"}


@pytest.mark.parametrize(("rates", "num_easy"), [([0.0, 0.0], 3), ([1.0, 1.0], 1)])
def test_whichever_comes_first_ends_the_stage(rates, num_easy) -> None:
    stages = [{"weights": EASY, "num_steps": 3, "pass_rate": 0.9}, {"weights": HARD}]
    prompts = stream(stages, window_groups=2)
    assert [step(prompts, *rates) for _ in range(5)].count({"easy"}) == num_easy


def test_the_window_is_the_stages_own_and_the_last_stage_goes_on() -> None:
    stages = [{"weights": EASY, "pass_rate": 0.5}, {"weights": HARD, "pass_rate": 0.5}, {"weights": EASY}]
    prompts = stream(stages, window_groups=4)
    names = [step(prompts, 1.0, 1.0) for _ in range(9)]
    assert names == [{"easy"}] * 2 + [{"hard"}] * 2 + [{"easy"}] * 5


@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("ends", [{"num_steps": 2}, {"pass_rate": 0.5}])
def test_a_stage_goes_by_its_own_groups_where_sampling_runs_ahead(ahead: int, ends: dict) -> None:
    stages = [{"weights": EASY, **ends}, {"weights": HARD, **ends}, {"weights": EASY}]
    prompts = stream(stages, window_groups=4)
    asked = [prompts.take(2) for _ in range(ahead)]
    for number in range(8 + 2 * ahead):
        asked.append(prompts.take(2))
        prompts.observe([scored(prompt, 1.0) for prompt in asked[number]])
    # Two steps of each stage are observed before it ends, and as many again as run ahead were asked by then.
    names = ["".join({prompt.source for prompt in step}) for step in asked]
    assert names == ["easy"] * (2 + ahead) + ["hard"] * (2 + ahead) + ["easy"] * (len(names) - 4 - 2 * ahead)


def resampled(prompts: PromptStream, rates: dict[int, float]) -> None:
    """Take a step in which groups without spread are replaced; as orchestrator/batches.py does, these come last."""
    groups = [scored(prompt, rates[position]) for position, prompt in enumerate(prompts.take(len(rates)))]
    prompts.observe(
        [group for group in groups if group.has_spread] + [group for group in groups if not group.has_spread]
    )


def test_the_window_is_not_that_of_the_replaced_groups_alone() -> None:
    """Four of eight groups were all wrong, so the others count half; only in a window of the last four they are all."""
    stages = [{"weights": EASY, "pass_rate": 0.2}, {"weights": HARD}]
    rates = {0: 0.0, 1: 0.5, 2: 0.0, 3: 0.0, 4: 0.5, 5: 0.0, 6: 0.5, 7: 0.5}
    fresh, old = stream(stages, window_groups=4), stream(stages, window_groups=4)
    state = old.state()
    del state["curriculum"]["by_position"]  # as version 0.1.0 saved it: that run keeps its rule
    old.restore(state)
    for prompts, rate in ((fresh, 0.375), (old, 0.0)):
        resampled(prompts, rates)
        assert prompts.state()["curriculum"]["window"] == ([] if rate else [0.0] * 4)
        again = stream(stages, window_groups=4)
        again.restore(prompts.state())
        assert again.state() == prompts.state()
    assert {prompt.source for prompt in fresh.take(4)} == {"hard"}
    assert {prompt.source for prompt in old.take(4)} == {"easy"}


def test_groups_without_a_pass_rate_do_not_count() -> None:
    prompts = stream([{"weights": EASY, "pass_rate": 0.5}, {"weights": HARD}], window_groups=2)
    assert [step(prompts, None, None) for _ in range(3)] == [{"easy"}] * 3
    assert [step(prompts, None, 1.0) for _ in range(3)] == [{"easy"}, {"easy"}, {"hard"}]


def test_metrics_say_where_the_run_is() -> None:
    prompts = stream([{"weights": EASY, "num_steps": 2}, {"weights": HARD}], window_groups=2, drop_solved_after=1)
    assert prompts.metrics() == {"curriculum/stage": 1.0, "curriculum/dropped_prompts": 0.0}
    step(prompts, 0.5, 1.0)
    assert prompts.metrics()["curriculum/stage_pass_rate"] == 0.75
    step(prompts, 0.5)
    assert prompts.metrics() == {"curriculum/stage": 2.0, "curriculum/dropped_prompts": 0.0}
    assert stream().metrics() == {}


def test_an_evaluation_asks_what_the_last_stage_asks() -> None:
    prompts = stream([{"weights": {"easy": 5.0}, "num_steps": 2}, {"weights": {"easy": 1.0, "hard": 4.0}}])
    sources = [prompt.source for prompt in prompts.held_out()]
    assert (sources.count("easy"), sources.count("hard")) == (2, 8)
    held_out = {prompt.key for prompt in prompts.held_out()}
    step(prompts, *[0.0] * 400)
    assert not held_out & {prompt.key for prompt in prompts.take(400)}


def test_a_problem_is_dropped_once_its_last_groups_were_right_throughout() -> None:
    prompts = stream([{"weights": HARD}], num_problems=4, drop_solved_after=2)
    solved, failed = None, set()
    for _ in range(6):
        taken = prompts.take(4)
        solved = solved or taken[0].key
        failed |= {prompt.key for prompt in taken if prompt.key != solved}
        prompts.observe([scored(prompt, float(prompt.key == solved)) for prompt in taken])
    assert prompts.metrics()["curriculum/dropped_prompts"] == 1.0
    assert {prompt.key for prompt in prompts.take(9)} == failed and len(failed) == 3


def test_a_failure_between_keeps_a_problem() -> None:
    prompts = stream([{"weights": HARD}], num_problems=3, drop_solved_after=2)
    for rate in (1.0, 0.75, 1.0, 0.75):
        step(prompts, *[rate] * 3)
    assert prompts.metrics()["curriculum/dropped_prompts"] == 0.0
    assert len({prompt.key for prompt in prompts.take(3)}) == 3


def test_when_all_of_an_entry_are_dropped_they_are_asked_again(caplog) -> None:
    stages = [{"weights": EASY, "num_steps": 1}, {"weights": HARD}]
    prompts = stream(stages, num_problems=3, drop_solved_after=1)
    easy = prompts.take(3)
    prompts.observe([scored(prompt, 1.0) for prompt in easy])  # all easy ones are dropped; the hard ones come next
    hard = prompts.take(3)
    assert {prompt.source for prompt in hard} == {"hard"}
    prompts.observe([scored(prompt, 1.0) for prompt in hard])
    assert prompts.metrics()["curriculum/dropped_prompts"] == 6.0
    with caplog.at_level(logging.WARNING):
        again = prompts.take(3)
    assert {prompt.key for prompt in again} == {prompt.key for prompt in hard}
    assert "every problem of 'hard' was dropped as solved: all of them are asked again" in caplog.text
    assert prompts.metrics()["curriculum/dropped_prompts"] == 3.0  # the easy ones stay dropped


def test_generated_problems_never_come_again_so_none_is_remembered() -> None:
    prompts = stream([{"weights": HARD}], drop_solved_after=1)
    step(prompts, *[1.0] * 20)
    assert prompts.metrics()["curriculum/dropped_prompts"] == 0.0 and not prompts.state()["solved"]


@given(st.integers(2, 7), st.integers(0, 3), st.lists(st.integers(0, 15), min_size=1, max_size=12), st.randoms())
@settings(max_examples=50)
def test_every_listed_problem_that_is_not_dropped_comes_once_an_epoch(size, drop_after, counts, rng) -> None:
    prompts = stream([{"weights": HARD}], num_problems=size, drop_solved_after=drop_after)
    everything = {problem.key for problem in prompts._mixture.sources["hard"].different}
    streaks = dict.fromkeys(everything, 0)
    epochs: dict[int, list[str]] = {}
    is_whole = True  # until all are dropped, and then an epoch is cut short
    for count in counts:
        dropped = {key for key, streak in streaks.items() if 0 < drop_after <= streak}
        is_whole = is_whole and dropped != everything
        taken = []
        for _ in range(count):
            prompt = prompts.take(1)[0]
            taken.append(prompt)
            epochs.setdefault((prompts.state()["mixture"]["hard"] - 1) // size, []).append(prompt.key)
            assert not is_whole or prompt.key not in dropped
        rates = {prompt.key: rng.choice([0.5, 1.0]) for prompt in taken}
        prompts.observe([scored(prompt, rates[prompt.key]) for prompt in taken])
        for prompt in taken:
            streaks[prompt.key] = streaks[prompt.key] + 1 if rates[prompt.key] == 1.0 else 0
    if is_whole:
        never_dropped = {key for key, streak in streaks.items() if not 0 < drop_after <= streak}
        for asked in epochs.values():
            assert len(set(asked)) == len(asked)
        for number in range(max(epochs, default=0)):
            assert never_dropped <= set(epochs.get(number, []))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"weights": {"esy": 1.0}, "num_steps": 1}], r"stages, number 1: no mixture entry is called 'esy'; there are"),
        ([{"weights": EASY}, {"weights": HARD}], "number 1 would never end: set its num_steps, its pass_rate, or both"),
        ([{"weights": {"easy": 0.0}}], r"number 1: weights = \{'easy': 0.0\} must be 0 or more, and one of them more"),
        ([{"weights": {"easy": -1.0, "hard": 1.0}}], "must be 0 or more"),
        ([{"weights": {}}], r"weights = \{\} must be"),
        ([{"weights": EASY, "pass_rate": 1.5}], "pass_rate"),
        ([{"weights": EASY, "num_steps": 0}], "num_steps"),
    ],
)
def test_a_wrong_stage_names_key_value_and_fix(stages, message) -> None:
    with pytest.raises(ValueError, match=message):
        config(stages)


def test_the_curriculum_recipe_is_the_default_but_for_what_is_asked_when() -> None:
    """Or a comparison of the two would not be about the curriculum."""
    plain, changed = load("countdown-tiny"), load("countdown-curriculum-tiny")
    own = {"name": True, "prompts": {"mixture", "curriculum"}}
    assert changed.model_dump(exclude=own) == plain.model_dump(exclude=own)
    assert warm_start_folder(changed) == warm_start_folder(plain)
    asked, compared = PromptStream(plain.prompts, Bytes()), PromptStream(changed.prompts, Bytes())
    assert [p.text for p in asked.held_out()] == [p.text for p in compared.held_out()]
    held_out = {prompt.key for prompt in asked.held_out()}
    taken = compared.take(300)
    assert {p.source for p in taken} == {"large"} and not held_out & {p.key for p in taken}
    assert all(prompt.answer["target"] >= 21 for prompt in taken)
