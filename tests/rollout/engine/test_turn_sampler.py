"""Turns of completions on real vLLM: each a request of its own, and together what one request would have sampled."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import AutoTokenizer

from rollout.actor import environment
from rollout.config import RolloutConfig, SamplingConfig
from rollout.prompts.decoding import completion_decoder
from rollout.types.prompts import Prompt
from rollout.types.sampling import EngineSpec, SamplingRequest, TurnRules
from rollout.types.turns import CompletionEnd, NextTurn, PackedTurns, TurnRequest, completion_of
from tests.support.paths import WARM_START

pytestmark = pytest.mark.slow

CONFIG = RolloutConfig(max_concurrent_completions=16)
STOP = " no\n"
RULES = TurnRules({"guess": (STOP,)}, max_turns=8, max_observed_tokens=16, chat=False)
SAMPLING = SamplingConfig(max_completion_tokens=120)
GROUP = 4


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(str(WARM_START))


@pytest.fixture(scope="module")
def engine(tokenizer):
    os.environ.update(environment(CONFIG))
    from rollout.engine.engine import Engine
    from rollout.engine.turns import turn_sampler

    spec = EngineSpec(str(WARM_START), "float32", 256, load_weights=True, reads_text=True, turns=RULES)
    started = Engine(spec, CONFIG, completion_decoder(tokenizer), turn_sampler(spec, tokenizer))
    yield started
    started.close()


@pytest.fixture(scope="module")
def prompt(tokenizer) -> Prompt:
    ids = np.array(tokenizer.encode("Numbers: 3 7 9\nTarget: 33\n<think>"), dtype=np.int32)
    return Prompt("train/000000", ids, "", "countdown", {}, environment="guess")


def first_turns(engine, prompt: Prompt, sampling: SamplingConfig = SAMPLING, said: str = "") -> list[PackedTurns]:
    request = TurnRequest(tuple(NextTurn(prompt, index, None, said) for index in range(GROUP)), sampling, seed=0)
    return sorted(engine.sample_turns(request, []), key=lambda packed: packed.header.key)


def go_on(engine, prompt: Prompt, packed: PackedTurns, said: str, sampling: SamplingConfig = SAMPLING) -> PackedTurns:
    turn = NextTurn(prompt, packed.header.key[1], 0, said)
    (longer,) = engine.sample_turns(TurnRequest((turn,), sampling, seed=0), [packed])
    return longer


def stopped(engine, prompt: Prompt) -> PackedTurns:
    return next(packed for packed in first_turns(engine, prompt) if packed.header.end == "observation")


def test_first_turns_are_those_of_a_single_turn_run_bit_for_bit(engine, prompt) -> None:
    alone = SAMPLING.model_copy(update={"stop": (STOP,)})
    (group,) = engine.generate(SamplingRequest((prompt,), alone, GROUP, seed=0))
    turns = [packed.unpack() for packed in first_turns(engine, prompt)]
    for completion, (turn,) in zip(group.completions, turns, strict=True):
        assert turn.token_ids.tolist() == completion.token_ids.tolist()
        assert turn.logprobs.tobytes() == completion.rollout_logprobs.tobytes()
        assert (turn.text, turn.policy_versions) == (completion.text, completion.policy_versions)
        assert completion_of([turn], CompletionEnd(completion.finish_reason, {})).turns == ()


def test_a_turn_goes_on_behind_the_very_tokens_and_what_was_said(engine, prompt, tokenizer) -> None:
    """The greedy next turn is that of one prompt with all the tokens before it."""
    greedy = SAMPLING.model_copy(update={"temperature": 0.0})
    before = stopped(engine, prompt)
    packed = go_on(engine, prompt, before, "9-3=6: ", greedy)
    first, second = packed.unpack()
    assert first.token_ids.tolist() == before.unpack()[0].token_ids.tolist()
    assert tokenizer.decode(second.observed_ids) == second.observed_text == second.said == "9-3=6: "
    whole = replace(prompt, token_ids=np.concatenate([prompt.token_ids, first.token_ids, second.observed_ids]))
    left = SAMPLING.max_completion_tokens - len(first.token_ids)
    settings = greedy.model_copy(update={"stop": (STOP,), "max_completion_tokens": left})
    (group,) = engine.generate(SamplingRequest((whole,), settings, 1, seed=0))
    assert second.token_ids.tolist() == group.completions[0].token_ids.tolist()
    np.testing.assert_allclose(second.logprobs, group.completions[0].rollout_logprobs, atol=1e-5)
    completion = completion_of(packed.unpack(), CompletionEnd("stop", {"moves": 2.0}))
    assert completion.text[slice(*completion.turns[1][2:])] == second.text
    assert completion.token_ids[completion.policy_tokens].tolist() == [*first.token_ids, *second.token_ids]
    assert packed.header.num_tokens == completion.num_tokens == len(completion.rollout_logprobs)


def test_the_same_turn_is_sampled_again_under_the_same_id(engine, prompt) -> None:
    before = stopped(engine, prompt)
    again = [go_on(engine, prompt, before, "9-3=6: ").unpack()[1].token_ids.tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_limits_end_a_completion_without_another_turn(engine, prompt) -> None:
    before = stopped(engine, prompt)
    spent = SAMPLING.model_copy(update={"max_completion_tokens": before.header.num_tokens})
    assert go_on(engine, prompt, before, "9-3=6: ", spent).header == before.header._replace(end="length")
    full = go_on(engine, prompt, before, "9-3=6: " * 20)
    assert len(full.unpack()[1].observed_ids) == RULES.max_observed_tokens
    if full.header.end == "observation":
        assert go_on(engine, prompt, full, "9-3=6: ").header == full.header._replace(end="length")


def test_what_has_no_tokens_ends_a_completion_and_not_the_run(engine, prompt) -> None:
    before = stopped(engine, prompt)
    assert go_on(engine, prompt, before, "größer?").header == before.header._replace(end="unreadable")
    unread = first_turns(engine, prompt, said="größer?")
    assert {packed.header.end for packed in unread} == {"unreadable"}
    assert all(packed.header.num_tokens > 0 for packed in unread)


def test_what_is_said_before_the_first_turn_stands_before_it(engine, prompt) -> None:
    (turn,) = first_turns(engine, prompt, said="9-3=6: ")[0].unpack()
    completion = completion_of([turn], CompletionEnd("stop", {}))
    assert completion.turns[0].start == len(turn.observed_ids) > 0
    assert completion.text == "9-3=6: " + turn.text


def test_a_turn_keeps_the_stop_text_that_ended_it_inside_a_token(prompt) -> None:
    from rollout.engine.turns import TurnSampler

    def ended(reason: str) -> SimpleNamespace:
        flat = SimpleNamespace(logprobs=[-0.5], start_indices=[0])
        versions = [SimpleNamespace(version="3")]
        made = SimpleNamespace(
            token_ids=[7], logprobs=flat, weight_versions=versions, finish_reason="stop", stop_reason=reason
        )
        return SimpleNamespace(request_id="train/000000/0/0", outputs=[made])

    encoder = SimpleNamespace(least=1)
    sampler = TurnSampler(RULES, encoder, lambda _: "3 no\n)")
    request = TurnRequest((NextTurn(prompt, 0, None, ""),), SAMPLING, seed=0)
    for reason, heard in ((STOP, "3 no\n"), (")", "3 no\n)")):
        sampled = ended(reason)
        (packed,) = sampler.sample(request, [], lambda _, sampled=sampled: iter([sampled]))
        (turn,) = packed.unpack()
        assert (turn.text, turn.heard) == ("3 no\n)", heard)
