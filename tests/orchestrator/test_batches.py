"""Which prompts each step trains on when sampling runs ahead, and what a resumed run asks for again."""

import json

import numpy as np
import pytest

from orchestrator.batches import StaleGroupError, StepBatches, as_json, from_json
from orchestrator.config.recipe import load
from rewards.tasks.exact_match import score
from rollout.types.numbers import written_float
from rollout.types.prompts import Prompt
from tests.support.groups import scored_group


class FakePrompts:
    """Numbered prompts."""

    def __init__(self) -> None:
        self.position = 0

    def take(self, count):
        self.position += count
        return [prompt(number) for number in range(self.position - count, self.position)]

    def state(self):
        return {"position": self.position}

    def restore(self, state):
        self.position = state["position"]


def prompt(number: int) -> Prompt:
    return Prompt(f"train/{number}", np.arange(number, dtype=np.int32), "q", "countdown", {"numbers": [1, number]})


class FakeRollouts:
    """Samples with the version of when it was asked, and remembers what for."""

    def __init__(self, without_spread=()) -> None:
        self.version = 0
        self.asked: dict[str, tuple[int, Prompt]] = {}
        self.in_flight: list[str] = []
        self._without_spread = without_spread

    def submit(self, request):
        prompts = request.prompts
        assert not {prompt.id for prompt in prompts} & {*self.in_flight}, "asked for twice"
        self.asked |= {prompt.id: (self.version, prompt) for prompt in prompts}
        self.in_flight += [prompt.id for prompt in prompts]

    def gather(self, prompts):
        for each in prompts:
            self.in_flight.remove(each.id)
        return [
            scored_group(each.id, [True, each.id in self._without_spread], version=self.asked[each.id][0])
            for each in prompts
        ]


def sampler(rollouts, prompts, *overrides: str, staleness: int = 1) -> StepBatches:
    settings = ["num_steps=5", "prompts_per_step=2", "group_size=2", f"max_staleness={staleness}", *overrides]
    return StepBatches(rollouts, prompts, load("countdown-tiny", settings))


def run(sampler, rollouts, steps) -> dict[int, list[str]]:
    trained = {}
    for step in steps:
        rollouts.version = step - 1
        trained[step] = [group.prompt.id for group in sampler.sample(step).groups]
    return trained


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_every_step_trains_on_its_own_prompts_however_far_sampling_runs_ahead(staleness: int) -> None:
    rollouts = FakeRollouts()
    trained = run(sampler(rollouts, FakePrompts(), staleness=staleness), rollouts, range(1, 6))
    assert trained == {step: [f"train/{2 * step - 2}", f"train/{2 * step - 1}"] for step in range(1, 6)}
    versions = [rollouts.asked[prompts[0]][0] for prompts in trained.values()]
    assert versions == [max(0, step - 1 - staleness) for step in range(1, 6)]
    assert not rollouts.in_flight, "nothing is asked for beyond the last step"


@pytest.mark.parametrize("last", [1, 2, 4])
def test_a_resumed_run_asks_again_for_what_was_in_flight(last: int) -> None:
    rollouts, prompts = FakeRollouts(without_spread={"train/1"}), FakePrompts()
    undisturbed = sampler(rollouts, prompts, "learner.algorithm.resample_rounds=1", staleness=2)
    trained = run(undisturbed, rollouts, range(1, last + 1))
    state = json.loads(json.dumps(undisturbed.state()))
    asked = dict(rollouts.asked)
    expected = run(undisturbed, rollouts, range(last + 1, 6))

    again, fresh = FakeRollouts(), FakePrompts()
    again.version = last
    resumed = sampler(again, fresh, "learner.algorithm.resample_rounds=1", staleness=2)
    resumed.restore(state)
    for name in again.in_flight:
        before, now = asked[name][1], again.asked[name][1]
        assert before.token_ids.tolist() == now.token_ids.tolist() and now.token_ids.dtype == np.int32
        assert (before.answer, before.grader, before.text) == (now.answer, now.grader, now.text)
    assert run(resumed, again, range(last + 1, 6)) == expected
    assert trained[1] == ["train/0", "train/6"], "the prompt without spread is replaced by one beyond those in flight"


def test_a_prompt_in_flight_is_graded_as_before_when_the_run_is_resumed() -> None:
    """Its reference is compared as it was written in the rows; before format 3 the state had it as a number."""
    reference = {"answer": written_float("2.50"), "options": {"a": [1, None, "ü\ud800"]}}
    prompt = Prompt("train/0", np.arange(3, dtype=np.int32), "how much?", "exact_match", reference)
    resumed = from_json(json.loads(json.dumps(as_json(prompt))))
    right = "<answer>2.50</answer>"
    assert score(right, resumed.answer) == score(right, prompt.answer) == {"correctness": 1.0}
    assert resumed.answer == reference
    earlier = from_json(as_json(prompt) | {"answer": {"answer": 2.5}})
    assert earlier.answer == {"answer": 2.5}


def test_a_generator_with_other_weights_than_allowed_stops_the_run() -> None:
    rollouts = FakeRollouts()
    behind = sampler(rollouts, FakePrompts(), staleness=1)
    behind.sample(1)
    with pytest.raises(StaleGroupError, match=r"step 3 trains on samples of policy versions 1 to 2.*by \[0\]"):
        behind.sample(3)
