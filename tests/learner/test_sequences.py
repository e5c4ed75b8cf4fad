"""Groups and examples to training sequences."""

from __future__ import annotations

import numpy as np

from learner.sequences import sequence_from_example, sequences_from_groups
from rollout.types.completions import Completion, Group
from rollout.types.prompts import Prompt, SupervisedExample


def completion(*tokens: int, versions: tuple[int, ...] = (1,)) -> Completion:
    logprobs = -np.array(tokens, np.float32)
    return Completion(np.array(tokens, np.int32), logprobs, finish_reason="stop", policy_versions=versions, text="")


def prompt(id: str, *tokens: int) -> Prompt:
    return Prompt(id, np.array(tokens, np.int32), text="", grader="countdown", answer={})


def test_sequences_of_groups_and_of_examples() -> None:
    groups = [
        Group(prompt("a", 1, 2), (completion(3), completion(4, 5))),
        Group(prompt("b", 6), (completion(7), completion(8))),
    ]
    sequences = sequences_from_groups(groups)
    assert [s.token_ids.tolist() for s in sequences] == [[1, 2, 3], [1, 2, 4, 5], [6, 7], [6, 8]]
    assert [(s.index, s.prompt_id, s.num_prompt_tokens) for s in sequences] == [
        (0, "a", 2),
        (1, "a", 2),
        (2, "b", 1),
        (3, "b", 1),
    ]
    assert sequences[1].rollout_logprobs.tolist() == [-4.0, -5.0]
    assert not any(s.has_advantage for s in sequences)

    taught = sequence_from_example(SupervisedExample(np.array([1, 2], np.int32), np.array([3, 4, 5], np.int32)))
    assert (taught.token_ids.tolist(), taught.num_prompt_tokens) == ([1, 2, 3, 4, 5], 2)
    assert taught.advantages.tolist() == [1.0, 1.0, 1.0]
    with_tool = SupervisedExample(np.array([1], np.int32), np.array([3, 9, 5], np.int32), np.array([0, 2]))
    taught = sequence_from_example(with_tool)
    assert (taught.num_completion_tokens, taught.advantages.tolist()) == (2, [1.0, 1.0])
    assert taught.token_ids[1:][taught.policy_tokens].tolist() == [3, 5]


def test_a_completion_is_on_policy_when_no_older_weights_sampled_a_token_of_it() -> None:
    group = Group(prompt("a", 1), tuple(completion(2, versions=versions) for versions in ((1,), (1, 2), (2,))))
    assert [s.is_on_policy for s in sequences_from_groups([group], version=2)] == [False, False, True]
    assert all(s.is_on_policy for s in sequences_from_groups([group]))
