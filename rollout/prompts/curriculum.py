"""The state of a run's curriculum: its stage, and the problems that are solved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rollout.prompts.config import CurriculumConfig
from rollout.types.completions import GroupHeader
from rollout.types.prompts import Prompt


class Curriculum:
    """Stages of increasing difficulty. A stage ends after some steps, or at a measured pass rate."""

    def __init__(self, config: CurriculumConfig, weights: Mapping[str, float]) -> None:
        """`weights` are the tasks' shares if there are no stages."""
        self._config = config
        self._weights = weights
        self._stage = 0
        self._num_steps = 0  # in this stage
        self._first = 0
        """The first position of the run that was drawn by this stage."""
        self._window: list[float] = []
        self._is_by_position = True
        """False in a run that was started by version 0.1.0, whose window took replaced groups last."""

    @property
    def weights(self) -> Mapping[str, float]:
        """The tasks' shares of the prompts now, by name."""
        stages = self._config.stages
        return stages[self._stage].weights if stages else self._weights

    def observe(self, groups: Iterable[GroupHeader], next_position: int) -> None:
        """Count a step's graded groups. They may end the stage; the next one then starts at `next_position`.

        Where sampling runs ahead, groups of the previous stage come first. They are left out. The window takes groups
        in the order in which their prompts were drawn: those that resampling replaced come last in a step, and could
        be all of it.
        """
        own = [group for group in groups if position_of(group.prompt) >= self._first]
        if self._is_by_position:
            own.sort(key=lambda group: position_of(group.prompt))
        rates = [group.pass_rate for group in own]
        if not self._config.stages or not rates:
            return
        self._num_steps += 1
        self._window = [*self._window, *(rate for rate in rates if rate is not None)][-self._config.window_groups :]
        if self._is_passed() and self._stage + 1 < len(self._config.stages):
            self._stage, self._num_steps, self._window, self._first = self._stage + 1, 0, [], next_position

    def _is_passed(self) -> bool:
        stage = self._config.stages[self._stage]
        by_steps = stage.num_steps is not None and self._num_steps >= stage.num_steps
        is_measured = len(self._window) == self._config.window_groups
        by_rate = stage.pass_rate is not None and is_measured and mean(self._window) >= stage.pass_rate
        return by_steps or by_rate

    def metrics(self) -> dict[str, float]:
        """Return metrics of the stage and its pass rate; none without stages."""
        if not self._config.stages:
            return {}
        measured = {"curriculum/stage_pass_rate": mean(self._window)} if self._window else {}
        return {"curriculum/stage": float(self._stage + 1), **measured}

    def state(self) -> dict[str, Any]:
        return {
            "stage": self._stage,
            "num_steps": self._num_steps,
            "window": list(self._window),
            "first": self._first,
            "by_position": self._is_by_position,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._stage, self._num_steps, self._window = state["stage"], state["num_steps"], list(state["window"])
        # Older checkpoints lack these.
        self._first, self._is_by_position = state.get("first", 0), state.get("by_position", False)


class SolvedProblems:
    """Problems whose last groups were all right. Such groups have no spread, so nothing can be learned from them."""

    def __init__(self, drop_after: int) -> None:
        """Drop a problem after `drop_after` such groups in a row; 0 drops nothing."""
        self._drop_after = drop_after
        self._streaks: dict[str, dict[str, int]] = {}  # by the entry's name and the problem's key

    def has_dropped(self, name: str, key: str) -> bool:
        """Return whether the problem of that entry and key is dropped."""
        return self._is_long(self._streaks.get(name, {}).get(key, 0))

    def observe(self, group: GroupHeader) -> None:
        """Count a graded group of a problem that can be dropped."""
        if self._drop_after == 0:
            return
        streaks, key = self._streaks.setdefault(group.prompt.source, {}), group.prompt.key
        if group.pass_rate == 1.0:
            streaks[key] = streaks.get(key, 0) + 1
        else:
            streaks.pop(key, None)

    def forget(self, name: str) -> bool:
        """Use all problems of that entry again. Returns whether any of them was dropped."""
        return any(map(self._is_long, self._streaks.pop(name, {}).values()))

    def _is_long(self, streak: int) -> bool:
        return 0 < self._drop_after <= streak

    def metrics(self) -> dict[str, float]:
        """Return a metric of the number of dropped problems; none if problems are never dropped."""
        dropped = sum(self._is_long(streak) for streaks in self._streaks.values() for streak in streaks.values())
        return {"curriculum/dropped_prompts": float(dropped)} if self._drop_after else {}

    def state(self) -> dict[str, dict[str, int]]:
        return {name: dict(streaks) for name, streaks in self._streaks.items()}

    def restore(self, state: Mapping[str, Mapping[str, int]]) -> None:
        self._streaks = {name: dict(streaks) for name, streaks in state.items()}


def training_id(position: int) -> str:
    """Return the id of the prompt at a position of the run."""
    return f"train/{position:06d}"


def position_of(prompt: Prompt) -> int:
    """Return the position in the run of a prompt: the inverse of `training_id`."""
    return int(prompt.id.removeprefix("train/"))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
