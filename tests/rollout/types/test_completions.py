"""A completion of several turns: which of its tokens and words are the policy's."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from rollout.types.completions import Turn
from rollout.types.packed import PackedGroup
from tests.support.groups import in_turns, scored_group

(TWO,) = in_turns(scored_group("a", [True]), "3*4", "=12", "ok").completions


def test_only_the_policys_tokens_and_words_count() -> None:
    assert TWO.num_tokens == TWO.header.num_tokens == 5
    assert TWO.token_ids[TWO.policy_tokens].tolist() == [0, 1, 2, 6, 7]
    assert (TWO.text, TWO.policy_text) == ("3*4=12ok", "3*4\nok")
    assert in_turns(scored_group("a", [True, False]), "3*4", "=12", "ok").num_completion_tokens == 10


def test_without_turns_everything_is_the_policys() -> None:
    (completion,) = scored_group("a", [True], tokens=3, text="no").completions
    assert completion.policy_text is completion.text and completion.num_tokens == 3
    assert np.shares_memory(completion.token_ids[completion.policy_tokens], completion.token_ids)


def test_an_observation_has_no_logprob_that_could_count() -> None:
    with pytest.raises(ValueError, match="a completion of 5 tokens carries 8 logprobs"):
        replace(TWO, rollout_logprobs=np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="a completion of 8 tokens carries 5 logprobs"):
        replace(TWO, turns=())


@pytest.mark.parametrize(
    "turns",
    [
        (Turn(0, 3, 0, 3), Turn(2, 4, 3, 4)),
        (Turn(0, 3, 0, 3), Turn(7, 9, 6, 8)),
        (Turn(0, 3, 0, 3), Turn(6, 8, 2, 8)),
        (Turn(0, 3, 0, 3), Turn(6, 8, 6, 9)),
        (Turn(3, 0, 0, 3), Turn(0, 8, 3, 8)),
        (Turn(-1, 4, 0, 3),),
    ],
)
def test_turns_that_overlap_or_leave_the_completion_are_refused(turns) -> None:
    with pytest.raises(ValueError, match="do not follow one another in a completion of 8 tokens and 8 characters"):
        replace(TWO, turns=turns)


def test_turns_travel_with_their_group() -> None:
    group = in_turns(scored_group("a", [True, False]), "3*4", "=12", "ok")
    packed = pickle.loads(pickle.dumps(PackedGroup.of(group)))
    assert [header.num_tokens for header in packed.completions] == [5, 5]
    assert [each.turns for each in packed.unpack().completions] == [TWO.turns] * 2
