"""Supervised training: its loop and its examples, and the warm start of a run, which uses the loop and a cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import Progress

from learner.config import ModelConfig, WarmStartConfig
from orchestrator.base_model import cached_model, warm_start_folder
from orchestrator.config.resolve import ResolvedRun
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.learner_group import LearnerGroup
from orchestrator.interrupt import Interrupt
from orchestrator.plan.model_fits import max_positions
from orchestrator.records.metrics import Clock
from rollout.prompts.held_out import HeldOutQuestions
from rollout.supervised.examples import Examples, PairExamples, TraceExamples
from rollout.supervised.pairs import LengthLimit, left_out, read_pairs
from rollout.types.prompts import SupervisedExample

logger = logging.getLogger(__name__)

AfterStep = Callable[[int, Mapping[str, float], bool], None]
"""(step, its metrics, whether training ends after it)."""
Show = Callable[[int, Mapping[str, float]], None]

LINES = 15
"""Number of progress lines per training if the output is a file or a pipe."""


class SupervisedLearner(Protocol):
    """The interface of the learner ranks for the loop."""

    def supervised_update(self, step: int, examples: Sequence[SupervisedExample]) -> dict[str, float]: ...


def fit(
    learner: SupervisedLearner,
    examples: Examples,
    warm: WarmStartConfig,
    interrupt: Interrupt,
    after_step: AfterStep,
    last_step: int = 0,
) -> int:
    """Train on `examples`, from the step after `last_step`. Return the last step; it is earlier after an interrupt."""
    for step in range(last_step + 1, warm.num_steps + 1):
        clock = Clock()
        with clock("update"):
            metrics = learner.supervised_update(step, examples.take(warm.sequences_per_step))
        # Read only once: a signal during the save belongs to the next step.
        is_leaving = interrupt.requested or step == warm.num_steps
        after_step(step, metrics | clock.seconds(), is_leaving)
        last_step = step
        if is_leaving:
            break
    if examples.num_left_out:
        logger.info("%d examples ask a held-out question and were left out", examples.num_left_out)
    return last_step


def check_data(config: RunConfig) -> None:
    """Raise PairError if the data is not pairs. Call this before the model is loaded, which may need a download."""
    if config.warm_start.num_steps and config.warm_start.data is not None:
        read_pairs(config.warm_start.data)


def supervised_examples(
    config: RunConfig, base: str, tokenizer: Any, questions: HeldOutQuestions | None
) -> PairExamples | TraceExamples:
    """Return the pairs of `warm_start.data`, or else the task's traces, without examples that ask held-out `questions`.

    Raises ValueError, or PairError for a line of the file.
    """
    warm = config.warm_start
    if warm.data is None:
        return TraceExamples(config.prompts, config.traces, tokenizer, warm.seed, questions)
    return PairExamples(warm.data, tokenizer, length_limits(config, base), warm.seed, questions)


def length_limits(config: RunConfig, base: str) -> list[LengthLimit]:
    """Return the limits on the tokens of prompt and completion together."""
    key = "learner.max_tokens_per_microbatch"
    limits = [LengthLimit(config.learner.max_tokens_per_microbatch, key, "raise it, or shorten the pair")]
    positions = max_positions(base)
    if positions is None:
        return limits
    if config.model.build is not None:
        return [*limits, LengthLimit(positions, "model.build.max_position_embeddings", "raise it, or shorten the pair")]
    fix = "shorten the pair, or choose a model.path with a longer context"
    return [*limits, LengthLimit(positions, "the model's max_position_embeddings", fix)]


@dataclass(frozen=True, slots=True)
class WarmStart:
    """The supervised training of a run before its first step."""

    folder: Path
    """The folder of its result, which may not exist yet."""
    examples: Examples | None
    """The examples to train on; None if `folder` exists."""


def prepare_warm_start(
    config: RunConfig, base: str, tokenizer: Any, questions: HeldOutQuestions | None
) -> WarmStart | None:
    """Return the warm start with checked examples, without `questions`; None if the recipe has no warm start."""
    if config.warm_start.num_steps == 0:
        return None
    folder = warm_start_folder(config, left_out_key(config, questions))
    return WarmStart(folder, None if folder.exists() else supervised_examples(config, base, tokenizer, questions))


def left_out_key(config: RunConfig, questions: HeldOutQuestions | None) -> str:
    """Return a text that identifies the examples that are left out, for the cache."""
    data = config.warm_start.data
    if data is not None:
        left = left_out(read_pairs(data), questions)
        return str(left) if left else ""
    # Without a mixture the settings of the prompts, which are in the cache's key, determine the held-out questions.
    return questions.digest if questions is not None and config.prompts.mixture else ""


def warm_started_model(
    run: ResolvedRun,
    warm_start: WarmStart | None,
    learner: LearnerGroup,
    console: Console,
    interrupt: Interrupt,
) -> str | None:
    """Return the model folder with which reinforcement learning starts; train it now if there are examples.

    None if the user interrupted the training; the next run then starts it again from the beginning.
    """
    if warm_start is None:
        return run.engine.model_folder
    warm, folder, examples = run.config.warm_start, warm_start.folder, warm_start.examples
    if examples is None:
        console.print(f"warm start: cached in {folder}", markup=False)
        return str(folder)
    interrupt.begin(saves=False)
    # The warm start trains all weights. If the run trains a LoRA, the result is its base model.
    start_supervised(learner, run.config.model.model_copy(update={"lora": None}))
    beginning = examples.state()

    def attempt() -> int:
        with progress(console, "warm start", warm.num_steps) as show:
            last_step = fit(learner, examples, warm, interrupt, lambda step, metrics, _: show(step, metrics))
        if last_step == warm.num_steps:
            with cached_model(folder) as aside:
                learner.export(aside)
        return last_step

    last_step = learner.persist(attempt, lambda: examples.restore(beginning))
    interrupt.begin()
    return str(folder) if last_step == warm.num_steps else None


def start_supervised(learner: LearnerGroup, model: ModelConfig) -> None:
    """Load the policy before any training on each rank, with the settings `model` and the warm start's optimizer."""
    run = learner.run
    warm = run.config.warm_start
    model = model.model_copy(update={"teacher": None})  # examples take the place of a teacher
    learner.start(run.engine.model_folder, warm.applied_to(run.learner), warm.num_steps, temperature=1.0, model=model)


@contextmanager
def progress(console: Console, title: str, num_steps: int, last_step: int = 0) -> Iterator[Show]:
    """Show a bar with the loss; if the output is not a terminal, print some lines instead."""
    every = max(1, num_steps // LINES)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=num_steps, completed=last_step)

        def show(step: int, metrics: Mapping[str, float]) -> None:
            loss = f"loss {metrics['optim/loss']:.3f}"
            bar.update(task, completed=step, description=f"{title}, {loss}")
            if not console.is_terminal and (step % every == 0 or step == num_steps):
                seconds = f"{metrics['time/step_s']:.2f} s a step"
                console.print(f"{title} {step}/{num_steps}  {loss}  {seconds}", highlight=False)

        yield show
