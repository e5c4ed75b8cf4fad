"""The common part of `rayzero train` and `rayzero sft`: find, lock and resume a run, and stop it cleanly."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import ClassVar, Generic, Protocol, TypeVar

from rich.console import Console

from learner.parity import NonFiniteError
from orchestrator.cluster.ray_cluster import ray_cluster
from orchestrator.cluster.results import RemoteCallError
from orchestrator.config.checks import doubts
from orchestrator.config.schema import RunConfig
from orchestrator.interrupt import Interrupt
from orchestrator.plan.run_plan import print_rows
from orchestrator.records.checkpoints import MANIFEST, Checkpoint, Checkpoints
from orchestrator.records.files.log_file import kept_log
from orchestrator.records.final_model import step_of_model
from orchestrator.records.origin.fingerprints import Fingerprints, check_changes
from orchestrator.records.run_directory import RunDirectory, RunDirectoryError
from orchestrator.records.trackers.beside import trackers_beside
from orchestrator.records.trackers.build import check_trackers
from orchestrator.report.report import write_last_report

logger = logging.getLogger(__name__)

SUPERVISED_STATE = "supervised"
"""Under this name a checkpoint of `rayzero sft` keeps the examples' state; one of `rayzero train` has no such name."""

UNKNOWN = "the run was started by a version that took no fingerprints: nobody knows if data or models changed since"

Inputs = TypeVar("Inputs")


class Ending(Enum):
    """How a command ended. The values are exit codes."""

    COMPLETE = 0
    HOPELESS = 3
    """Stopped by `health.stop_after`: the same command does not resume the run."""
    INTERRUPTED = 130
    """The same command resumes."""


class Measured(Protocol):
    """The actors of a run, or some of them."""

    def peak_memory_gib(self) -> Mapping[str, float]: ...


