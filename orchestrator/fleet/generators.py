"""The generators of a run: which of them sample, which are starting, and the replacement of lost ones.

starting ──> ready ──(it got the weights)──> serving
   ^                                            │ it died, or hangs
   └────────────────────────────────────────────┘
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from orchestrator.cluster.calls import ready_of, wait_for
from orchestrator.cluster.results import RemoteCallError, result_of
from orchestrator.fleet.heartbeats import EVERY_S
from rollout.config import RolloutConfig

logger = logging.getLogger(__name__)

ADVICE = "raise rollout.start_timeout_s if the model is large, or look at that generator's log"


class RestartBudgetExceededError(RemoteCallError):
    """A generator must be replaced, but `rollout.max_restarts` allows no more."""


@dataclass(eq=False)
class _Start:
    """A generator that loads its engine, or waits for resources."""

    actor: Any
    ready: Any
    """Reference to its process id, ready when its engine is."""
    deadline: float


class Generators:
    """Generators by name, `generator-0` and so on. A lost one is replaced by a new actor of the same name."""

    def __init__(
        self,
        boot: Callable[[int, int], Any],
        config: RolloutConfig,
        *,
        have_weights: bool,
        retire: Callable[[int], None] = lambda index: None,
    ) -> None:
        """Start `rollout.num_generators` generators without waiting; `wait_until_ready` waits.

        Args:
            boot: makes the actor of an index; its second argument counts the restarts so far.
            config: their number, deadlines and how many restarts are allowed.
            have_weights: whether their engines load weights by themselves, and serve as soon as they are ready.
            retire: called with the index of a generator that is not needed any more, once it has ended.
        """
        self._boot = boot
        self._config = config
        self._have_weights = have_weights
        self._retire = retire
        self._starting: dict[str, _Start] = {}
        self._ready: dict[str, Any] = {}
        self._serving: dict[str, Any] = {}
        self.restarts = 0
        """Generators that were replaced, dead or hanging."""
        for index in range(config.num_generators):
            self._start(index)

    @property
    def serving(self) -> Mapping[str, Any]:
        """The generators that have the current weights, by name, in order."""
        return self._serving

    @property
    def standing(self) -> dict[str, Any]:
        """The generators whose engine is ready: a publish goes to all of them."""
        self.collect_started()
        return in_order(self._serving | self._ready)

    @property
    def names(self) -> list[str]:
        """All generators, in any state."""
        return sorted({*self._starting, *self._ready, *self._serving}, key=index_of)

    def refs(self) -> list[Any]:
        """Return the references of the starts; one gets ready when its start ends."""
        return [start.ready for start in self._starting.values()]

    def wait_until_ready(self) -> None:
        """Return when every engine is ready. Raises RemoteCallError past the deadline, or if a generator dies."""
        starting = dict(self._starting)
        wait_for({name: start.ready for name, start in starting.items()}, "ready", self._config.start_timeout_s, ADVICE)
        self.collect_started()

    def wait_for_any(self, look: Callable[[], None]) -> None:
        """Return when the engine of one generator is ready. Bounded by the deadlines of starts.

        Calls `look` every few seconds. Raises RestartBudgetExceededError when none is left and none may be restarted.
        """
        while not self.standing:
            if not self.names:
                raise RestartBudgetExceededError(
                    "no generator is left, and none may be started again (rollout.max_restarts)"
                )
            ready_of(self.refs(), EVERY_S)
            look()

    def collect_started(self) -> None:
        """Handle starts that have ended; never waits. Raises RestartBudgetExceededError after too many failures."""
        ended = ready_of(self.refs(), 0.0)
        for name, start in list(self._starting.items()):
            if start.ready in ended:
                try:
                    result_of(start.ready, name, "ready")
                except Exception as error:  # noqa: BLE001  for any reason: it is started again
                    self.lose(name, f"it could not start: {error}")
                else:
                    del self._starting[name]
                    self._stand(name, start.actor)
            elif start.deadline < time.monotonic():
                start.deadline = time.monotonic() + self._config.start_timeout_s
                self._waits_too_long(name)

    def serve(self, names: Iterable[str]) -> None:
        """Note that exactly these generators have the current weights."""
        standing = self._serving | self._ready
        self._serving = in_order({name: standing.pop(name) for name in names if name in standing})
        self._ready = standing

    def lose(self, name: str, reason: str) -> None:
        """End a generator that is dead or hangs, and start its replacement.

        Raises RestartBudgetExceededError when `rollout.max_restarts` replacements were started already.
        """
        self._end(name)
        if self.restarts == self._config.max_restarts:
            raise RestartBudgetExceededError(
                f"{name} is lost: {reason}. {self.restarts} generators were started again in this run, as many as "
                "rollout.max_restarts allows: look at that generator's log"
            )
        self.restarts += 1
        logger.warning(
            "%s is lost: %s. It is started again (restart %d of at most %d)",
            name,
            reason,
            self.restarts,
            self._config.max_restarts,
        )
        self._start(index_of(name))

    def resize(self, count: int) -> None:
        """Start generators up to `count`, or end those beyond it."""
        surplus = [name for name in self.names if index_of(name) >= count]
        for name in surplus:
            self._end(name)
            self._retire(index_of(name))
        known = {index_of(name) for name in self.names}
        for index in range(count):
            if index not in known:
                self._start(index)

    def close(self) -> None:
        """End all generators."""
        for name in self.names:
            self._end(name)

    def _start(self, index: int) -> None:
        actor = self._boot(index, self.restarts)
        deadline = time.monotonic() + self._config.start_timeout_s
        self._starting[f"generator-{index}"] = _Start(actor, actor.ready.remote(), deadline)

    def _stand(self, name: str, actor: Any) -> None:
        if self._have_weights:
            self._serving = in_order(self._serving | {name: actor})
        else:
            self._ready[name] = actor

    def _end(self, name: str) -> None:
        start = self._starting.pop(name, None)
        actor = start.actor if start else self._ready.pop(name, None) or self._serving.pop(name, None)
        if actor is not None and ray.is_initialized():
            ray.kill(actor)

    def _waits_too_long(self, name: str) -> None:
        message = f"{name} has not started within {self._config.start_timeout_s:g} s"
        if not self._serving and not self._ready:
            raise RestartBudgetExceededError(f"{message}, and no other generator is left: {ADVICE}")
        logger.warning("%s, because it has no resources or hangs; the run continues with the others", message)


def in_order(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the generators by index: which gets which prompts must not depend on which started first."""
    return dict(sorted(generators.items(), key=lambda named: index_of(named[0])))


def index_of(name: str) -> int:
    return int(name.rpartition("-")[2])
