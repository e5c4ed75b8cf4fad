"""Say when a run is not learning: each alarm once, also over a resume, and stop what is hopeless if the recipe says so.

All that is known comes from the rows of metrics.jsonl, which a resume reads again. So a run killed at any moment knows
what it has said, and the same rows can be judged again by other settings: see replay.py.
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
"""Returns what was seen, the likely cause and the setting to change; None while there is nothing to say."""

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
        """Report alarms by calling `warn`, and good news by calling `praise`, or `warn` without it.

        Each is written to log.txt in any case.
        """
        self._config = config
        self._warn, self._praise = warn, praise or warn
        self._limits = HealthLimits.of(config)
        self.recall(())

    def recall(self, rows: Iterable[Row]) -> None:
        """Take up the rows of metrics.jsonl, in place of what was seen before. Nothing of them is said again."""
        self._history = History(self._limits.steps)
        self._said: set[str] = set()
        self._num_steps = self._num_without_signal = self._in_a_row = self._last_step = 0
        for row in rows:
            self.take(row)
            self._said |= {name for name in ALARMS if f"health/{name}" in row}

    def take(self, row: Row) -> None:
        """Take note of a row, and say nothing."""
        if "reward/total" not in row:  # the evaluation before training
            return
        self._history.add(row)
        is_without = signal.share_without_signal(row, self._config) >= self._limits.without_spread
        self._num_steps += 1
        self._num_without_signal += is_without
        self._in_a_row = self._in_a_row + 1 if is_without else 0
        self._last_step = int(row["step"])

    def judge(self, before: Evaluation) -> None:
        """Say from the evaluation before training if the model can be trained on its task at all."""
        if not before.pass_at:  # answers are neither right nor wrong
            return
        found = judge_trainability(before, self._config)
        level = logging.INFO if found.verdict == "trainable" else logging.WARNING
        self._tell(f"before training: {found.verdict}", *sentences(found), level=level)

    def observe(self, step: int, metrics: Row) -> dict[str, float]:
        """Take note of a step, say what is new, and return the `health/` metrics of the step.

        Those are the number of alarms that hold now, and for each alarm that was ever said if it holds now.
        """
        self.take({"step": float(step), **metrics})
        holding = self.holding()
        for name, sentence in holding.items():
            if name not in self._said:
                self._said.add(name)
                self._tell(f"health/{name} after step {step}: {sentence}")
        shown = {f"health/{name}": float(name in holding) for name in ALARMS if name in self._said}
        return {"health/alarms": float(len(holding))} | shown

    def holding(self) -> dict[str, str]:
        """Return the alarms that hold after the last step, each with its sentence."""
        if self._num_steps == 0:
            return {}
        found = {name: alarm(self._history, self._config, self._limits) for name, alarm in ALARMS.items()}
        return {name: sentence for name, sentence in found.items() if sentence is not None}

    @property
    def is_hopeless(self) -> bool:
        """True when nothing was learned for `health.stop_after` steps in a row."""
        return 0 < self._config.health.stop_after <= self._in_a_row

    @property
    def closing(self) -> str | None:
        """What to say at the end of a run that was stopped, or that learned nothing from its first step to its last."""
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

    def _tell(self, *sentences: str, level: int = logging.WARNING) -> None:
        for sentence in sentences:
            logger.log(level, "%s", sentence)
            (self._praise if level < logging.WARNING else self._warn)(sentence)
