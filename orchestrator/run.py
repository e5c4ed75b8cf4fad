"""A whole training run: from a RunConfig to a trained model, its curve and its completions."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.artifacts import RunDirectory
from orchestrator.checkpoints import Checkpoints
from orchestrator.config import RunConfig
from orchestrator.fleet import RayFleet, ray_cluster
from orchestrator.interrupt import Interrupt
from orchestrator.plan import print_plan
from orchestrator.policy import base_model, warm_started_model
from orchestrator.report.summary import draw_curve, summary_table
from orchestrator.trackers import build_trackers
from orchestrator.train import train
from rollout.prompts.stream import PromptStream
from rollout.types import EngineSpec

logger = logging.getLogger(__name__)


def run(config: RunConfig, console: Console) -> bool:
    """Train as `config` says, or resume. True when the run is complete, false when it was interrupted."""
    start = time.monotonic()
    print_plan(config, console)
    directory = RunDirectory(config)
    directory.log_to_file()
    checkpoints = Checkpoints(directory.checkpoints, config.checkpoint.keep)
    latest = checkpoints.latest()
    if latest is not None and latest.step >= config.num_steps and directory.final.exists():
        console.print(
            f"run {config.name!r} is complete at step {latest.step}. To train on, raise num_steps; "
            f"to start afresh, choose another name (name={config.name}-2)."
        )
        return True
    # A fresh run's step 0 is the evaluation before training, which a run killed before its first checkpoint repeats.
    directory.forget_after(latest.step if latest else -1)
    if latest is not None:
        console.print(f"resuming run {config.name!r} after step {latest.step}")
    # In this order: starting Ray installs signal handlers of its own, which abort the process.
    with ray_cluster(config), Interrupt(console) as interrupt:
        is_complete = train_on_cluster(config, directory, checkpoints, console, interrupt)
    if not is_complete:
        console.print(f"left cleanly. The same command resumes run {config.name!r}.")
        return False
    report(config, directory, console, time.monotonic() - start)
    return True


def train_on_cluster(
    config: RunConfig, directory: RunDirectory, checkpoints: Checkpoints, console: Console, interrupt: Interrupt
) -> bool:
    """Start the actors, warm-start, train, export. False when interrupted."""
    base = base_model(config)
    fleet = RayFleet(config, EngineSpec(base, config.model.dtype, config.max_model_len, load_weights=False))
    try:
        tokenizer = load_tokenizer(base)
        prompts = PromptStream(config.prompts, tokenizer)
        prompts.held_out  # noqa: B018  a prompt that does not fit is refused now, not after the warm start
        folder = warm_started_model(config, base, tokenizer, fleet.learner, console, interrupt)
        if folder is None:
            return False
        fleet.learner.start(folder, config.learner, config.num_steps, config.sampling.temperature)
        fleet.wait_until_ready()
        tracker = build_trackers(config, directory, console)
        try:
            last_step = train(config, prompts, fleet, checkpoints, tracker, interrupt)
        finally:
            tracker.close()
        if last_step < config.num_steps:
            return False
        fleet.learner.export(directory.final)
        logger.info("peak memory, GiB: %s", fleet.peak_memory_gib())
        return True
    finally:
        fleet.close()


def report(config: RunConfig, directory: RunDirectory, console: Console, seconds: float) -> None:
    """The summary at the end: before, after, and where everything is."""
    lines = directory.metrics()
    draw_curve(lines, directory.curve, config.name)
    console.print(summary_table(lines))
    console.print(f"this command took {seconds / 60:.1f} minutes. In {relative(directory.path)}:", highlight=False)
    console.print("  final/         the trained model; metrics.jsonl, rollouts/, curve.png, log.txt beside it")
    question = "Using the numbers [4, 7, 3], create an equation that equals 25"
    console.print(f'try it:  rayzero solve {relative(directory.final)} "{question}"', highlight=False, markup=False)
    console.print(f"         rayzero eval {relative(directory.final)}", highlight=False)


def relative(path: Path) -> Path:
    """As short as can be from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer, from its folder or the hub."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)
