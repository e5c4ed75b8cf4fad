"""Report when a run is not learning, each alarm only once, and stop a hopeless run if the recipe asks for it.

The state comes only from the rows of metrics.jsonl, which a resume reads again. So a run that was killed knows which
alarms it has reported, and the same rows can be judged again with other settings: see replay.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.evaluation import Evaluation
from orchestrator.evaluate.trainability import judge_trainability, sentences
from orchestrator.records.health import drift, grading, signal
from orchestrator.records.health.history import History, Row
from orchestrator.records.health.limits import HealthLimits

logger = logging.getLogger(__name__)

Say = Callable[[str], None]
Alarm = Callable[[History, RunConfig, HealthLimits], str | None]
"""Returns a message with the observation, the likely cause and the setting to change; None if there is no problem."""

ALARMS: dict[str, Alarm] = {
    function.__name__: function
    for function in (
        signal.no_spread,
        signal.cut_off,
        signal.wrong_format,
        signal.constant_part,
        drift.entropy_collapse,
        drift.length_collapse,
        drift.kl_runaway,
        drift.gradient_runaway,
        drift.gap_by_position,
        drift.gap_by_version,
        grading.failing_grader,
        grading.slow_grader,
    )
}
"""By the name under which each is logged: `health/<alarm>`."""


class Health:
    """Watches the metrics of each step of one run."""

    def __init__(self, config: RunConfig, warn: Say = lambda sentence: None, praise: Say | None = None) -> None:
        """Report alarms by calling `warn`, and good news by calling `praise`, or `warn` if `praise` is None.

        Every message is also written to log.txt.
        """
        self._config = config
        self._warn, self._praise = warn, praise or warn
        self._limits = HealthLimits.of(config)
        self.recall(())

    def recall(self, rows: Iterable[Row]) -> None:
        """Replace the state by the rows of metrics.jsonl. Alarms that they contain are not reported again."""
        self._history = History(self._limits.steps)
        self._reported: set[str] = set()
        self._num_steps = self._num_without_signal = self._in_a_row = self._last_step = 0
        for row in rows:
            self.take(row)
            self._reported |= {name for name in ALARMS if f"health/{name}" in row}

    def take(self, row: Row) -> None:
        """Add a row to the state, without reporting anything."""
        if "reward/total" not in row:  # the evaluation before training
            return
        self._history.add(row)
        is_without = signal.share_without_signal(row, self._config) >= self._limits.without_spread
        self._num_steps += 1
        self._num_without_signal += is_without
        self._in_a_row = self._in_a_row + 1 if is_without else 0
        self._last_step = int(row["step"])

    def judge(self, before: Evaluation) -> None:
        """Report, from the evaluation before training, whether the model can be trained on its task."""
        if not before.pass_at:  # answers are neither right nor wrong
            return
        judgement = judge_trainability(before, self._config)
        level = logging.INFO if judgement.verdict == "trainable" else logging.WARNING
        self._report(f"before training: {judgement.verdict}", *sentences(judgement), level=level)

    def observe(self, step: int, metrics: Row) -> dict[str, float]:
        """Add a step, report new alarms, and return the step's `health/` metrics.

        These are the number of alarms that hold now, and, for each alarm that was ever reported, whether it holds now.
        """
        self.take({"step": float(step), **metrics})
        holding = self.holding()
        for name, sentence in holding.items():
            if name not in self._reported:
                self._reported.add(name)
                self._report(f"health/{name} after step {step}: {sentence}")
        states = {f"health/{name}": float(name in holding) for name in ALARMS if name in self._reported}
        return {"health/alarms": float(len(holding))} | states

    def holding(self) -> dict[str, str]:
        """Return the alarms that hold after the last step, with their messages."""
        if self._num_steps == 0:
            return {}
        results = {name: alarm(self._history, self._config, self._limits) for name, alarm in ALARMS.items()}
        return {name: sentence for name, sentence in results.items() if sentence is not None}

    @property
    def is_hopeless(self) -> bool:
        """True if nothing was learned for `health.stop_after` steps in a row."""
        return 0 < self._config.health.stop_after <= self._in_a_row

    @property
    def closing(self) -> str | None:
        """The message at the end of a run that was stopped, or that learned nothing in any step; else None."""
        if self.is_hopeless and self._last_step < self._config.num_steps:
            why = f"was stopped after step {self._last_step} of {self._config.num_steps}: "
            why += (
                f"{self._in_a_row} steps in a row taught nothing (health.stop_after = {self._config.health.stop_after})"
            )
        elif 0 < self._num_steps == self._num_without_signal:
            why = f"has learned nothing: none of its {self._num_steps} steps had a learning signal"
        else:
            return None
        rows = self._history.last[-self._in_a_row :]
        return (
            f"run {self._config.name!r} {why}. {signal.without_signal(rows, self._history, self._config, self._limits)}"
        )

    def _report(self, *sentences: str, level: int = logging.WARNING) -> None:
        for sentence in sentences:
            logger.log(level, "%s", sentence)
            (self._praise if level < logging.WARNING else self._warn)(sentence)
