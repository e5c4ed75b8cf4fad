"""The order of a run's prompts: seeded, and taken up where it stopped."""

import json

import pytest

from rollout.prompts.config import PromptsConfig
from rollout.prompts.stream import PromptStream
from tests.support.byte_tokenizer import Bytes


def stream(**changes) -> PromptStream:
    return PromptStream(PromptsConfig(chat=False, template="{numbers_spaced} -> {target}\n", **changes), Bytes())


@pytest.mark.parametrize("position", [0, 1, 12, 29])
def test_the_order_resumes_where_it_stopped(position) -> None:
    whole = stream().take(30)
    first, second = stream(), stream()
    first.take(position)
    second.restore(json.loads(json.dumps(first.state())))
    assert [(p.id, p.text) for p in second.take(30 - position)] == [(p.id, p.text) for p in whole[position:]]


def test_ids_are_the_runs_own_and_the_seed_decides_the_order() -> None:
    whole, other = stream().take(30), stream(seed=1).take(30)
    assert len({prompt.id for prompt in whole}) == 30
    assert [prompt.text for prompt in other] != [prompt.text for prompt in whole]


def test_prompts_say_what_they_are() -> None:
    one = stream(num_held_out=4)
    prompt, held_out = one.take(1)[0], one.held_out()
    assert (prompt.id, prompt.grader, prompt.source) == ("train/000000", "countdown", "countdown")
    assert prompt.difficulty == "3 numbers" and prompt.key.endswith(f"= {prompt.answer['target']}")
    assert [p.id for p in held_out] == [f"held_out/{n:06d}" for n in range(4)]
    assert all("solution" in p.difficulty for p in held_out)


def test_held_out_prompts_do_not_move_with_training() -> None:
    one = stream(num_held_out=20)
    before = [prompt.text for prompt in one.held_out()]
    one.take(50)
    assert [prompt.text for prompt in one.held_out()] == before
    assert [prompt.text for prompt in stream(num_held_out=20).held_out()] == before
