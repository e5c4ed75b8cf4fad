"""`rayzero train`: from a RunConfig to a trained model, its curve and its completions."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from learner.memory import reference_kind
from orchestrator.base_model import base_model, export_whole, load_tokenizer
from orchestrator.command import Command, Ending, log_peak_memory
from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.evaluation import check_held_out
from orchestrator.fleet.fleet import RayFleet
from orchestrator.inspection import Fault, leave_out_bad_rows, record_left_out, reference_checks
from orchestrator.interrupt import Interrupt
from orchestrator.plan.model_fits import check_model_fits
from orchestrator.plan.run_plan import plan
from orchestrator.records.checkpoints import Checkpoint, Checkpoints
from orchestrator.records.health.monitor import Health
from orchestrator.records.origin.fingerprints import BASE, TEACHER, WARM_STARTED, Fingerprints
from orchestrator.records.origin.model_files import model_files
from orchestrator.records.run_directory import RunDirectory, read_records
from orchestrator.records.trackers.base import Tracker
from orchestrator.records.trackers.build import build_trackers
from orchestrator.records.trackers.terminal import ConsoleTracker
from orchestrator.report.examples import examples_table
from orchestrator.report.plots import draw_curve
from orchestrator.report.reading.tokens import keep_tokenizer
from orchestrator.report.summary import summary_table
from orchestrator.teacher import teacher_model
from orchestrator.train import train
from orchestrator.warm_start import WarmStart, check_data, prepare_warm_start, warm_started_model
from orchestrator.watch.live import LiveView
from rollout.prompts.entry_fingerprints import fingerprints
from rollout.prompts.mixture import Mixture
from rollout.prompts.stream import PromptStream, split_rule

logger = logging.getLogger(__name__)


def run(config: RunConfig, console: Console, is_live: bool = False) -> Ending:
    """Train as `config` says, or resume. With `is_live` show a view that refreshes in place of a line a step."""
    command = TrainCommand(config, console)
    command.is_live = is_live
    return command.run()


@dataclass(frozen=True, slots=True)
class RunInputs:
    """What a run starts from."""

    base: str
    """Folder or hub name of the policy before any training."""
    teacher: str | None
    """That of `model.teacher`, if there is one."""
    prompts: PromptStream
    warm_start: WarmStart | None
    """None when the recipe asks for none."""
    left_out: Sequence[Fault]
    """Rows that are not asked."""
    tokenizer: Any


class TrainCommand(Command[RunInputs]):
    """Reinforcement learning, after the warm start that the recipe may ask for."""

    name = "train"
    steps_key = "num_steps"
    is_live = False
    example: Sequence[Sequence[str]] = ()
    """The arguments of a `rayzero solve` to suggest at the end, but for the model, if there is one."""

    @property
    def num_steps(self) -> int:
        return self.config.num_steps

    def plan(self) -> list[tuple[str, str]]:
        return plan(self.config)

    def how_to_continue(self) -> str:
        return f"raise num_steps; to start again from step 0, choose another name (name={self.config.name}-2)."

    def prepare(self, latest: Checkpoint | None) -> RunInputs:
        check_data(self.config)
        base = base_model(self.config)
        check_model_fits(self.config, base)
        tokenizer = load_tokenizer(base)
        problems = Mixture(self.config.prompts, split_rule(latest.prompts) if latest else "by_key")
        teacher = teacher_model(self.config, tokenizer)
        models = {BASE: model_files(base)} | ({TEACHER: model_files(teacher)} if teacher else {})
        found = Fingerprints(fingerprints(self.config.prompts, problems), models, problems.rule)
        self.check_fingerprints(found, latest)
        left_out = leave_out_bad_rows(self.config, problems, tokenizer)
        prompts = PromptStream(self.config.prompts, tokenizer, problems, reference_checks(self.config))
        check_held_out(prompts, self.config)
        # A run that began under the earlier rule was taught by it, and may have to be taught again.
        questions = problems.questions if problems.rule == "by_key" else None
        self.example = example_command(self.config, problems)
        warm_start = prepare_warm_start(self.config, base, tokenizer, questions)
        return RunInputs(base, teacher, prompts, warm_start, left_out, tokenizer)

    def train(self, inputs: RunInputs, latest: Checkpoint | None, interrupt: Interrupt) -> Ending:
        """Start the actors, warm-start, train and export. The loop itself takes up the latest checkpoint."""
        config = self.config
        with self.directory.writing():
            record_left_out(inputs.left_out, self.directory.left_out)
            keep_tokenizer(inputs.tokenizer, self.directory.path)
        fleet = RayFleet.start(config, inputs.base, inputs.teacher)
        try:
            interrupt.begin()
            fleet.rewards.wait_until_loaded(inputs.prompts.answer_entries)  # a warm start would delay their errors
            with fleet.learning():
                folder = warm_started_model(fleet.run, inputs.warm_start, fleet.learner, self.console, interrupt)
                if folder is None:
                    return Ending.INTERRUPTED
                self._check_warm_started(folder, latest)
                fleet.learner.start(folder, fleet.run.learner, config.num_steps, config.sampling.temperature)
            fleet.wait_until_ready()
            tracker = build_trackers(config, self.directory, self._terminal())
            health = Health(config, self.warn, self.praise)
            try:
                ending = train_and_export(
                    config, inputs.prompts, fleet, self.directory, self.checkpoints, tracker, health, interrupt
                )
            finally:
                tracker.close()
            if ending is not Ending.INTERRUPTED:
                log_peak_memory(fleet)
            return ending
        finally:
            fleet.close()

    def _terminal(self) -> Tracker:
        """Return what shows the steps in the terminal."""
        lines = ConsoleTracker(self.console, self.config.num_steps)
        return LiveView(self.directory.path, lines) if self.is_live else lines

    def _check_warm_started(self, folder: str, latest: Checkpoint | None) -> None:
        """Compare the warm-started model with that of then, where a resumed run still uses it."""
        kind = reference_kind(self.config.learner.algorithm, self.config.model)
        if self.config.warm_start.num_steps == 0 or (kind == "none" and self.config.model.lora is None):
            return
        self.check_fingerprints(Fingerprints({}, {WARM_STARTED: model_files(folder)}, self.fingerprints.split), latest)
        with self.directory.writing():
            self.fingerprints.write(self.directory.path)

    def write_report(self) -> bool:
        """Draw the last curve too."""
        directory = self.directory
        try:
            draw_curve(directory.metrics(), directory.curve, self.config.name)
        except Exception as error:  # noqa: BLE001  a picture must not end a run, nor hide why it failed
            logger.warning("%s cannot be drawn: %s", directory.curve, error)
        return super().write_report()

    def report(self, seconds: float) -> None:
        """Print the summary: figures before and after, where everything is, and last if nothing was learned."""
        console, directory = self.console, self.directory
        closing = self.health().closing
        has_report = self.write_report()
        if len(evaluated := directory.evaluated()) > 1:
            console.print(examples_table(read_records(evaluated[0]), read_records(evaluated[-1])))
        console.print(summary_table(directory.metrics(), closing))
        took = f"this command took {seconds / 60:.1f} minutes. In {relative(directory.path)}:"
        console.print(took, highlight=False, markup=False)
        console.print("  final/         the trained model; next to metrics.jsonl, rollouts/, curve.png and log.txt")
        if has_report:
            console.print("  report.html    what it learned, to open in a browser and to share")
        for label, command in zip(("try it:", ""), (*self.example, ["eval"]), strict=False):
            words = shlex.join(["rayzero", command[0], str(relative(directory.final)), *command[1:]])
            console.print(f"{label:<8} {words}", highlight=False, markup=False, soft_wrap=True)
        if closing is not None:
            logger.warning("%s", closing)
            self.warn(closing)

    def health(self) -> Health:
        """Return what the run's metrics.jsonl says of its health."""
        health = Health(self.config)
        health.recall(self.directory.metrics())
        return health

    def ended(self, latest: Checkpoint) -> tuple[Ending, str] | None:
        """Return how the run has ended. One that was stopped as hopeless is not resumed by the same command."""
        health = self.health()
        if latest.step >= self.num_steps or not health.is_hopeless:
            return super().ended(latest)
        again = f"choose another name (name={self.config.name}-2)"
        return Ending.HOPELESS, f"{health.closing} To continue anyway, set health.stop_after = 0; else {again}."


