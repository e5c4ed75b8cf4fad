"""The policies that tiny recipes build read and write what their recipes ask for."""

import re
from dataclasses import replace

import pytest

from orchestrator.config.recipe import load
from rewards.environments.calculator import calculate
from rewards.environments.guess import Guess
from rollout.prompts.stream import PromptStream
from rollout.supervised.examples import TraceExamples
from rollout.supervised.period_count import ADVERBS, CONJUNCTION, PLACES, PREPOSITIONS, VERBS
from rollout.tasks.period_count import ADJECTIVES, DETERMINERS, NOUNS
from rollout.tasks.word_problems import BOX, BOXES, GAINS, LOSSES, NAMES, THINGS
from tests.support.built_tokenizer import built_tokenizer

SENTENCE_WORDS = (*DETERMINERS, *ADJECTIVES, *NOUNS, *VERBS, *ADVERBS, *PREPOSITIONS, *PLACES, CONJUNCTION)
PERIOD_COUNT_TOKENS = (*DETERMINERS, *(f" {word}" for word in SENTENCE_WORDS), ".")
GRAMMAR = "has gives more times as many packs all equally into and keeps one does have now"
WORD_PROBLEMS_TOKENS = (
    *NAMES,
    *(f" {word}" for words in (NAMES, THINGS, BOXES, BOX.values(), GAINS, LOSSES, GRAMMAR.split()) for word in words),
    *("How", " How", " ", ".", "?", "\n", "+", "-", "*", "/", "=", "<think>", "</think>", "<answer>", "</answer>"),
)


@pytest.mark.parametrize("name", ["period-count-tiny", "reasoning-gym-tiny", "word-problems-tiny", "calculator-tiny"])
def test_a_policy_has_the_tokens_of_every_prompt_and_every_trace_and_room_for_both(name, tmp_path) -> None:
    recipe = load(name)
    tokenizer = built_tokenizer(recipe, tmp_path)
    stream = PromptStream(recipe.prompts, tokenizer)
    held_out = {prompt.text for prompt in stream.held_out()}
    for prompt in stream.take(200):
        assert tokenizer.decode(prompt.token_ids) == prompt.text
    for example in TraceExamples(recipe.prompts, recipe.traces, tokenizer, 0).take(400):
        assert len(example.completion_ids) <= recipe.sampling.max_completion_tokens
        assert tokenizer.decode(example.prompt_ids) not in held_out


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("period-count-tiny", PERIOD_COUNT_TOKENS),
        ("word-problems-tiny", WORD_PROBLEMS_TOKENS),
        ("calculator-tiny", (*WORD_PROBLEMS_TOKENS, "<calc>", "</calc>", "<result>", "</result>")),
    ],
)
def test_a_recipes_words_are_those_of_its_grammar(name, tokens) -> None:
    build = load(name).model.build
    assert build is not None and sorted(build.words) == sorted(tokens)


def test_traces_with_calls_say_what_the_calculator_says_and_teach_only_the_policys_part(tmp_path) -> None:
    recipe = load("calculator-tiny")
    tokenizer = built_tokenizer(recipe, tmp_path)
    examples = TraceExamples(recipe.prompts, recipe.traces, tokenizer, 0).take(200)
    calling = [example for example in examples if example.policy_tokens is not None]
    assert 0.15 < len(calling) / len(examples) < 0.35
    for example in calling:
        text = tokenizer.decode(example.completion_ids)
        calls = re.findall(r"<calc>([^<]*)</calc><result>([^<]*)</result>\n", text)
        assert [calculate(expression) for expression, _ in calls] == [(result, "") for _, result in calls]
        taught = tokenizer.decode(example.completion_ids[example.policy_tokens])
        assert taught == re.sub(r"<result>[^<]*</result>", "", text)
        assert taught.endswith(f"<answer>{calls[-1][1]}</answer>{tokenizer.eos_token}")


def test_traces_of_the_number_game_say_what_its_environment_says_and_fit_the_policy(tmp_path) -> None:
    recipe = load("guess-tiny")
    tokenizer = built_tokenizer(recipe, tmp_path)
    sampling, rules = recipe.sampling, recipe.environment
    stream, won = PromptStream(recipe.prompts, tokenizer), 0
    examples = TraceExamples(recipe.prompts, recipe.traces, tokenizer, 0).take(200)
    for prompt, example in zip(stream.take(200), examples, strict=True):
        assert example.policy_tokens is not None and len(example.policy_tokens) <= sampling.max_completion_tokens
        assert len(example.completion_ids) - len(example.policy_tokens) <= rules.max_observed_tokens
        text = tokenizer.decode(example.completion_ids).removesuffix(tokenizer.eos_token)
        told = re.findall(r"(<guess>[0-9]+</guess>)(<hint>[a-z]+</hint>)?", text)
        number = next((n for n in range(1, 16) if consistent(n, told)), None)
        won += told[-1][0] == f"<guess>{number}</guess>"
        game = Guess(**rules.parameters["guess"])
        game.start(replace(prompt, answer={"number": number, "highest": 15}), 0)
        assert all(game.step(guess).text == hint for guess, hint in told[:-1])
        assert game.step(told[-1][0]).is_over
    assert 60 < won < 120  # some players listen


def consistent(number: int, told: list[tuple[str, str]]) -> bool:
    """Return whether the hints are those of a number: the last guess is it, or the game is lost without."""
    guesses = [int(guess.removeprefix("<guess>").removesuffix("</guess>")) for guess, _ in told]
    agrees = all((guess < number) == ("higher" in hint) for guess, (_, hint) in zip(guesses[:-1], told, strict=False))
    return agrees and number not in guesses[:-1] and (guesses[-1] == number or len(guesses) == 4)
