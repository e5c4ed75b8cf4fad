"""The engine with vLLM's asynchronous scheduling, which a GPU has and the CPU's platform switches off: here it is on.

When a step returns the next batch is scheduled already, and its tokens are taken a step later, as on a GPU. What a CPU
cannot show is that the batch also computes meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.actor import environment
from rollout.types.sampling import EngineSpec, SamplingRequest
from tests.rollout.engine.test_engine import (
    CONFIG,
    SAMPLING,
    bucket,
    drawn,
    generate,
    largest_gap,
    perturb,
    policy,  # noqa: F401  a fixture
    prompts,
    update_weights,
)
from tests.support.asynchronous_cores import switch_on

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[Any]:
    os.environ.update(environment(CONFIG))
    from rollout.engine.engine import Engine

    with pytest.MonkeyPatch.context() as patch:
        switch_on(patch.setattr)
        started = Engine(
            EngineSpec(str(tiny_model), "float32", 200, load_weights=False), CONFIG, lambda ids: f"{len(ids)}"
        )
        yield started
        started.close()


def test_the_next_batch_is_scheduled_when_a_step_returns(engine: Any) -> None:
    """So that the tests below test something."""

    def look(versioned: Any) -> tuple[bool, int]:
        core = versioned._engine.engine_core.engine_core
        return core.async_scheduling, core.batch_queue_size

    assert engine._loop.call(look) == (True, 2)


def test_it_samples_what_the_weights_say(engine: Any, policy: Any) -> None:  # noqa: F811
    update_weights(engine, [bucket(policy)], version=0)
    groups = generate(engine)
    assert largest_gap(policy, groups, SAMPLING.temperature) < 1e-5
    assert drawn(groups) == drawn(generate(engine))


def test_weights_that_arrive_between_two_steps_are_never_mixed(engine: Any, policy: Any) -> None:  # noqa: F811
    """Equal weights come five times while batches are in flight: half of another version would show as a gap."""
    perturb(policy, 0.02)
    update_weights(engine, [bucket(policy)], version=1)
    groups: list[Any] = []
    request = SamplingRequest(prompts(12), SAMPLING, 4, 3)
    reader = threading.Thread(target=lambda: groups.extend(engine.generate(request)))
    reader.start()
    for version in range(2, 7):
        update_weights(engine, [bucket(policy)], version=version)
    reader.join(timeout=120)
    assert len(groups) == 12 and largest_gap(policy, groups, SAMPLING.temperature) < 1e-5
    versions = [completion.policy_versions for group in groups for completion in group.completions]
    assert max(map(len, versions)) > 1 and all(list(each) == sorted(set(each)) for each in versions)


def test_new_weights_are_used_from_the_next_prompt_on(engine: Any, policy: Any) -> None:  # noqa: F811
    perturb(policy, 0.05)
    update_weights(engine, [bucket(policy)], version=7)
    groups = generate(engine, seed=5)
    assert largest_gap(policy, groups, SAMPLING.temperature) < 1e-5
    assert {completion.policy_versions for group in groups for completion in group.completions} == {(7,)}


def test_prompts_that_are_abandoned_can_be_asked_again(engine: Any, policy: Any) -> None:  # noqa: F811
    request = SamplingRequest(prompts(6), SAMPLING, 4, 9)
    stream = engine.generate(request)
    next(stream)
    engine.abandon()
    assert len(generate(engine, seed=9)) == 6
