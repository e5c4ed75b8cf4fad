"""The warm start's traces: readable, true, and within what the recipe's tokenizer and limits hold."""

import hashlib
import random
import re
from itertools import islice

import pytest

from orchestrator.config.recipe import load
from rewards.parsing.extraction import extract_answer
from rewards.tasks.countdown import check
from rollout.config import TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.prompts.mixture import Mixture
from rollout.supervised.countdown import search_trace
from rollout.supervised.examples import TraceExamples
from rollout.supervised.examples import traces as task_traces
from rollout.tasks.countdown_problems.draws import draw_solvable
from rollout.tasks.countdown_problems.settings import CountdownConfig
from tests.support.byte_tokenizer import Bytes

STEP = re.compile(r"(\d+)([-+*])(\d+)=(\d+)(?: (yes|no))?")
APPLY = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def traces(count: int, **settings):
    rng = random.Random(0)
    for _ in range(count):
        numbers, target = draw_solvable(CountdownConfig(), rng)
        yield numbers, target, search_trace(numbers, target, rng, **settings)


def test_every_step_is_right_and_every_verdict_true() -> None:
    for _numbers, target, trace in traces(300):
        for left, operator, right, value, verdict in STEP.findall(trace):
            assert APPLY[operator](int(left), int(right)) == int(value)
            if verdict:
                assert (verdict == "yes") == (int(value) == target), trace


def test_a_trace_that_found_the_target_answers_with_it_and_one_that_gave_up_does_not() -> None:
    for numbers, target, trace in traces(300):
        verdict = check(extract_answer(trace), numbers, target)
        assert verdict.is_correct == (" yes\n" in trace), (trace, verdict.reason)


def test_the_number_of_lines_decides_how_many_end_well() -> None:
    def share(**settings):
        found = [" yes\n" in trace for _, _, trace in traces(300, **settings)]
        return sum(found) / len(found)

    assert share(give_up_rate=0.0, oversight_rate=0.0) == 1.0
    assert share(give_up_rate=1.0, give_up_within=1) < 0.5


def test_no_search_repeats_a_line() -> None:
    for _, _, trace in traces(200, give_up_rate=0.0, oversight_rate=1.0):
        firsts = [line.split(":")[0] for line in trace.split("\n")[:-1]]
        assert len(set(firsts)) == len(firsts)


def test_numbers_that_make_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[50, 40\] stays within 0\.\.0: raise prompts\.countdown\.max_intermediate"):
        search_trace([50, 40], 1, random.Random(0), max_value=0)
    with pytest.raises(ValueError, match="two or three numbers"):
        search_trace([1, 2, 3, 4], 1, random.Random(0))


def test_a_warm_start_teaches_no_question_that_a_mixture_holds_out() -> None:
    """32 of 32 were taught: the traces held out those of `[prompts]` alone, by another count and other settings."""
    tasks = {
        "three": {"countdown": {"max_number": 6}},
        "words": {"task": "word_problems"},
    }
    prompts = PromptsConfig.model_validate(
        {"chat": False, "num_held_out": 64, "max_prompt_tokens": 1000, "countdown": {"max_number": 9}, "mixture": tasks}
    )
    mixture = Mixture(prompts)
    held_out = {problem.key for name, problem in mixture.held_out if name == "three"}

    def taught(questions) -> tuple[set[str], int]:
        examples = TraceExamples(prompts, TracesConfig(), Bytes(), 0, questions)
        found = [bytes(example.prompt_ids.tolist()).decode() for example in examples.take(1200)]
        numbers = [
            list(map(int, re.findall(r"\d+", text.partition("create")[0] + text.partition("equals")[2][:4])))
            for text in found
        ]
        return {f"{' '.join(map(str, sorted(n[:-1])))} = {n[-1]}" for n in numbers}, examples.num_left_out

    before, _ = taught(None)
    after, num_left_out = taught(mixture.questions)
    assert len(before & held_out) > 10 and not after & held_out and num_left_out > 10


def test_a_resumed_warm_start_goes_on_behind_what_it_left_out() -> None:
    prompts = PromptsConfig.model_validate(
        {"chat": False, "num_held_out": 64, "max_prompt_tokens": 1000, "countdown": {"max_number": 6}}
    )
    questions = Mixture(prompts.model_copy(update={"seed": 1})).questions
    whole, first, second = (TraceExamples(prompts, TracesConfig(), Bytes(), 0, questions) for _ in range(3))
    expected = [example.prompt_ids.tolist() for example in whole.take(600)]
    first.take(300)
    second.restore(first.state())
    assert whole.num_left_out and [example.prompt_ids.tolist() for example in second.take(300)] == expected[300:]


