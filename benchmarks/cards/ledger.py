"""A card on paper: what each process of a run would hold on its GPU, allocation by allocation, from the plan's terms.

    python -m benchmarks.cards.ledger [--gpu 4090]

Replays a run of each recipe for a card: start, a hundred steps (sleep, update, wake, publish), publishes that are
refused or meet a dying generator, restarts, the end. The order of sleeping and waking is the fleet's own, and that of a
publish the transport's own: only the actors are of paper. Nothing may exceed the card, and nothing may be left over.
No card has confirmed any of it.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from benchmarks.cards.paper_card import CACHE, Ledger, PaperGenerator, PaperLearner
from orchestrator.cluster.calls import Outcomes
from orchestrator.cluster.layout import Mode
from orchestrator.cluster.results import RemoteCallError
from orchestrator.config.checks import resolve_transport
from orchestrator.config.recipe import RECIPES, load
from orchestrator.config.schema import RunConfig
from orchestrator.fleet import learner_group, transports
from orchestrator.fleet.fleet import RayFleet
from orchestrator.fleet.learner_group import LearnerLostError
from orchestrator.fleet.publish import PublishError, publish
from orchestrator.plan.gpu_models import GpuModel, gpu_model
from orchestrator.plan.memory_plan import MemoryPlan, memory_plan
from orchestrator.plan.model_shapes import shape_of
from rollout.types.memory_terms import GIB

NUM_STEPS = 100


class PaperFleet(RayFleet):
    """The fleet's own order of things, with actors of paper. Cards of their own where the recipe says so."""

    def __init__(self, config: RunConfig, plan: MemoryPlan) -> None:
        self._config, self._shares_gpu = config, plan.colocated
        shared = Ledger(plan.gpu.gib * GIB)
        self.ledgers = [shared] if plan.colocated else [shared, Ledger(plan.gpu.gib * GIB)]
        self.generator, self.learner = PaperGenerator(plan, shared), PaperLearner(plan, self.ledgers[-1])  # type: ignore
        mode: Mode = "colocated" if plan.colocated else "pods"
        self._transport = transports.make_transport(resolve_transport("auto", mode), 1)
        self.generators: Any = SimpleNamespace(names=["generator-0"], refs=list)
        self._generators_awake = True
        self._published = 0

    def _call_generators(self, method: str, but: Any = ()) -> dict[str, Any]:
        return {"generator-0": self.generator.call(method)}

    def start(self) -> None:  # type: ignore[override]
        self.generator.start()
        with self.learning():
            self.learner.start()  # type: ignore[call-arg]
        self.send()

    def step(self) -> None:
        with self.generating():
            pass
        with self.learning():
            self.learner.update()  # type: ignore[call-arg]
        self.send()

    def steps(self) -> None:
        for _ in range(NUM_STEPS):
            self.step()

    def send(self) -> None:
        """Publish the next version as the loop does. A generator that is lost is started again."""
        self._published += 1
        with self.generating():
            try:
                bytes_of_bucket = self._config.rollout.publish_bucket_mib * 2**20
                generators, sender = {"generator-0": self.generator}, self.learner
                done_at_once = {"timeout_s": 1, "bucket_bytes": bytes_of_bucket, "transport": self._transport}
                publish(sender, generators, self._published, **done_at_once)  # type: ignore[arg-type]
            except PublishError:
                self.generator.start()
                self.send()

    def held(self) -> list[dict[str, dict[str, float]]]:
        """Return what each process holds on each card. On a card of its own the learner may keep PyTorch's cache."""
        kept = [ledger.snapshot() for ledger in self.ledgers]
        if not self._shares_gpu:
            kept[-1]["learner"].pop(CACHE, None)
        return kept

    def learner_again(self) -> None:
        """A rank dies in the middle of its update and is built anew, while the generator sleeps."""
        self.learner.troubles["backward"] = LearnerLostError("killed")  # type: ignore[attr-defined]
        try:
            self.step()
        except LearnerLostError:
            with self.learning():
                self.learner.start()  # type: ignore[call-arg]
        self.send()


