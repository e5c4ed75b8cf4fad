"""One question to a model: its answer as it is sampled, and then whether it is right."""

from __future__ import annotations

import asyncio
import os
import re
import string
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rich.console import Console

from orchestrator.base_model import check_context
from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.models import config_for, tokenizer_of
from rollout.prompts.config import TaskConfig
from rollout.tasks.base import Problem
from rollout.types.prompts import Prompt

if TYPE_CHECKING:
    from rewards.function import Outcome
    from rollout.engine.engine import Engine


def solve(model: str, question: str, recipe: str | None, answer: str | None, attempts: int, console: Console) -> bool:
    """Let the model answer, `attempts` times, and check each answer. True when one is right, or none can be checked.

    Raises ConfigError for a question that the recipe's task cannot be asked, PolicyError for a model that there is not
    or that holds too few tokens.
    """
    if attempts < 1:
        raise ConfigError(f"--attempts {attempts}: must be 1 or more")
    config = config_for(model, recipe, ())
    problem = asked(config, question, answer)
    tokenizer = tokenizer_of(model)
    check_context(config, model)
    prompts = [worded(problem, config, tokenizer, attempt) for attempt in range(attempts)]
    sampling = config.sampling.model_copy(update={"temperature": 0.0 if attempts == 1 else config.sampling.temperature})
    verdicts = []
    with engine(model, config, tokenizer) as started:
        for prompt in prompts:
            show(prompt.text, console)
            text = ""
            for piece in started.stream(prompt, sampling, config.seed):
                show(piece, console, style="bold")
                text += piece
            show("\n", console)
            verdicts.append(verdict(prompt, text, config, console))
    return any(verdict is not False for verdict in verdicts)


def asked(config: RunConfig, question: str, answer: str | None) -> Problem:
    """The question as a problem of the recipe's task. Raises ConfigError when it is none."""
    if len(config.prompts.tasks) > 1:
        raise ConfigError(
            f"the recipe mixes the questions of {sorted(config.prompts.tasks)}: name a recipe of one kind with --recipe"
        )
    questions = next(iter(config.prompts.tasks.values()))
    if questions.task == "countdown":
        return countdown_problem(questions, question, answer)
    from rollout.tasks.registry import task_module

    needed = task_module(questions.task).fields(questions.settings)
    shown = {name for _, name, _, _ in string.Formatter().parse(questions.wording(config.prompts.format)) if name}
    if len(needed) != 1 or not shown <= set(needed[0]):
        raise ConfigError(
            f"prompts.task = {questions.task!r} asks with {' and '.join(f'{{{name}}}' for name in sorted(shown))}, which "
            "one question does not fill: use `rayzero eval`, which prints completions, or name another recipe with --recipe"
        )
    return Problem(
        fields=dict.fromkeys(needed[0], question),
        answer={} if answer is None else {"answer": answer},
        key=question,
    )


def countdown_problem(questions: TaskConfig, question: str, answer: str | None) -> Problem:
    """Countdown's question says itself what is right."""
    from rollout.tasks import countdown

    if answer is not None:
        raise ConfigError("--answer is not for Countdown: what is right follows from the numbers and the target")
    numbers, target = parse_question(question)
    return countdown.problem(numbers, target, questions.countdown.must_use_all, questions.countdown.exact_division)


def parse_question(question: str) -> tuple[list[int], int]:
    """Numbers and target: the last whole number is the target, those before it the numbers.

    Raises ConfigError when there are fewer than three numbers in the question.
    """
    found = [int(digits) for digits in re.findall(r"(?<![\d.])\d{1,9}(?!\d|\.\d)", question)]
    if len(found) < 3:
        raise ConfigError(
            f"{question!r} does not name at least two numbers and a target: write "
            '"Using the numbers [4, 7, 3], create an equation that equals 25"'
        )
    return found[:-1], found[-1]


