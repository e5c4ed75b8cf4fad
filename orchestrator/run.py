"""A whole training run: from a RunConfig to a trained model, its curve and its completions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from orchestrator.base_model import base_model, check_model_fits, export_whole, load_tokenizer
from orchestrator.cluster.calls import RemoteCallError
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.evaluation import check_held_out
from orchestrator.fleet.fleet import RayFleet, engine_spec
from orchestrator.fleet.learner_group import LearnerGroup, LearnerLostError
from orchestrator.interrupt import Interrupt
from orchestrator.plan.run_plan import print_plan
from orchestrator.records.checkpoints import Checkpoints
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import Tracker
from orchestrator.records.trackers.build import build_trackers
from orchestrator.report.summary import draw_curve, summary_table
from orchestrator.sft import checkpoints_of, refuse_other_command
from orchestrator.train import train
from orchestrator.warm_start import check_data, warm_start_examples, warm_started_model
from rollout.prompts.stream import PromptStream
from rollout.supervised.examples import Examples

logger = logging.getLogger(__name__)


def run(config: RunConfig, console: Console) -> bool:
    """Train as `config` says, or resume. True when the run is complete, false when it was interrupted."""
    start = time.monotonic()
    print_plan(config, console)
    checkpoints = checkpoints_of(config)
    latest = checkpoints.latest()
    refuse_other_command(config, latest, "train")
    directory = RunDirectory(config)
    if latest is not None and latest.step >= config.num_steps and directory.final.exists():
        directory.check_settings()
        console.print(
            f"run {config.name!r} is complete at step {latest.step}. To train on, raise num_steps; "
            f"to start afresh, choose another name (name={config.name}-2)."
        )
        return True
    inputs = prepare_run(config)
    # Only now, so that settings which are refused are not left behind as those that the next attempt would have to keep.
    with directory.open().lock():
        latest = checkpoints.latest()  # another command may have ended since
        directory.log_to_file()
        # A fresh run's step 0 is the evaluation before training, which a run killed before its first checkpoint repeats.
        directory.truncate_after(latest.step if latest else -1)
        if latest is not None:
            console.print(f"resuming run {config.name!r} after step {latest.step}")
            logger.info("a new command resumes the run after step %d", latest.step)
        # In this order: starting Ray installs signal handlers of its own, which abort the process.
        with ray_cluster(dashboard=config.placement.dashboard) as dashboard, Interrupt(console) as interrupt:
            if dashboard:
                console.print(f"Ray dashboard: {dashboard}", highlight=False)
            is_complete = train_on_cluster(config, inputs, directory, checkpoints, console, interrupt)
    if not is_complete:
        console.print(f"left cleanly. The same command resumes run {config.name!r}.")
        return False
    report(config, directory, console, time.monotonic() - start)
    return True


@dataclass(frozen=True, slots=True)
class RunInputs:
    """What a run starts from."""

    base: str
    """Folder or hub name of the policy before any training."""
    prompts: PromptStream
    examples: Examples | None
    """Of the warm start; None when there is none to do."""


def prepare_run(config: RunConfig) -> RunInputs:
    """Everything that can be refused without a cluster: a wrong line of data is not found out after minutes."""
    check_data(config)
    base = base_model(config)
    check_model_fits(config, base)
    tokenizer = load_tokenizer(base)
    prompts = PromptStream(config.prompts, tokenizer)
    check_held_out(prompts, config)  # a prompt that does not fit is refused now
    return RunInputs(base, prompts, warm_start_examples(config, base, tokenizer))


def train_on_cluster(
    config: RunConfig,
    inputs: RunInputs,
    directory: RunDirectory,
    checkpoints: Checkpoints,
    console: Console,
    interrupt: Interrupt,
) -> bool:
    """Start the actors, warm-start, train, export. False when interrupted."""
    base = inputs.base
    fleet = RayFleet(config, engine_spec(config, base, load_weights=False))
    try:
        interrupt.begin()
        with fleet.learning():
            folder = warm_started_model(config, base, inputs.examples, fleet.learner, console, interrupt)
            if folder is None:
                return False

            def start(learner: LearnerGroup) -> None:
                learner.start(folder, config.trains_with, config.num_steps, config.sampling.temperature)

            start(fleet.learner)
        fleet.wait_until_ready()
        tracker = build_trackers(config, directory, console)
        try:
            last_step = train_on(config, inputs.prompts, fleet, start, directory, checkpoints, tracker, interrupt)
        finally:
            tracker.close()
        if last_step < config.num_steps:
            return False
        log_peak_memory(fleet)
        return True
    finally:
        fleet.close()


def train_on(
    config: RunConfig,
    prompts: PromptStream,
    fleet: RayFleet,
    start: Callable[[LearnerGroup], None],
    directory: RunDirectory,
    checkpoints: Checkpoints,
    tracker: Tracker,
    interrupt: Interrupt,
) -> int:
    """`train` and export; when the learner is lost, once more from the last checkpoint. Returns the last step done."""
    inputs = prompts.state()
    is_lost = False
    while True:
        try:
            if is_lost:
                fleet.restart_learner(start)
                is_lost = False
            last_step = train(config, prompts, fleet, checkpoints, tracker, interrupt)
            if last_step == config.num_steps:
                export_whole(fleet.learner, directory.final)
            return last_step
        except LearnerLostError as error:
            if fleet.learner.restarts == config.placement.max_learner_restarts:
                raise
            is_lost = True
            latest = checkpoints.latest()
            logger.warning(
                "the learner is lost: %s. It is built anew (restart %d of at most %d) and goes on after step %d",
                error,
                fleet.learner.restarts + 1,
                config.placement.max_learner_restarts,
                latest.step if latest else 0,
            )
            directory.truncate_after(latest.step if latest else -1)
            prompts.restore(inputs)


def log_peak_memory(fleet: RayFleet) -> None:
    """Only to be known: a run that is done does not fail for it."""
    try:
        logger.info("peak memory, GiB: %s", fleet.peak_memory_gib())
    except RemoteCallError as error:
        logger.warning("peak memory is not known: %s", error)


def report(config: RunConfig, directory: RunDirectory, console: Console, seconds: float) -> None:
    """The summary at the end: before, after, and where everything is."""
    lines = directory.metrics()
    draw_curve(lines, directory.curve, config.name)
    console.print(summary_table(lines))
    console.print(f"this command took {seconds / 60:.1f} minutes. In {relative(directory.path)}:", highlight=False)
    console.print("  final/         the trained model; metrics.jsonl, rollouts/, curve.png, log.txt beside it")
    commands = [f"rayzero eval {relative(directory.final)}"]
    if config.prompts.task == "countdown":  # the task whose questions can be asked by hand
        question = "Using the numbers [4, 7, 3], create an equation that equals 25"
        commands.insert(0, f'rayzero solve {relative(directory.final)} "{question}"')
    for label, command in zip(("try it:", ""), commands, strict=False):
        console.print(f"{label:<8} {command}", highlight=False, markup=False)


def relative(path: Path) -> Path:
    """As short as can be from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