@contextmanager
def calls_done_at_once() -> Iterator[None]:
    """Take what a call returns for its answer, within the context; an exception for its failure."""

    def gather_calls(calls: Mapping[str, Any], *_: Any, **__: Any) -> Outcomes:
        outcomes = Outcomes()
        for name, result in calls.items():
            if isinstance(result, Exception):
                (outcomes.died if isinstance(result, RemoteCallError) else outcomes.refused)[name] = str(result)
            else:
                outcomes.answered[name] = result
        return outcomes

    def wait_for(calls: Mapping[str, Any], *_: Any) -> dict[str, Any]:
        return dict(calls)

    with ExitStack() as stack:
        for module in (transports, learner_group):
            stack.enter_context(patch.object(module, "gather_calls", gather_calls))
        stack.enter_context(patch.object(learner_group, "wait_for", wait_for))
        yield


@dataclass(frozen=True)
class Event:
    """Something that happened to a run on paper, and what the fullest card held meanwhile."""

    name: str
    peak_gib: float
    by_process: Mapping[str, float]
    """The most that each process held, GiB."""
    is_clean: bool
    """Whether afterwards the processes hold what they held before."""


def replay(config: RunConfig, plan: MemoryPlan) -> list[Event]:
    """Return a run's events. Raises CardFullError for the first allocation that does not fit."""
    fleet, events = PaperFleet(config, plan), []

    def refused(method: str, trouble: Exception) -> Callable[[], None]:
        def act() -> None:
            fleet.generator.troubles[method] = trouble
            fleet.step()

        return act

    loading = "load_bucket" if plan.colocated else "commit_weights"
    happenings: list[tuple[str, Callable[[], None]]] = [
        ("start", fleet.start),
        ("a step", fleet.step),
        (f"{NUM_STEPS} steps", fleet.steps),
        ("a publish refused", refused("stage_manifest", ValueError("refused"))),
        ("a publish failing half way", refused(loading, ValueError("cannot load"))),
        ("a generator killed in a publish", refused(loading, RemoteCallError("killed"))),
        ("a learner killed in an update", fleet.learner_again),
    ]
    expected = None
    for name, act in happenings:
        for ledger in fleet.ledgers:
            ledger.begin()
        act()
        held = fleet.held()
        expected = held if expected is None else expected
        peaks = {process: peak / GIB for ledger in fleet.ledgers for process, peak in ledger.peaks.items()}
        events.append(Event(name, max(ledger.peak for ledger in fleet.ledgers) / GIB, peaks, held == expected))
    return events


def gpu_recipes() -> dict[str, GpuModel]:
    """Return the recipes that train on a card by reinforcement learning, and the card that each is for.

    Those for cores take a card where there is one. One that needs a teacher of the user's own cannot be planned.
    """
    found = {}
    for path in sorted(RECIPES.glob("*.toml")):
        config = load(path.stem)
        if config.model.teacher is not None or not config.num_steps:
            continue
        if "4090" in path.stem or config.placement.mode == "auto":
            found[path.stem] = gpu_model("4090")
        elif "gpu" in path.stem.rpartition("-")[2] or path.stem.endswith("80gb"):
            found[path.stem] = gpu_model("a100-80")
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--gpu", type=gpu_model, help="another card than the recipes' own")
    given = arguments.parse_args()
    logging.disable(logging.WARNING)  # what goes wrong here does so on purpose
    header = ["recipe", "card", "generator", "learner", "together", "peak in", "left over"]
    rows, names = [], []
    with calls_done_at_once():
        for recipe, card in gpu_recipes().items():
            gpu, config = given.gpu or card, load(recipe)
            events = replay(config, memory_plan(config, shape_of(config.model), gpu))
            names = [event.name for event in events]
            rows.append([f"`{recipe}`", f"{gpu.gib:g}", *summary(events)])
    print(f"replayed: {', '.join(names)}\n")
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")


def summary(events: Sequence[Event]) -> list[str]:
    """Return the most that generator, learner and card held, when that was, and after what something was left."""
    fullest = max(events, key=lambda event: event.peak_gib)
    processes = (max(event.by_process.get(name, 0.0) for event in events) for name in ("generator-0", "learner"))
    left = ", ".join(event.name for event in events if not event.is_clean) or "nothing"
    return [*(f"{peak:.1f}" for peak in processes), f"{fullest.peak_gib:.1f}", fullest.name, left]


if __name__ == "__main__":
    main()
