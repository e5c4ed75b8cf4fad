"""How much a slow generator delays the others: steps sampled by generators of unequal speed, without their machines."""

from types import SimpleNamespace

import pytest

from orchestrator.fleet.assignment import PromptRequest, Throughput, assign_requests
from rollout.config import SamplingConfig
from rollout.types.sampling import SamplingRequest

PROMPTS_PER_STEP, NUM_STEPS = 12, 100


def request(number: int) -> PromptRequest:
    prompt = SimpleNamespace(id=f"train/{number}")
    return PromptRequest(prompt, SamplingRequest((), SamplingConfig(), 4, 0), 0.0)


def seconds_per_step(groups_per_s: dict[str, float], max_staleness: int) -> float:
    """Of a loop that only samples: it asks for a step `max_staleness` steps before it gathers it.

    Each generator samples one group after the other.
    """
    now, idle_from = 0.0, dict.fromkeys(groups_per_s, 0.0)
    finished: dict[int, list[tuple[str, float]]] = {}
    for step in range(NUM_STEPS):
        for later in range(step, step + max_staleness + 1):
            if later in finished:
                continue
            unfinished = [who for ends in finished.values() for who, end in ends if end > now]
            shares = assign_requests(
                [request(number) for number in range(PROMPTS_PER_STEP)],
                {name: unfinished.count(name) for name in groups_per_s},
            )
            finished[later] = []
            for name, share in shares.items():
                for _ in share:
                    idle_from[name] = max(now, idle_from[name]) + 1 / groups_per_s[name]
                    finished[later].append((name, idle_from[name]))
        now = max(now, *(end for _, end in finished[step]))
    return now / NUM_STEPS


@pytest.mark.parametrize(("slowness", "max_staleness"), [(1, 0), (1, 1), (1.5, 1), (2, 1), (2, 2), (3, 2)])
def test_a_generator_up_to_one_more_than_the_staleness_times_as_slow_delays_nobody(slowness, max_staleness) -> None:
    speeds = {"generator-0": 1.0, "generator-1": 1 / slowness}
    both_always_busy = PROMPTS_PER_STEP / sum(speeds.values())
    assert seconds_per_step(speeds, max_staleness) < 1.05 * both_always_busy


def test_without_staleness_every_step_waits_for_the_slow_one() -> None:
    """The assignment is fixed then, so that a resumed run repeats it."""
    assert seconds_per_step({"generator-0": 1.0, "generator-1": 0.5}, 0) == PROMPTS_PER_STEP / 2 / 0.5


def test_a_much_slower_one_is_waited_for_less_than_if_it_had_its_half() -> None:
    speeds = {"generator-0": 1.0, "generator-1": 0.1}
    assert seconds_per_step(speeds, 1) < 0.7 * PROMPTS_PER_STEP / 2 / 0.1


def after(now: float, before: Throughput, *times: tuple[float, float], asked: float, monkeypatch) -> Throughput:
    """Each group has 100 tokens."""
    monkeypatch.setattr("orchestrator.fleet.assignment.time.monotonic", lambda: now)
    return before.after([SimpleNamespace(num_completion_tokens=100) for _ in times], times, asked)


def test_groups_that_were_graded_before_anybody_asked_for_them_are_not_waited_for(monkeypatch) -> None:
    """Sampling ran ahead during an update of a minute: grading delays nothing."""
    found = after(60.0, Throughput(), (0.0, 4.0), (0.0, 5.0), asked=60.0, monkeypatch=monkeypatch)
    assert found.reward_wait_s == 0.0 and found.tokens_per_s == 200 / 5
    late = after(62.0, Throughput(), (0.0, 4.0), (0.0, 5.0), asked=60.0, monkeypatch=monkeypatch)
    assert late.reward_wait_s == 2.0
    plain = after(7.0, Throughput(), (0.0, 4.0), (0.0, 5.0), asked=0.0, monkeypatch=monkeypatch)
    assert plain.reward_wait_s == 2.0


def test_groups_that_came_before_the_last_of_an_earlier_step_still_have_a_speed(monkeypatch) -> None:
    earlier = after(20.0, Throughput(), (0.0, 20.0), asked=0.0, monkeypatch=monkeypatch).next_step()
    found = after(21.0, earlier, (5.0, 15.0), asked=20.5, monkeypatch=monkeypatch)
    assert found.tokens_per_s == 100 / 10


def test_all_rounds_of_a_step_count(monkeypatch) -> None:
    """The last round may have one group, and its speed is not the step's."""
    first = after(11.0, Throughput(), *[(0.0, 10.0)] * 9, asked=0.0, monkeypatch=monkeypatch)
    second = after(23.0, first, (11.0, 21.0), asked=11.0, monkeypatch=monkeypatch)
    assert second.tokens_per_s == 1000 / 20 and second.reward_wait_s == 3.0
    assert second.next_step() == Throughput(21.0)
