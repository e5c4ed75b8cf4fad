"""A completion made of its turns, and turns as they travel."""

import pickle

import numpy as np

from rewards.environments.calls import called
from rollout.types.turns import CompletionEnd, PackedTurns, SampledTurn, completion_of

NOTHING = np.zeros(0, np.int32)


def turn(said: str, observed: list[int], tokens: list[int], version: int = 0) -> SampledTurn:
    logprobs = -np.array(tokens, np.float32)
    ids, own = np.array(observed, np.int32), np.array(tokens, np.int32)
    return SampledTurn(said, ids, f"[{said}]" if said else "", own, logprobs, "x" * len(tokens), (version,))


def test_turns_follow_one_another_and_keep_who_wrote_what() -> None:
    made = completion_of([turn("", [], [1, 2]), turn("12", [9], [3], version=1)], CompletionEnd("stop", {"moves": 2.0}))
    assert made.token_ids.tolist() == [1, 2, 9, 3] and made.text == "xx[12]x"
    assert made.token_ids[made.policy_tokens].tolist() == [1, 2, 3] == (-made.rollout_logprobs).tolist()
    assert made.policy_text == "xx\nx" and made.policy_versions == (0, 1)
    header = made.header
    assert (header.num_tokens, header.num_turns, header.num_observed_tokens) == (3, 2, 1)
    assert header.parts == {"moves": 2.0} and not header.has_failed and not header.is_truncated


def test_one_turn_without_a_word_of_the_environments_is_a_completion_as_ever() -> None:
    made = completion_of([turn("", [], [1, 2])], CompletionEnd("turns", {}))
    assert made.turns == () and made.header[4:] == (1, 0) and made.is_truncated
    led = completion_of([turn("go", [9, 9], [1, 2])], CompletionEnd("timeout", {}))
    assert led.turns[0][:2] == (2, 4) and led.text[slice(*led.turns[0][2:])] == "xx" and led.has_failed


def test_turns_come_back_whole_and_their_header_is_read_without_them() -> None:
    turns = [turn("", [], [1, 2]), turn("12", [9], [3])]
    packed = pickle.loads(pickle.dumps(PackedTurns.of(("train/1", 3), turns, "observation")))
    assert packed.header == (("train/1", 3), 2, 3, "observation")
    assert [each.token_ids.tolist() for each in packed.unpack()] == [[1, 2], [3]]
    assert packed.unpack()[1].said == "12"


def test_an_environment_hears_nothing_that_a_token_holds_behind_the_stop_text() -> None:
    """SmolLM2 has a token `>.`: all of it was sampled, and the call still ends with its tag."""
    made = turn("", [], [1, 2])._replace(text="2+2 is <calc>2+2</calc>.", stop="</calc>")
    assert made.heard == "2+2 is <calc>2+2</calc>" and called(made.heard, "calc") == "2+2"
    assert completion_of([made], CompletionEnd("stop", {})).text == made.text
    assert made._replace(stop="").heard == made.text == made._replace(stop="</guess>").heard