class Command(ABC, Generic[Inputs]):
    """A command that trains a run, or resumes it. Subclasses define what is trained, and on which data."""

    name: ClassVar[str]
    steps_key: ClassVar[str]
    """The setting with the number of steps of the whole run."""

    def __init__(self, config: RunConfig, console: Console) -> None:
        self.config = config
        self.console = console
        self.directory = RunDirectory(config)
        self.checkpoints = Checkpoints(self.directory.checkpoints, config.checkpoint.keep)
        self.fingerprints = Fingerprints()

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """Steps of the whole run."""

    @abstractmethod
    def plan(self) -> list[tuple[str, str]]:
        """Return the plan of the run as pairs of title and text."""

    @abstractmethod
    def how_to_continue(self) -> str:
        """Return how to continue a complete run, as the end of the sentence `To train on, …`."""

    @abstractmethod
    def prepare(self, latest: Checkpoint | None) -> Inputs:
        """Load the inputs of the run. Raise here every error that can be found without a cluster."""

    @abstractmethod
    def train(self, inputs: Inputs, latest: Checkpoint | None, interrupt: Interrupt) -> Ending:
        """Train on a running cluster, from the `latest` checkpoint on."""

    @abstractmethod
    def report(self, seconds: float) -> None:
        """Print the result of the run, which has ended, and how long this command took."""

    def ended(self, latest: Checkpoint) -> tuple[Ending, str] | None:
        """Return how a run whose latest model is exported has ended, with a message; None if it can continue."""
        if latest.step < self.num_steps:
            return None
        said = f"run {self.config.name!r} is complete at step {latest.step}. To train on, {self.how_to_continue()}"
        return Ending.COMPLETE, said

    def check_fingerprints(self, found: Fingerprints, latest: Checkpoint | None) -> None:
        """Compare the current data and models with those at the start of the run, and keep them for later checkpoints.

        Raises RunDirectoryError if something has changed, unless `checkpoint.allow_changes` is set.
        """
        if latest is not None and latest.fingerprints:
            changes = found.changes(latest.fingerprints, self.directory.path)
            what = f"the run {self.config.name!r} would continue with other data or models than it was started with"
            check_changes(changes, what, is_allowed=self.config.checkpoint.allow_changes)
        elif latest is not None and not self.fingerprints.models:  # once
            logger.warning("%s", UNKNOWN)
        self.fingerprints |= found
        self.checkpoints.fingerprints = self.fingerprints.summary()

    def run(self) -> Ending:
        """Train, or resume."""
        start = time.monotonic()
        print_rows(self.config.name, self.plan(), self.console)
        latest = self.checkpoints.latest()
        refuse_other_command(self.config, latest, self.name)
        if latest is not None and self._is_exported(latest) and (ended := self.ended(latest)) is not None:
            self.directory.check_settings()
            self.console.print(ended[1], highlight=False, markup=False, soft_wrap=True)
            return ended[0]
        self._refuse_fewer_steps(latest)
        check_trackers(self.config)
        with kept_log() as earlier:
            for doubt in doubts(self.config, supervised_only=self.name == "sft"):
                logger.warning("%s", doubt)
            inputs = self.prepare(latest)
        # Only now, so that settings which are refused do not bind the next attempt.
        with self.directory.open().lock():
            self.directory.log_to_file(earlier)
            with self.directory.writing():
                self.fingerprints.write(self.directory.path)
            try:
                return self._train_or_resume(inputs, start)
            except NonFiniteError as error:
                raise NonFiniteError(f"{error}. {self._last_good_checkpoint()}") from error

    def _train_or_resume(self, inputs: Inputs, start: float) -> Ending:
        """Train, or resume, and print the result. `start`: monotonic time at which the command began, s."""
        latest = self.checkpoints.verify_latest()  # another command may have ended since
        # A fresh run's step 0 is the evaluation before training: a run killed before its first checkpoint repeats it.
        last_step = latest.step if latest else -1
        self.directory.truncate_after(last_step)
        if latest is not None:
            self.console.print(f"resuming run {self.config.name!r} after step {latest.step}")
            logger.info("a new command resumes the run after step %d", latest.step)
        with trackers_beside(self.config.tracking.programs, self.directory.path, last_step, self.warn):
            try:
                # In this order: starting Ray installs signal handlers of its own, which abort the process.
                with (
                    ray_cluster(dashboard=self.config.placement.dashboard) as dashboard,
                    Interrupt(self.console) as interrupt,
                ):
                    if dashboard:
                        self.console.print(f"Ray dashboard: {dashboard}", highlight=False)
                    ending = self.train(inputs, latest, interrupt)
            except Exception:
                self._report_since(last_step)
                raise
            if ending is Ending.INTERRUPTED:
                self._report_since(last_step)
                self.console.print(f"left cleanly. The same command resumes run {self.config.name!r}.")
            else:
                self.report(time.monotonic() - start)
        return ending

    def write_report(self) -> bool:
        """Write the last report of this command. Return whether it could be: a run is complete without it."""
        failure = write_last_report(self.directory.path)
        if failure is not None:
            logger.warning("%s", failure)
        return failure is None

    def _report_since(self, last_step: int) -> None:
        """Write the report of a run that was left, or has failed, after `last_step`. A signal skips it."""
        lines = self.directory.metrics()
        if lines and lines[-1]["step"] > last_step:
            self.console.print("writing report.html, up to the last step. Ctrl-C leaves without it.", highlight=False)
            with suppress(KeyboardInterrupt), Interrupt(self.console):  # with nothing to save, it leaves at once
                self.write_report()

    def warn(self, sentence: str) -> None:
        """Show a sentence about what goes wrong with the run, on a line that a terminal wraps."""
        self.console.print(sentence, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def praise(self, sentence: str) -> None:
        """Show a sentence about what goes well, as `warn` does."""
        self.console.print(sentence, style="green", highlight=False, markup=False, soft_wrap=True)

    def _is_exported(self, latest: Checkpoint) -> bool:
        """Return whether `final/` is of the `latest` checkpoint, and not of a shorter run that was trained on since."""
        final, manifest = self.directory.final, latest.folder / MANIFEST
        if (step := step_of_model(final)) is not None:
            return step == latest.step
        return final.exists() and final.stat().st_mtime >= manifest.stat().st_mtime

    def _refuse_fewer_steps(self, latest: Checkpoint | None) -> None:
        """Raise RunDirectoryError where nothing is left to train, and the model of `num_steps` is gone."""
        if latest is not None and latest.step > self.num_steps:
            raise RunDirectoryError(
                f"{self.steps_key} = {self.num_steps} is below step {latest.step} of the last checkpoint of the run "
                f"{self.config.name!r}, {latest.folder}: set {self.steps_key}={latest.step} to export the model of "
                "that step, or more to train on; a run of fewer steps needs another name (name=…)"
            )

    def _last_good_checkpoint(self) -> str:
        """Return a sentence about the newest checkpoint; none is sealed whose weights are not finite."""
        latest = self.checkpoints.latest()
        if latest is None:
            return "There is no checkpoint of before"
        return f"The last good checkpoint is that of step {latest.step}, {latest.folder}"


def refuse_other_command(config: RunConfig, latest: Checkpoint | None, command: str) -> None:
    """Raise RunDirectoryError when the run of that name was made by the other of `sft` and `train`.

    Both may come from one recipe, so that their settings do not tell them apart.
    """
    if latest is None:
        return
    other = "sft" if SUPERVISED_STATE in latest.prompts else "train"
    if other != command:
        raise RunDirectoryError(
            f"the run {config.name!r} in {config.directory} is one of `rayzero {other}`: choose another name "
            f"(name={config.name}-{command}) for `rayzero {command}`"
        )


def log_peak_memory(actors: Measured) -> None:
    """Log each process's peak memory. A run that is done does not fail where it is not known."""
    try:
        logger.info("peak memory, GiB: %s", actors.peak_memory_gib())
    except RemoteCallError as error:
        logger.warning("peak memory is not known: %s", error)
