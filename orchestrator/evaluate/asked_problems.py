"""The problems of an evaluation: held out as the models' runs held them out, and of the data that they trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.models import NamedModel, run_settings
from orchestrator.records.checkpoints import Checkpoints
from orchestrator.records.origin.fingerprints import Fingerprints, check_changes, read_summary
from rollout.problems.listed import SplitRule
from rollout.prompts.config import PromptsConfig
from rollout.prompts.entry_fingerprints import fingerprints
from rollout.prompts.mixture import Mixture
from rollout.prompts.stream import split_rule


class Run(NamedTuple):
    """The run that a model came from."""

    model: str
    folder: Path
    prompts: PromptsConfig

    @property
    def split(self) -> SplitRule:
        """How it chose its held-out problems."""
        summary = read_summary(self.folder)
        if summary is not None:
            split: SplitRule = summary["split"]
            return split
        latest = Checkpoints(self.folder / "checkpoints", keep=1).latest()
        return "by_position" if latest is None else split_rule(latest.prompts)


def asked_problems(models: Sequence[NamedModel], config: RunConfig) -> Mixture:
    """Return the problems that the models are asked.

    Only runs whose recipe asks the same questions count: `--recipe` with another recipe asks for other questions.

    Raises ConfigError where the data has changed since a run, unless `checkpoint.allow_changes` says to go on, where
    two runs held out other problems of the same data, and where there are no such problems.
    """
    runs = [run for run in map(run_of, models) if run and questions(run.prompts) == questions(config.prompts)]
    splits: dict[SplitRule, str] = {}
    for run in runs:
        splits.setdefault(run.split, run.model)
    default: SplitRule = "by_key"
    try:
        problems = {split: Mixture(config.prompts, split) for split in splits or [default]}
    except ValueError as error:
        raise ConfigError(f"the models cannot be asked: {error}") from error
    if len({frozenset(held_out.problem.key for held_out in each.held_out) for each in problems.values()}) > 1:
        raise ConfigError(
            f"{' and '.join(splits.values())} come from runs that held out other problems of the same data, as their "
            "versions did: each may have been trained on the other's. Evaluate them one by one"
        )
    for run in runs:
        before = read_summary(run.folder)
        if before is None or held_out_counts(run.prompts) != held_out_counts(config.prompts):
            continue
        found = Fingerprints(fingerprints(config.prompts, problems[run.split]), {}, run.split)
        changes = found.changes(before, run.folder, only_keys=wording(run.prompts) != wording(config.prompts))
        what = f"{run.model} would be asked about other data than it was trained on"
        check_changes(changes, what, is_allowed=config.checkpoint.allow_changes, error=ConfigError)
    return next(iter(problems.values()))


def run_of(model: NamedModel) -> Run | None:
    """Return the run that a model came from; None when it came from none, or from one whose settings are gone."""
    settings = run_settings(model.path)
    if settings is None:
        return None
    try:
        prompts = PromptsConfig.model_validate(settings.get("prompts", {}))
    except ValidationError:
        return None
    return Run(model.name, Path(model.path).resolve().parent, prompts)


def questions(prompts: PromptsConfig) -> Any:
    """Return the settings that decide which problems there are."""
    return prompts.seed, {name: (entry.task, entry.settings) for name, entry in prompts.tasks.items()}


def held_out_counts(prompts: PromptsConfig) -> Any:
    """Return the settings that decide how many problems of each entry are held out."""
    return prompts.num_held_out, prompts.last_weights


def wording(prompts: PromptsConfig) -> Any:
    """Return the settings that decide how prompts are written."""
    return {name: (entry.wording("zero_shot"), entry.wording("natural")) for name, entry in prompts.tasks.items()}
