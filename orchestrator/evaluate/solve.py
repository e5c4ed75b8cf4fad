"""Ask a model one question, show its answer as it is sampled, and say whether it is right."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from orchestrator.base_model import local_model
from orchestrator.config.environments import environment_parts
from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.conversation import converse
from orchestrator.evaluate.models import config_for, tokenizer_of
from orchestrator.plan.model_fits import check_context
from orchestrator.watch.printable import printable
from rewards.registry import functions_of, load_grader
from rollout.prompts.decoding import completion_decoder
from rollout.tasks.base import Problem
from rollout.types.names import short_name
from rollout.types.prompts import Prompt
from rollout.types.sampling import SamplingSettings

if TYPE_CHECKING:
    from rewards.function import Outcome
    from rollout.engine.engine import Engine


def solve(model: str, question: str, recipe: str | None, answer: str | None, attempts: int, console: Console) -> bool:
    """Let the model answer `attempts` times and check each answer.

    Returns True when one is right, or none can be checked.

    Raises ConfigError for a question that the recipe's task cannot be asked, PolicyError for a model that there is not
    or that holds too few tokens.
    """
    if attempts < 1:
        raise ConfigError(f"--attempts {attempts}: must be 1 or more")
    config = config_for(model, recipe, ())
    problem = read_question(config, question, answer)
    tokenizer = tokenizer_of(model)
    folder = local_model(model)
    check_context(config, folder)
    prompts = [worded(problem, config, tokenizer, attempt) for attempt in range(attempts)]
    sampling = config.sampling.model_copy(update={"temperature": 0.0 if attempts == 1 else config.sampling.temperature})
    verdicts = []
    with engine(folder, config, tokenizer) as started:
        for prompt in prompts:
            show(prompt.text, console)
            text = answered(started, prompt, sampling, config, console)
            show("\n", console)
            verdicts.append(verdict(prompt, text, config, console))
    return any(verdict is not False for verdict in verdicts)


def answered(started: Engine, prompt: Prompt, sampling: SamplingSettings, config: RunConfig, console: Console) -> str:
    """Show the model's answer while it is sampled, and return its text. Observations are dimmed."""
    if prompt.environment:

        def show_piece(piece: str, is_observation: bool) -> None:
            show(piece, console, style="dim" if is_observation else "bold")

        return asyncio.run(converse(started, prompt, sampling, config, show_piece)).policy_text
    text = ""
    for piece in started.stream(prompt, sampling, config.seed):
        show(piece, console, style="bold")
        text += piece
    return text


def read_question(config: RunConfig, question: str, answer: str | None) -> Problem:
    """Return the question as a problem of the recipe's task. Raises ConfigError when it is none."""
    if len(config.prompts.tasks) > 1:
        raise ConfigError(
            f"the recipe mixes the questions of {sorted(config.prompts.tasks)}: name a recipe with one kind "
            "of question with --recipe"
        )
    (task,) = config.prompts.tasks.values()
    try:
        return task.read_question(question, answer, config.prompts.format)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def worded(problem: Problem, config: RunConfig, tokenizer: Any, attempt: int) -> Prompt:
    """Return the prompt of one attempt. Its id, and so its seed, is its own. Raises ConfigError when it is too long."""
    from rollout.prompts.template import Template

    name = next(iter(config.prompts.mixture), "")
    try:
        return Template(config.prompts, tokenizer).prompt(f"solve/{attempt}", problem, None, name)
    except ValueError as error:
        raise ConfigError(f"the model cannot be asked this: {error}") from error


@contextmanager
def engine(model: str, config: RunConfig, tokenizer: Any) -> Iterator[Engine]:
    """Start an engine in this process, since one question needs no cluster; close it at the end."""
    from orchestrator.cluster.gpu_memory import read_states
    from orchestrator.config.resolve import engine_spec, fraction_of_free
    from rollout.actor import environment

    os.environ.update(environment(config.rollout))
    from rollout.engine.engine import Engine
    from rollout.engine.turns import turn_sampler

    fraction, gpus = config.rollout.gpu_memory_fraction, read_states()
    if fraction is None and gpus:
        fraction = fraction_of_free(min(gpu.free_share for gpu in gpus))
    spec = engine_spec(config, model, load_weights=True, fraction=fraction)
    started = Engine(spec, config.rollout, completion_decoder(tokenizer), turn_sampler(spec, tokenizer))
    try:
        yield started
    finally:
        started.close()


def is_answer_known(prompt: Prompt, config: RunConfig) -> bool:
    """Return whether an answer can be checked: there is a reference, or the grader needs none."""
    if prompt.answer.keys() - {"extraction"} or short_name(prompt.grader) in config.rewards.tasks:
        return True
    return "correctness" not in load_grader(prompt.grader).PARTS


def verdict(prompt: Prompt, text: str, config: RunConfig, console: Console) -> bool | None:
    """Print what the task's grader says of the answer. Return None when it is neither right nor wrong."""
    if not is_answer_known(prompt, config):
        console.print("[yellow]not checked:[/] give the right answer with --answer")
        return None
    outcome = asyncio.run(grade(prompt, prompt.assistant_prefix + text, config))
    if outcome.status != "ok":
        console.print(
            f"[yellow]not checked:[/] {prompt.grader} cannot grade it with only --answer ({escape(outcome.reason)})"
            if outcome.status == "error"
            else f"[yellow]not checked:[/] {outcome.reason}"
        )
        return None
    if "correctness" not in outcome.grades:
        console.print(", ".join(f"{part} {value:g}" for part, value in outcome.grades.items()))
        return None
    is_right = outcome.grades["correctness"] == 1.0
    console.print("[green]right[/]" if is_right else f"[red]wrong:[/] {escape(why_wrong(prompt, text, config))}")
    return is_right


async def grade(prompt: Prompt, text: str, config: RunConfig) -> Outcome:
    """Return the grader's outcome for the assistant's turn, computed in a process that can be killed."""
    from rewards.subject import Subject
    from rewards.workers.processes import GradeTask
    from rewards.workers.worker import RewardWorker

    functions = functions_of(prompt.grader, config.rewards, environment_parts(config))
    function = next(found for found in functions if found.grades_task)
    task = GradeTask((function,), Subject((text,), prompt.answer, prompt.text))
    worker = RewardWorker(config.rewards.memory_gib)
    try:
        await worker.load([function])
        async for _ in worker.grade([task]):
            pass
        return task.outcomes[0]
    finally:
        await worker.close()


def why_wrong(prompt: Prompt, text: str, config: RunConfig) -> str:
    """Return the first thing that is wrong, as far as the grader can say it."""
    is_replaced = short_name(prompt.grader) in config.rewards.tasks
    explain = None if is_replaced else getattr(load_grader(prompt.grader), "explain", None)
    if explain is None:
        return f"the reference is {prompt.answer['answer']}"
    return str(explain(prompt.assistant_prefix + text, prompt.answer))


def show(text: str, console: Console, style: str | None = None) -> None:
    """Print a piece of text as it is, at once; a model's escape sequences do not reach the terminal."""
    console.print(printable(text), style=style, end="", markup=False, highlight=False, soft_wrap=True)
