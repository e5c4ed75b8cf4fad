"""Write rollouts, curve and report beside the loop, in an actor on the driver's node."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.calls import ready_of, wait_for
from orchestrator.cluster.results import RemoteCallError
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import RemoteAdvantages
from orchestrator.report.beside import ReportProcess
from orchestrator.report.plots import draw_curve
from rollout.types.completions import Group
from rollout.types.packed import PackedGroup

logger = logging.getLogger(__name__)

MAX_BEHIND = 2
"""Largest number of unwritten steps, with the one that is being written; then the loop waits for the oldest."""
WRITE_TIMEOUT_S = 600.0
"""Deadline in seconds for one step: many times longer than writing thousands of long completions takes."""


class RecorderLostError(RemoteCallError):
    """The recorder died or does not answer, so a step's rollouts are not written."""


class RolloutWriter:
    """The class that runs in the recorder's process. Ray runs its calls in the order of the requests."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._report = ReportProcess(directory.path)

    def __repr__(self) -> str:
        """Return the actor's name. Ray shows it with the actor, and its calls as `countdown/recorder.write`."""
        return ray.get_runtime_context().get_actor_name() or super().__repr__()

    def write(self, step: int, advantages: Sequence[Sequence[float]], pickled: bytes, *packed: PackedGroup) -> None:
        """Write a step's rollouts and the groups of held-out prompts. Raises RunDirectoryError if the disk refuses.

        Args:
            step: the step.
            advantages: for each group, the advantages of its completions.
            pickled: the rewards and the learner's logprobs of each group, and the groups of held-out prompts.
            packed: the groups. They are separate arguments so that Ray fetches them.
        """
        learned, held_out = pickle.loads(pickled)
        groups = [each.unpack().scored(rewards) for each, (rewards, _) in zip(packed, learned, strict=True)]
        if groups:
            logprobs = [recorded for _, recorded in learned]
            self._directory.write_rollouts(step, list(zip(groups, advantages, strict=True)), logprobs)
        if held_out:
            self._directory.write_held_out(step, held_out)

    def draw(self, with_report: bool) -> str | None:
        """Draw the curve of the steps so far, and start writing their report if `with_report`.

        Return why the curve, or the previous report, could not be made; None if there was no failure. The run
        continues without them.
        """
        failures = [self._report.start() if with_report else None]
        try:
            draw_curve(self._directory.metrics(), self._directory.curve, self._directory.path.name)
        except Exception as error:  # noqa: BLE001  a failed picture must not end a run
            failures.append(f"{self._directory.curve} cannot be drawn: {error}")
        return "; ".join(filter(None, failures)) or None


class Recorder:
    """The driver's side: sends each step, and knows which are written. At most MAX_BEHIND are unwritten."""

    def __init__(self, directory: RunDirectory, name: str) -> None:
        """Start the actor with this name, without waiting for it."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.actor: Any = RecorderActor.options(name=name, scheduling_strategy=here).remote(directory)
        self._pending: dict[int, Any] = {}
        """Calls by step, oldest first."""
        self._drawing: Any = None
        """The last call of `draw`."""

    def write(self, step: int, groups: RemoteAdvantages, held_out: Sequence[Group] = ()) -> None:
        """Send a step's rollouts to be written. Wait only if MAX_BEHIND steps are not written yet.

        Raises the error of an earlier step: RecorderLostError, or RunDirectoryError if the disk refused.
        """
        while len(self._pending) >= MAX_BEHIND or self._is_oldest_done():
            self._await_oldest()
        references, advantages = [each.group.reference for each in groups], [each.advantages for each in groups]
        # Ray's own pickling calls Python for each object that is not a plain tuple, list or number: 10 µs, not 1.
        pickled = pickle.dumps(([(each.group.rewards, each.logprobs) for each in groups], held_out))
        self._pending[step] = self.actor.write.remote(step, advantages, pickled, *references)

    def draw(self, with_report: bool = False) -> None:
        """Request the curve, and the report, of the steps logged so far. Never waits, and never raises."""
        self._log_failed_drawing()
        self._drawing = self.actor.draw.remote(with_report)

    def flush(self) -> None:
        """Return when every step is written. Raises the same errors as `write`."""
        while self._pending:
            self._await_oldest()
        self._log_failed_drawing()

    def close(self) -> None:
        """Write the remaining steps, and end the actor. Log a failure: the run has ended, or has its own error."""
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001  no failure may hide the run's own error
            logger.warning("%s", error)
        ray.kill(self.actor)

    def _log_failed_drawing(self) -> None:
        """Log why the last drawing failed, if it has ended."""
        if self._drawing is None or not ready_of([self._drawing], 0.0):
            return
        call, self._drawing = self._drawing, None
        try:
            failure = ray.get(call)
        except ray.exceptions.RayError:  # the actor died, which `write` and `flush` report
            return
        if failure is not None:
            logger.warning("%s", failure)

    def _is_oldest_done(self) -> bool:
        return bool(self._pending) and bool(ready_of([next(iter(self._pending.values()))], 0.0))

    def _await_oldest(self) -> None:
        step = next(iter(self._pending))
        call = {"the recorder": self._pending.pop(step)}
        try:
            wait_for(call, "write", WRITE_TIMEOUT_S, "is the disk of runs_dir slow, or its file system hanging?")
        except RemoteCallError as error:
            raise RecorderLostError(
                f"the rollouts of step {step} are not written: {error}. No checkpoint is sealed without them: start "
                "the same command again to resume from the last one"
            ) from error


RecorderActor: Any = ray.remote(num_cpus=0)(RolloutWriter)