def test_a_trace_whose_prompt_is_too_long_is_drawn_anew_and_a_resumed_warm_start_teaches_the_same() -> None:
    asked = {"task": "word_problems", "chat": False, "num_held_out": 2, "template": "{question}"}
    prompts = PromptsConfig.model_validate({**asked, "max_prompt_tokens": 140})
    whole, first, second = (TraceExamples(prompts, TracesConfig(), Bytes(), 0) for _ in range(3))
    expected = [example.prompt_ids.tolist() for example in whole.take(100)]
    assert max(map(len, expected)) <= 140 and whole.state()["position"] > 100
    first.take(37)
    second.restore(first.state())
    assert [example.prompt_ids.tolist() for example in second.take(63)] == expected[37:]
    with pytest.raises(ValueError, match=r"1000 problems of 'word_problems' .*max_prompt_tokens = 5"):
        TraceExamples(prompts.model_copy(update={"max_prompt_tokens": 5}), TracesConfig(), Bytes(), 0).take(1)


def test_a_trace_does_not_open_thinking_twice(monkeypatch) -> None:
    prompts = PromptsConfig.model_validate({"chat": False, "max_prompt_tokens": 1000, "assistant_prefix": "<think>"})
    problem, text = next(task_traces(prompts, TracesConfig(), 0))
    monkeypatch.setattr("rollout.supervised.examples.traces", lambda *_: iter([(problem, "<think>" + text)]))
    with pytest.raises(ValueError, match="a trace of the warm start opens <think>, which the prompt has opened"):
        TraceExamples(prompts, TracesConfig(), Bytes(), 0).take(1)


def test_examples_fit_the_recipe_and_teach_no_held_out_problem(tiny_model) -> None:
    from transformers import AutoTokenizer

    config = load("countdown-tiny")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    held_out = {
        (tuple(sorted(problem.answer["numbers"])), problem.answer["target"])
        for problem in config.prompts.source(config.prompts.num_held_out, config.prompts.seed).held_out
    }
    for example in TraceExamples(config.prompts, config.traces, tokenizer, config.warm_start.seed).take(400):
        assert len(example.prompt_ids) <= config.prompts.max_prompt_tokens
        assert len(example.completion_ids) <= config.sampling.max_completion_tokens
        assert example.completion_ids[-1] == tokenizer.eos_token_id
        *numbers, target = map(int, re.findall(r"\d+", tokenizer.decode(example.prompt_ids)))
        assert (tuple(sorted(numbers)), target) not in held_out


def test_the_traces_of_a_seed_are_those_they_always_were() -> None:
    """Warm starts were measured on them (docs/experiments.md): a change of the sequence is a change of the default."""
    config = load("countdown-tiny")
    endless = task_traces(config.prompts, config.traces, 0)
    texts = [
        f"{problem.fields['numbers_spaced']} {problem.fields['target']}: {text}"
        for problem, text in islice(endless, 200)
    ]
    assert (
        hashlib.sha256("\n".join(texts).encode()).hexdigest()
        == "3d13a79b855bd64fdab3e7fb8e8c4c27d559ec55487e615d0e253d6aa5a4e22c"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"even_held_out": True},
        {"min_solutions": 2},
        {"num_problems": 300},
        {"min_numbers_per_problem": 2, "max_number": 20},
        {"number_choices": (1, 2, 3, 5, 8), "repeat_numbers": False},
    ],
    ids=str,
)
def test_traces_teach_no_held_out_problem_under_any_setting(changes) -> None:
    recipe = load("countdown-tiny")
    countdown = CountdownConfig(**changes)
    prompts = recipe.prompts.model_copy(update={"countdown": countdown, "num_held_out": 40})
    held_out = {problem.key for problem in prompts.source(40, prompts.seed).held_out}
    taught = {problem.key for problem, _ in islice(task_traces(prompts, recipe.traces, 0), 400)}
    assert len(held_out) == 40 and not held_out & taught


def test_resumed_traces_go_on_where_they_stopped(tiny_model) -> None:
    from transformers import AutoTokenizer

    config, tokenizer = load("countdown-tiny"), AutoTokenizer.from_pretrained(tiny_model)

    def examples() -> TraceExamples:
        return TraceExamples(config.prompts, config.traces, tokenizer, 0)

    def ids(taken) -> list[list[int]]:
        return [[*example.prompt_ids, *example.completion_ids] for example in taken]

    whole, first, second = ids(examples().take(30)), examples(), examples()
    first.take(11)
    beginning = second.state()
    second.restore(first.state())
    assert ids(second.take(19)) == whole[11:]
    second.restore(beginning)
    assert ids(second.take(30)) == whole


def test_a_task_without_traces_says_what_to_do_instead() -> None:
    config = load("countdown-tiny")
    prompts = config.prompts.model_copy(update={"task": "gsm8k"})
    with pytest.raises(ValueError, match=r"'gsm8k' has no synthetic traces.*set warm_start\.data"):
        task_traces(prompts, config.traces, 0)
