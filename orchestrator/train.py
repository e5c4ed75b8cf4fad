"""The loop, and nothing else."""

from __future__ import annotations

import logging

from orchestrator.batches import StepBatches
from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.evaluation import Evaluation, held_out_evaluations, held_out_metrics
from orchestrator.fleet.protocols import Fleet
from orchestrator.interrupt import Interrupt
from orchestrator.records.checkpoints import Checkpoints
from orchestrator.records.health.monitor import Health
from orchestrator.records.metrics import Clock, rollout_metrics, staleness_metrics
from orchestrator.records.trackers.base import Tracker
from rollout.prompts.stream import PromptStream

logger = logging.getLogger(__name__)


def train(
    config: RunConfig,
    prompts: PromptStream,
    fleet: Fleet,
    checkpoints: Checkpoints,
    tracker: Tracker,
    health: Health,
    interrupt: Interrupt,
) -> int:
    """Sample, grade, learn and publish in each step. Return the last step; it is an earlier one after an interrupt."""

    def held_out() -> list[Evaluation]:
        with fleet.generating():
            return held_out_evaluations(fleet.rollouts, prompts, config)

    batches = StepBatches(fleet.rollouts, prompts, config)
    last_step = restore(checkpoints, fleet, batches)
    if last_step == 0:
        clock = Clock()
        with clock("evaluation"):
            before = held_out()
        tracker.log(0, held_out_metrics(before, config) | clock.phases(), held_out=before[0].groups)
        health.judge(before[0])
    logger.info("training begins after step %d", last_step)
    for step in range(last_step + 1, config.num_steps + 1):
        clock, evaluations = Clock(), []
        with clock("rollout"), fleet.generating():
            sampled = batches.sample(step)
        with clock("update"), fleet.learning():
            update = fleet.learner.update(step, sampled.groups)
        is_evaluated = is_due(step, config.evaluation.every_steps, config.num_steps)
        if is_evaluated and config.tracking.save_rollouts:
            with clock("score_again"), fleet.learning():
                update = fleet.learner.score_again(update)
        with clock("publish"), fleet.generating():
            fleet.publish(version=step)
        metrics = update.metrics | fleet.rollouts.metrics() | prompts.metrics()
        prompts.observe(sampled.everything)
        if is_evaluated:
            with clock("evaluation"):
                evaluations = held_out()
            metrics |= held_out_metrics(evaluations, config)
        # Before metrics and records, so that generators work meanwhile.
        with fleet.generating():
            batches.ask(step + 1)
        metrics |= rollout_metrics(sampled.everything, config.prompts.mixture)
        metrics |= staleness_metrics(step, sampled.everything) | sampled.metrics()
        metrics |= health.observe(step, metrics | clock.seconds())
        evaluated = evaluations[0].groups if evaluations else ()
        tracker.log(step, metrics | clock.seconds(), sampled.learned(update), evaluated)
        # Read only once: a signal during the save belongs to the next step.
        is_leaving = interrupt.requested or health.is_hopeless
        if is_leaving or is_due(step, config.checkpoint.every_steps, config.num_steps):
            checkpoints.save(step, fleet.learner, batches.state(), tracker.flush)
        last_step = step
        if is_leaving:
            break
    return last_step


def restore(checkpoints: Checkpoints, fleet: Fleet, batches: StepBatches) -> int:
    """Load the newest undamaged checkpoint, and publish its weights. Return its step; 0 for a new run."""
    checkpoint = checkpoints.verify_latest()
    if checkpoint is not None:
        fleet.learner.load(checkpoint.learner_folder)
    last_step = checkpoint.step if checkpoint else 0
    with fleet.generating():
        fleet.publish(version=last_step)
    if checkpoint is not None:
        batches.restore(checkpoint.prompts)  # requests what was in flight, after the generators have the weights
    return last_step


def is_due(step: int, every_steps: int, num_steps: int) -> bool:
    """Return whether something is done after this step: after the last, and after every `every_steps` unless 0."""
    return step == num_steps or (every_steps > 0 and step % every_steps == 0)
