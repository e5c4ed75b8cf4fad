"""`rayzero sft`: the supervised training of a recipe as a run of its own, which resumes as any other run does."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from rich.console import Console

from orchestrator.base_model import base_model, export_whole, load_tokenizer
from orchestrator.cluster.layout import SUPERVISED
from orchestrator.cluster.placement import Placement
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.learner_group import LearnerGroup
from orchestrator.interrupt import Interrupt
from orchestrator.plan.run_plan import knobs, model_line, optimizer_settings, print_rows
from orchestrator.records.checkpoints import Checkpoint, Checkpoints
from orchestrator.records.run_directory import RunDirectory, RunDirectoryError
from orchestrator.records.trackers.base import Trackers
from orchestrator.records.trackers.files import FileTracker
from orchestrator.records.trackers.ray_metrics import RayMetricsTracker
from orchestrator.records.trackers.wandb import WandbTracker
from orchestrator.warm_start import check_data, fit, progress, supervised_examples
from rollout.supervised.examples import PairExamples, TraceExamples

logger = logging.getLogger(__name__)

STATE = "supervised"
"""Under this name a checkpoint of `rayzero sft` keeps the examples' state; one of `rayzero train` has no such name."""


def run_supervised(config: RunConfig, console: Console) -> bool:
    """Train on the recipe's examples, or resume. True when the run is complete, false when it was interrupted."""
    num_steps = config.warm_start.num_steps
    if num_steps == 0:
        raise ConfigError(
            "warm_start.num_steps = 0: there is nothing to train; set it to the number of optimizer steps"
        )
    print_rows(config.name, plan(config), console)
    checkpoints = checkpoints_of(config)
    latest = checkpoints.latest()
    refuse_other_command(config, latest, "sft")
    directory = RunDirectory(config)
    if latest is not None and latest.step >= num_steps and directory.final.exists():
        directory.check_settings()
        console.print(
            f"run {config.name!r} is complete at step {latest.step}. To train on, start another one from its model: "
            f"name={config.name}-2 model.path={directory.final}"
        )
        return True
    check_data(config)
    base = base_model(config)
    examples = supervised_examples(config, base, load_tokenizer(base))
    # Only now, so that data which is refused leaves no settings behind that the next attempt would have to keep.
    with directory.open().lock():
        latest = checkpoints.latest()  # another command may have ended since
        directory.log_to_file()
        directory.truncate_after(latest.step if latest else 0)
        if isinstance(examples, PairExamples):
            console.print(f"{len(examples)} pairs in {config.warm_start.data}", highlight=False)
        if latest is not None:
            console.print(f"resuming run {config.name!r} after step {latest.step}")
        # In this order: starting Ray installs signal handlers of its own, which abort the process.
        with ray_cluster(dashboard=config.placement.dashboard), Interrupt(console) as interrupt:
            run = SupervisedRun(config, directory, checkpoints, examples)
            is_complete = run.train(base, latest, console, interrupt)
    if not is_complete:
        console.print(f"left cleanly. The same command resumes run {config.name!r}.")
        return False
    console.print(f"the trained model is in {directory.final}; metrics.jsonl and log.txt beside it", highlight=False)
    console.print(f"train it on:  rayzero train RECIPE model.path={directory.final}", highlight=False, markup=False)
    return True


class SupervisedRun:
    """The learner of one run, without a generator, and what is done after each of its steps."""

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        checkpoints: Checkpoints,
        examples: PairExamples | TraceExamples,
    ) -> None:
        """Raises RemoteCallError when the cluster is too small, before anything is started."""
        self._config = config
        self._directory = directory
        self._checkpoints = checkpoints
        self._examples = examples
        self._placement = Placement.of(config, SUPERVISED)
        self._learner = LearnerGroup(config, self._placement)

    def train(self, base: str, latest: Checkpoint | None, console: Console, interrupt: Interrupt) -> bool:
        """From `base` or the latest checkpoint to the last step, and export. False when interrupted."""
        interrupt.begin()
        warm, tracker = self._config.warm_start, build_tracker(self._config, self._directory)
        try:
            self._learner.start(base, warm.applied_to(self._config.learner), warm.num_steps, temperature=1.0)
            last_step = self._restore(latest)
            with progress(console, "sft", warm.num_steps, last_step) as show:

                def after_step(step: int, metrics: Mapping[str, float], is_leaving: bool) -> None:
                    show(step, metrics)
                    tracker.log(step, metrics)
                    if is_leaving or step % self._config.checkpoint.every_steps == 0:
                        self._checkpoints.save(step, self._learner, {STATE: self._examples.state()})

                last_step = fit(self._learner, self._examples, warm, interrupt, after_step, last_step)
            if last_step < warm.num_steps:
                return False
            export_whole(self._learner, self._directory.final)
            logger.info("peak memory, GiB: %s", self._learner.peak_memory_gib())
            return True
        finally:
            tracker.close()
            self._learner.close()
            self._placement.close()

    def _restore(self, latest: Checkpoint | None) -> int:
        if latest is None:
            return 0
        self._examples.restore(latest.prompts[STATE])
        self._learner.load(latest.learner_folder)
        return latest.step


def checkpoints_of(config: RunConfig) -> Checkpoints:
    """The checkpoints that a run of that name has, before its directory is opened, or made."""
    return Checkpoints(config.directory.resolve() / "checkpoints", config.checkpoint.keep)


def refuse_other_command(config: RunConfig, latest: Checkpoint | None, command: str) -> None:
    """Raises RunDirectoryError when the run of that name was made by the other of `sft` and `train`.

    Both may come from one recipe, so that their settings do not tell them apart.
    """
    if latest is None:
        return
    other = "sft" if STATE in latest.prompts else "train"
    if other != command:
        raise RunDirectoryError(
            f"the run {config.name!r} in {config.directory} is one of `rayzero {other}`: choose another name "
            f"(name={config.name}-{command}) for `rayzero {command}`"
        )


def build_tracker(config: RunConfig, directory: RunDirectory) -> Trackers:
    """metrics.jsonl, Ray's metrics, and Weights & Biases where the recipe asks for it; the terminal has its own progress."""
    wandb = [WandbTracker(directory, config)] if config.tracking.wandb else []
    return Trackers([FileTracker(directory, config), RayMetricsTracker(config.name), *wandb])


def plan(config: RunConfig) -> list[tuple[str, str]]:
    """Titles and lines of the plan."""
    warm, learner = config.warm_start, config.learner
    lora = config.model.lora
    return [
        ("policy", model_line(config)),
        ("examples", warm.data or f"synthetic traces of {config.prompts.task}"),
        (
            "batch",
            f"{warm.num_steps} optimizer steps × {warm.sequences_per_step} examples, microbatches of "
            f"{learner.max_tokens_per_microbatch} tokens; a checkpoint every {config.checkpoint.every_steps} steps",
        ),
        ("trains", f"a LoRA: {knobs(lora.model_dump())}" if lora else "all the weights"),
        ("actors", f"{learner.num_ranks} × learner ({learner.cpus_per_rank:g} CPU, ZeRO {learner.zero_stage})"),
        ("optimizer", knobs(optimizer_settings(learner, warm))),
        ("run directory", str(config.directory)),
    ]
