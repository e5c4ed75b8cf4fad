"""One completion of several turns in this process: an engine, and a reward worker whose environment answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from orchestrator.config.environments import environment_specs
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.assignment import PromptRequest
from orchestrator.fleet.open_completions import EnvironmentCall
from orchestrator.fleet.turns import TurnRouter
from rewards.workers.worker import RewardWorker
from rollout.types.completions import Completion
from rollout.types.environments import EnvironmentAnswer
from rollout.types.prompts import Prompt
from rollout.types.sampling import SamplingRequest, SamplingSettings
from rollout.types.turns import PackedTurns, completion_of

if TYPE_CHECKING:
    from rollout.engine.engine import Engine

ENGINE = "engine"


async def converse(
    engine: Engine,
    prompt: Prompt,
    sampling: SamplingSettings,
    config: RunConfig,
    told: Callable[[str, bool], None],
) -> Completion:
    """Return a completion of several turns, sampled and answered as in a run.

    Args:
        told: called with each text as it comes, and whether the environment says it.
    """
    router = TurnRouter(config.environment.max_turns, in_rounds=False)
    worker, specs = RewardWorker(config.rewards.memory_gib), environment_specs(config)

    async def answer(call: EnvironmentCall) -> EnvironmentAnswer:
        packed = [] if call.turns is None else [call.turns]
        request = call.request._replace(place=0 if packed else None)
        reports = [report async for report in worker.answer_turns(specs, [tuple(request)], *packed)]
        (found,) = (EnvironmentAnswer(*each) for report in reports for each in report)
        return found

    settings = SamplingRequest((), sampling, group_size=1, seed=config.seed)
    num_told = 0
    router.begin(ENGINE, [PromptRequest(prompt, settings, 0.0)])
    try:
        while not (ended := list(router.to_assemble())):
            for call in router.to_ask():
                heard = await answer(call)
                told(heard.text if heard.status == "ok" else f"[{heard.status}: {heard.reason}]", True)
                router.answered(heard)
            for packed in sampled(engine, router):
                if packed.header.num_turns > num_told:  # else what was heard found no room, and no turn followed
                    told(packed.unpack()[-1].text, False)
                    num_told = packed.header.num_turns
                router.took(packed.header, packed)
    finally:
        await worker.close()
    (group,) = ended
    return completion_of(group.turns[0].unpack(), group.endings[0])


def sampled(engine: Engine, router: TurnRouter) -> Iterator[PackedTurns]:
    """Yield the turns that are due."""
    for call in router.to_sample():
        yield from engine.sample_turns(call.request, call.past)