def example_command(config: RunConfig, problems: Mixture) -> list[list[str]]:
    """Return what to ask the trained model with `rayzero solve`: none, or one command but for the model's name."""
    if len(config.prompts.tasks) > 1 or not problems.held_out:  # of several, it does not know which task is meant
        return []
    (task,) = config.prompts.tasks.values()
    if (example := task.example_question(problems.held_out[0][1], config.prompts.format)) is None:
        return []
    question, answer = example
    return [["solve", question, *(["--answer", answer] if answer is not None else [])]]


def train_and_export(
    config: RunConfig,
    prompts: PromptStream,
    fleet: RayFleet,
    directory: RunDirectory,
    checkpoints: Checkpoints,
    tracker: Tracker,
    health: Health,
    interrupt: Interrupt,
) -> Ending:
    """Train, and export at the end; when the learner is lost, go on from the last checkpoint.

    Raises LearnerLostError after `placement.max_learner_restarts`.
    """
    beginning = prompts.state()

    def attempt() -> Ending:
        health.recall(directory.metrics())
        last_step = train(config, prompts, fleet, checkpoints, tracker, health, interrupt)
        is_complete = last_step == config.num_steps
        if not is_complete and not health.is_hopeless:
            return Ending.INTERRUPTED
        export_whole(fleet.learner, directory.final, last_step)
        return Ending.COMPLETE if is_complete else Ending.HOPELESS

    def roll_back() -> None:
        latest = checkpoints.verify_latest()
        logger.warning("training goes on after step %d", latest.step if latest else 0)
        tracker.flush()  # what is written later would stay
        directory.truncate_after(latest.step if latest else -1)
        prompts.restore(beginning)
        fleet.forget_learner()

    return fleet.learner.persist(attempt, roll_back)


def relative(path: Path) -> Path:
    """Return the path from the working directory where it lies within, else the path itself."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