def worded(problem: Problem, config: RunConfig, tokenizer: Any, attempt: int) -> Prompt:
    """The prompt of one attempt; its id, and so its seed, is its own."""
    from rollout.prompts.template import Template

    kind = next(iter(config.prompts.mixture), "")
    try:
        return Template(config.prompts, tokenizer).prompt(f"solve/{attempt}", problem, None, kind)
    except ValueError as error:
        raise ConfigError(f"the model cannot be asked this: {error}") from error


@contextmanager
def engine(model: str, config: RunConfig, tokenizer: Any) -> Iterator[Engine]:
    """An engine in this process: no cluster for one question."""
    from orchestrator.config.resolve import engine_spec
    from rollout.actor import environment

    os.environ.update(environment(config.rollout))
    from rollout.engine.engine import Engine

    started = Engine(
        engine_spec(config, model, load_weights=True, fraction=config.rollout.gpu_memory_fraction),
        config.rollout,
        lambda token_ids: str(tokenizer.decode(token_ids.tolist(), skip_special_tokens=True)),
    )
    try:
        yield started
    finally:
        started.close()


def is_answer_known(prompt: Prompt, config: RunConfig) -> bool:
    """Whether there is something to check against: what verifies an answer, or a task that needs nothing."""
    if prompt.answer.keys() - {"extraction"} or prompt.grader in config.rewards.tasks:
        return True
    return "correctness" not in import_module(f"rewards.tasks.{prompt.grader}").PARTS


def verdict(prompt: Prompt, text: str, config: RunConfig, console: Console) -> bool | None:
    """Print what the task's own marking says of the answer. None when it is neither right nor wrong."""
    if not is_answer_known(prompt, config):
        console.print("[yellow]not checked:[/] say with --answer what is right")
        return None
    outcome = asyncio.run(marked(prompt, prompt.assistant_prefix + text, config))
    if outcome.status != "ok":
        console.print(
            f"[yellow]not checked:[/] {prompt.grader} cannot mark it by --answer alone ({escape(outcome.reason)})"
            if outcome.status == "error"
            else f"[yellow]not checked:[/] {outcome.reason}"
        )
        return None
    if "correctness" not in outcome.marks:
        console.print(", ".join(f"{part} {value:g}" for part, value in outcome.marks.items()))
        return None
    is_right = outcome.marks["correctness"] == 1.0
    console.print("[green]right[/]" if is_right else f"[red]wrong:[/] {escape(why_wrong(prompt, text))}")
    return is_right


async def marked(prompt: Prompt, text: str, config: RunConfig) -> Outcome:
    """What the task's function makes of the assistant's turn, in a process that can be killed."""
    from rewards.registry import functions_of
    from rewards.workers.supervisor import Mark, Supervisor

    function = next(found for found in functions_of(prompt.grader, config.rewards) if found.marks_task)
    changed = asyncio.Event()
    mark = Mark(function, text, prompt.answer, changed.set)
    supervisor = Supervisor(config.rewards.memory_gib)
    try:
        supervisor.load([function])
        supervisor.submit([mark])
        while mark.outcome is None:
            await changed.wait()
            changed.clear()
        return mark.outcome
    finally:
        supervisor.close()


def why_wrong(prompt: Prompt, text: str) -> str:
    """The first thing that is wrong, as far as the task can say it."""
    if prompt.grader == "countdown":
        from rewards.tasks.countdown import mark

        return mark(prompt.assistant_prefix + text, prompt.answer).reason
    return f"the reference is {prompt.answer['answer']}"


def show(text: str, console: Console, style: str | None = None) -> None:
    """Print a piece of text as it is, at once; a model's escape sequences do not reach the terminal."""
    console.print(text.replace("\x1b", "␛"), style=style, end="", markup=False, highlight=False, soft_wrap=True)


def escape(text: str) -> str:
    from rich.markup import escape as escape_markup

    return escape_markup(text)
