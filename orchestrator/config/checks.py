"""Find settings that are valid one by one but wrong together. Every message names the key, the value and the fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

from learner.checks import check_together
from learner.config import OptimizerConfig
from orchestrator.cluster.layout import Mode
from orchestrator.config.environments import entry_parts, environment_conflicts
from orchestrator.config.schema import RunConfig
from rewards.config import RewardConfigError, RewardsConfig
from rewards.parts.format import LEAD_IN
from rewards.registry import check, functions_of
from rollout.types.names import short_name
from rollout.types.publishing import TransportName

BEST_TRANSPORT: dict[Mode, TransportName] = {"cpu": "ray", "colocated": "ipc", "pods": "nccl"}
"""The transport of `rollout.publish_backend = "auto"`, by placement."""
UNFIT = {
    "ipc": "it passes buffers within a GPU that generator and learner share",
    "nccl": "it joins processes that have a GPU each",
}
"""Why a transport does not work in other placements."""


def conflicts(config: RunConfig) -> Iterator[str]:
    """Yield the errors because of which these settings cannot be trained. Start nothing."""
    yield from supervised_conflicts(config)
    yield from batch_conflicts(config)
    yield from environment_conflicts(config)
    yield from length_conflicts(config)
    yield from build_conflicts(config)
    yield from reward_conflicts(config)
    if config.placement.mode == "colocated":
        yield from colocated_conflicts(config)
    if config.placement.mode != "auto":
        yield from mistakes_of(resolve_transport, config.rollout.publish_backend, config.placement.mode)
    if config.rollout.hang_timeout_s >= config.rollout.stall_timeout_s:
        yield (
            f"rollout.hang_timeout_s = {config.rollout.hang_timeout_s:g} is not below rollout.stall_timeout_s = "
            f"{config.rollout.stall_timeout_s:g}: the run would stop before a generator that hangs is replaced; "
            "lower it"
        )
    yield from deadline_conflicts(config)


def deadline_conflicts(config: RunConfig) -> Iterator[str]:
    """Yield an error for each reward function whose deadline is so long that the run would stop before it."""
    rewards, stall_s = config.rewards, config.rollout.stall_timeout_s
    deadlines = {f"rewards.deadlines_s.{name}": rewards.deadline_of(name) for name in rewards.judges}
    deadlines |= {f"rewards.deadlines_s.{name}": deadline_s for name, deadline_s in rewards.deadlines_s.items()}
    for key, deadline_s in {"rewards.deadline_s": rewards.deadline_s, **deadlines}.items():
        if deadline_s >= stall_s:
            yield (
                f"{key} = {deadline_s:g} is not below rollout.stall_timeout_s = {stall_s:g}: the run would stop before "
                "a function that hangs is given up; lower it, or raise rollout.stall_timeout_s"
            )


def supervised_conflicts(config: RunConfig) -> Iterator[str]:
    """Yield the errors that also apply to `rayzero sft`, which neither samples nor grades."""
    yield from mistakes_of(check_together, config.learner, config.model)
    yield from warm_start_conflicts(config)


def resolve_transport(setting: Literal["auto", TransportName], mode: Mode) -> TransportName:
    """Return the transport for `rollout.publish_backend = setting` in the placement `mode`.

    Raises ValueError for a transport that cannot work in that placement.
    """
    best = BEST_TRANSPORT[mode]
    if setting in ("auto", "ray", best):
        return best if setting == "auto" else setting
    raise ValueError(
        f'rollout.publish_backend = "{setting}" does not work where placement is "{mode}": {UNFIT[setting]}; '
        f'set it to "{best}"' + ("" if best == "ray" else ' or "ray"') + ', or leave it at "auto"'
    )


def doubts(config: RunConfig, *, supervised_only: bool) -> Iterator[str]:
    """Yield warnings about settings that are valid but most likely a mistake."""
    phases: list[tuple[str, OptimizerConfig, int]] = [("warm_start", config.warm_start, config.warm_start.num_steps)]
    if not supervised_only:
        phases.append(("learner", config.learner, config.num_steps * config.learner.updates_per_step))
    for key, optimizer, steps in phases:
        if 0 < steps < optimizer.warmup_steps:
            yield (
                f"{key}.warmup_steps = {optimizer.warmup_steps} is more than the {steps} optimizer steps of the run: "
                f"the learning rate ends at {steps / optimizer.warmup_steps:.0%} of {key}.learning_rate; lower it"
            )


def warm_start_conflicts(config: RunConfig) -> Iterator[str]:
    """Yield the errors because of which no traces can be made for the warm start."""
    if config.warm_start.num_steps == 0 or config.warm_start.data is not None:
        return
    if config.model.build is None and not config.warm_start.pretrained:
        yield (
            f"warm_start.num_steps = {config.warm_start.num_steps} with model.path: synthetic traces are for a policy "
            "from model.build; set warm_start.data to a JSONL file of prompt and completion, warm_start.num_steps = 0, "
            "or, with a warm_start.learning_rate for a pretrained model, warm_start.pretrained = true"
        )
    yield from mistakes_of(config.prompts.check_traces)


def batch_conflicts(config: RunConfig) -> Iterator[str]:
    """Yield an error if nothing can be learned from a batch, or if it cannot be divided into the updates."""
    if config.sampling.temperature == 0:
        yield (
            "sampling.temperature = 0: every completion of a group would be the same and nothing could be learned; "
            "set it above 0, usually to 1"
        )
    if config.prompts_per_step % config.learner.updates_per_step:
        yield (
            f"learner.updates_per_step = {config.learner.updates_per_step} does not divide prompts_per_step = "
            f"{config.prompts_per_step}: each optimizer step trains on as many groups; set it to one of "
            f"{divisors(config.prompts_per_step)}"
        )
    algorithm = config.learner.algorithm
    if config.group_size == 1 and algorithm.needs_groups:
        yield (
            f'group_size = 1 with learner.algorithm.baseline = "{algorithm.baseline}", which compares the completions '
            "of a prompt: every advantage would be 0; set group_size to 2 at least, 8 is usual"
        )


def length_conflicts(config: RunConfig) -> Iterator[str]:
    """Yield an error for each limit that is too low for the longest sequence."""
    overlong = config.learner.algorithm.overlong_buffer_tokens
    if overlong >= config.sampling.max_completion_tokens:
        yield (
            f"learner.algorithm.overlong_buffer_tokens = {overlong} is not below sampling.max_completion_tokens = "
            f"{config.sampling.max_completion_tokens}: every completion would be penalized; lower it"
        )
    if config.max_model_len > config.learner.max_tokens_per_microbatch:
        yield (
            f"learner.max_tokens_per_microbatch = {config.learner.max_tokens_per_microbatch} is below the longest "
            f"sequence, {config.longest_sequence} = {config.max_model_len}: raise it"
        )


def build_conflicts(config: RunConfig) -> Iterator[str]:
    """Yield an error for each setting of the prompts that does not fit a policy from `model.build`."""
    build = config.model.build
    if build is None:
        return
    if config.max_model_len > build.max_position_embeddings:
        yield (
            f"model.build.max_position_embeddings = {build.max_position_embeddings} is below "
            f"{config.longest_sequence} = {config.max_model_len}: raise it"
        )
    if config.prompts.chat:
        yield "prompts.chat = true with model.build: a built tokenizer has no chat template; set it to false"
    for task in config.prompts.tasks.values():
        yield from mistakes_of(task.check_max_integer, build.max_integer)


def colocated_conflicts(config: RunConfig) -> Iterator[str]:
    """Yield the errors because of which generator i and learner rank i cannot take turns on GPU i."""
    generators, ranks = config.rollout.num_generators, config.learner.num_ranks
    if generators != ranks:
        yield (
            f'rollout.num_generators = {generators} and learner.num_ranks = {ranks} with placement.mode = "colocated": '
            'each generator shares its GPU with one rank; set both to the number of GPUs, or placement.mode = "pods"'
        )
    if config.rollout.tensor_parallel_size > 1:
        yield (
            f"rollout.tensor_parallel_size = {config.rollout.tensor_parallel_size} with placement.mode = "
            '"colocated": a generator shares one GPU with one rank; set it to 1, or placement.mode = "pods"'
        )
    if config.max_staleness > 0:
        yield (
            f'max_staleness = {config.max_staleness} with placement.mode = "colocated": generators sleep during the '
            'update; set max_staleness = 0, or placement.mode = "pods"'
        )


def reward_conflicts(config: RunConfig) -> Iterator[str]:
    """Yield an error for each reward setting that does not fit the tasks, or the format of the prompts."""
    parts: dict[str, set[str]] = {}
    entries = config.prompts.tasks  # by name, because two entries of one task may have different graders
    graders, own = {task.grader for task in entries.values()}, entry_parts(config)
    given = {part for given in own.values() for part in given}
    if doubled := [name for name, count in Counter(map(short_name, graders)).items() if count > 1]:
        yield f"prompts.mixture: two graders are called {doubled[0]!r}, of {sorted(graders)}: rename the module of one"
    for name, task in entries.items():
        try:
            check(task.grader, config.rewards, graders, given)
        except RewardConfigError as error:
            yield str(error)
            return
        functions = functions_of(task.grader, config.rewards, given)
        parts[name] = {part for function in functions for part in function.parts}
    yield from correctness_conflicts(config, parts)
    rewards = config.rewards
    paid = {part for name, weight in rewards.weights.items() if weight for part in members_of(name, rewards)}
    for name in entries:
        if paid <= given - {*own[name]}:
            yield (
                f"rewards.weights = {rewards.weights}: {', '.join(sorted(paid))} come from environments of other "
                f"entries, so all completions of prompts.mixture.{name} would fail: also give a weight "
                "to a part that these completions have"
            )
    weighed = {*rewards.weights, *(name for each in rewards.ensembles.values() for name in each.weights)}
    lead_in = config.prompts.assistant_prefix.partition("<think>")[0].strip()
    allowed = str(rewards.parameters.get("format", {}).get("lead_in", LEAD_IN)).strip()
    if "format" in weighed and lead_in not in ("", allowed):
        yield (
            f"prompts.assistant_prefix begins with {lead_in!r}, which the part format would count as a mistake in "
            f"every completion: set rewards.parameters.format.lead_in = {lead_in!r}"
        )


def members_of(name: str, rewards: RewardsConfig) -> Collection[str]:
    """Return the members of the ensemble `name`; if it is not an ensemble but a part, only its own name."""
    return rewards.ensembles[name].weights if name in rewards.ensembles else (name,)


def correctness_conflicts(config: RunConfig, parts: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield an error for each pass rate that is required but unknown; `parts` are the reward parts by entry name."""
    ungraded = sorted(name for name, names in parts.items() if "correctness" not in names)
    answers = [f"answers of {name!r}, graded by {config.prompts.tasks[name].grader}," for name in ungraded]
    rates = [stage.pass_rate for stage in config.prompts.curriculum.stages if stage.pass_rate is not None]
    if ungraded and len(ungraded) < len(parts):
        yield (
            f"prompts.mixture: {answers[0]} are not right or wrong (no part correctness), those of "
            "others are: the mixture has no pass rate; train on that entry in a run of its own"
        )
    elif ungraded and rates:
        yield (
            f"prompts.curriculum.stages: pass_rate = {rates[0]}, but {answers[0]} are not right or wrong (no part "
            "correctness): end that stage by num_steps"
        )


def mistakes_of(check_settings: Callable[..., object], *arguments: Any) -> Iterator[str]:
    """Yield the message of the ValueError that a check raises, if it raises one."""
    try:
        check_settings(*arguments)
    except ValueError as error:
        yield str(error)


def divisors(number: int) -> list[int]:
    """Return the divisors of a number that a setting may have: up to 1,024."""
    return [divisor for divisor in range(1, min(number, 1024) + 1) if number % divisor == 0]
