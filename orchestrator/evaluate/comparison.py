"""Compare several models on the same held-out prompts in several formats, one after the other on one cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from orchestrator.cluster.layout import EVALUATION
from orchestrator.cluster.placement import Placement
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.cluster.shared_folders import check_folders
from orchestrator.config.precision import slow_bfloat16
from orchestrator.config.recipe import ConfigError
from orchestrator.config.resolve import resolve
from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.evaluation import Evaluation, evaluate, held_out_prompts, num_right
from orchestrator.evaluate.models import NamedModel, tokenizer_of
from orchestrator.evaluate.statistics import Difference, paired_difference
from orchestrator.fleet.fleet import RolloutFleet
from orchestrator.inspection import leave_out_bad_rows
from orchestrator.plan.model_fits import check_context
from rollout.prompts.mixture import Mixture
from rollout.prompts.stream import PromptStream
from rollout.types.prompts import Prompt, PromptFormat

PromptsByFormat = Mapping[PromptFormat, Sequence[Prompt]]


@dataclass(frozen=True, slots=True)
class ModelResult:
    """The evaluation of one model in one format."""

    model: NamedModel
    format: PromptFormat
    evaluation: Evaluation
    difference: Difference | None
    """In pass@1, to the first model in the same format; None for that model itself, and without right answers."""


def prompts_of(model: NamedModel, config: RunConfig, problems: Mixture | None = None) -> PromptsByFormat:
    """Return the held-out prompts as the model reads them, in the formats that the recipe names, or else its own.

    They may be longer than `prompts.max_prompt_tokens`: another format than the run's may need more than it reserved.
    Raises PolicyError when there is no such model, and ConfigError when the model cannot be asked so.
    """
    tokenizer = tokenizer_of(model.path)
    found: dict[PromptFormat, Sequence[Prompt]] = {}
    try:
        asked = config.prompts.model_copy(update={"max_prompt_tokens": sys.maxsize})
        problems = problems or Mixture(asked)
        leave_out_bad_rows(config.model_copy(update={"prompts": asked}), problems, tokenizer, only_held_out=True)
        stream = PromptStream(asked, tokenizer, problems)
    except ValueError as error:
        raise ConfigError(f"{model.name} cannot be asked: {error}") from error
    for format in dict.fromkeys(config.evaluation.formats or (config.prompts.format,)):
        try:
            stream.held_out(format)
        except ValueError as error:
            raise ConfigError(f"{model.name} cannot be asked in the format {format}: {error}") from error
        found[format] = held_out_prompts(stream, format, config)
    return found


def with_room_for(prompts: Mapping[str, PromptsByFormat], config: RunConfig) -> RunConfig:
    """Return the settings with `prompts.max_prompt_tokens` raised to the longest prompt, where that is longer."""
    longest = max(
        len(prompt.token_ids) for formats in prompts.values() for asked in formats.values() for prompt in asked
    )
    settings = {"max_prompt_tokens": max(longest, config.prompts.max_prompt_tokens)}
    return config.model_copy(update={"prompts": config.prompts.model_copy(update=settings)})


def compare(
    models: Sequence[NamedModel], prompts: Mapping[str, PromptsByFormat], config: RunConfig, console: Console
) -> list[ModelResult]:
    """Evaluate every model in every format, and compare each with the first model.

    Args:
        models: their engines are started and ended one after the other; only one holds memory at a time.
        prompts: by the model's name; the same problems for all.

    Raises PolicyError, before anything is sampled, for a model that does not hold prompt and completion.
    """
    for model in models:
        check_context(config, model.folder)
    if slow := slow_bfloat16(config.model.dtype, config.placement.mode):
        console.print(slow, style="yellow", highlight=False, markup=False)
    results: list[ModelResult] = []
    with ray_cluster(dashboard=config.placement.dashboard):
        for position, model in enumerate(models):
            said = f"sampling {model.name} ({position + 1} of {len(models)})"
            console.print(said, style="dim", highlight=False, markup=False)
            with running_fleet(model, position, config) as fleet:
                for format, asked in prompts[model.name].items():
                    evaluation = evaluate(fleet.rollouts, asked, config)
                    baseline = next((result.evaluation for result in results if result.format == format), None)
                    results.append(ModelResult(model, format, evaluation, compare_pass_at_1(evaluation, baseline)))
    return results


@contextmanager
def running_fleet(model: NamedModel, position: int, config: RunConfig) -> Iterator[RolloutFleet]:
    """Start a fleet that samples from the model, and close it at the end."""
    # The name of an actor that was killed is not free at once, so each model's fleet has names of its own.
    config = config.model_copy(update={"name": f"{config.name}-{position}"})
    with Placement.of(config, EVALUATION) as placement:
        run = resolve(config, placement.layout, model.folder, placement.gpu_gib, placement.free_share)
        check_folders(placement, model.folder, {})
        fleet = RolloutFleet(run, placement)
        try:
            fleet.wait_until_ready()
            yield fleet
        finally:
            fleet.close()


def compare_pass_at_1(evaluation: Evaluation, baseline: Evaluation | None) -> Difference | None:
    """Return the difference in pass@1, paired over prompts; None without a baseline or without right answers."""
    if baseline is None or not evaluation.pass_at:
        return None
    right, theirs = ([num_right(group) for group in found.groups] for found in (evaluation, baseline))
    return paired_difference(right, theirs, len(evaluation.groups[0].completions))
