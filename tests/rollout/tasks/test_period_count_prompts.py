"""Period count's openings and its grammar: seeded, disjoint, within the recipe's tokenizer and limits."""

import random

import pytest

from orchestrator.config.recipe import ConfigError, load
from rewards.tasks.period_count import score
from rollout.prompts.config import PromptsConfig
from rollout.prompts.stream import PromptStream
from rollout.supervised.examples import TraceExamples
from rollout.supervised.period_count import continuation, traces
from rollout.tasks.period_count import ADJECTIVES, DETERMINERS, NOUNS, PeriodCountConfig, source
from tests.support.built_tokenizer import built_tokenizer
from tests.support.byte_tokenizer import Bytes


def settings(**changes) -> PromptsConfig:
    return PromptsConfig(task="period_count", chat=False, template="{opening}", **changes)


def test_openings_are_seeded_well_formed_and_never_held_out() -> None:
    stream = PromptStream(settings(num_held_out=100), Bytes())
    held_out = {prompt.text for prompt in stream.held_out()}
    prompts = stream.take(3000)
    assert len(held_out) == 100 and not held_out & {prompt.text for prompt in prompts}
    for prompt in prompts:
        first, *middle, last = prompt.text.split(" ")
        assert first in DETERMINERS and last in NOUNS and set(middle) <= set(ADJECTIVES)
        assert 1 <= len(middle) == len(set(middle)) <= 2
        assert prompt.grader == "period_count"
    stopped, again = (PromptStream(settings(num_held_out=100), Bytes()) for _ in range(2))
    stopped.take(2990)
    again.restore(stopped.state())
    assert [prompt.text for prompt in again.take(10)] == [prompt.text for prompt in prompts[-10:]]
    assert [p.text for p in PromptStream(settings(seed=1), Bytes()).take(9)] != [p.text for p in prompts[:9]]


def test_more_held_out_openings_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lower it, or raise prompts\.period_count\.max_adjectives"):
        source(PeriodCountConfig(max_adjectives=1), 481, 0)


def sentences(opening: str, text: str) -> list[list[str]]:
    assert text.startswith(" ") and text.endswith(".") and "  " not in text
    return [sentence.split() for sentence in (opening + text)[:-1].split(". ")]


def test_traces_have_one_to_four_sentences_of_the_lengths_asked_for() -> None:
    rng, config = random.Random(0), PeriodCountConfig()
    counts, lengths = [], []
    for _ in range(800):
        text = continuation("the old cat", config, rng)
        found = sentences("the old cat", text)
        counts.append(len(found))
        assert score(text, {})["periods"] == len(found)
        lengths += [len(sentence) for sentence in found]
    assert set(counts) == {1, 2, 3, 4} and all(150 < counts.count(n) < 250 for n in (1, 2, 3, 4))
    assert (min(lengths), max(lengths)) == (4, 12)


def test_a_long_opening_makes_its_sentence_longer_not_wrong() -> None:
    rng, config = random.Random(0), PeriodCountConfig(max_adjectives=3, min_words=3, max_words=6, max_sentences=1)
    opening = "the old red small cat"
    assert {len(sentences(opening, continuation(opening, config, rng))[0]) for _ in range(20)} == {6}
    with pytest.raises(ValueError, match="max_words = 5 is below 6"):
        PeriodCountConfig(max_adjectives=3, max_words=5)


def test_traces_are_seeded_and_about_openings_that_are_not_held_out() -> None:
    prompts = settings(num_held_out=200)
    config = load("period-count-tiny")
    held_out = {problem.fields["opening"] for problem in source(prompts.settings, 200, prompts.seed).held_out}
    first = [next(endless) for endless in [traces(prompts, config.traces, 0)] for _ in range(500)]
    second = [next(endless) for endless in [traces(prompts, config.traces, 0)] for _ in range(500)]
    assert first == second
    assert not held_out & {problem.fields["opening"] for problem, _ in first}


def test_a_trace_has_a_token_for_each_word_and_one_for_each_full_stop(tmp_path) -> None:
    config = load("period-count-tiny")
    tokenizer = built_tokenizer(config, tmp_path)
    for example in TraceExamples(config.prompts, config.traces, tokenizer, 0).take(400):
        text = tokenizer.decode(example.completion_ids[:-1])
        assert text.startswith(" ") and text.endswith(".")
        assert len(example.completion_ids) == len(text.split()) + text.count(".") + 1


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("prompts.template=Go on", ["template must show {opening}"]),
        ("prompts.template={opening} {target}", ["['target']", "period_count has ['opening']"]),
        ("prompts.period_count.max_words=3", ["prompts.period_count.max_words = 3"]),
        ("prompts.task=period_cont", ["prompts.task = 'period_cont'", "'period_count'"]),
    ],
)
def test_a_wrong_setting_names_key_value_and_fix(override, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        load("period-count-tiny", [override])
    assert all(part in str(caught.value) for part in parts)


def test_a_word_that_a_built_tokenizer_lacks_is_named() -> None:
    from rollout.prompts.chat import encode

    class Refusing(Bytes):
        def encode(self, text, *, add_special_tokens=True):
            raise Exception("Missing [UNK] token")

    with pytest.raises(ValueError, match=r"prompt train/000000.*cannot encode 'the .*model\.build\.words"):
        PromptStream(settings(), Refusing()).take(1)
    with pytest.raises(ValueError, match="line 3"):
        encode(Refusing(), "text", "line 3", add_special_tokens=False)
