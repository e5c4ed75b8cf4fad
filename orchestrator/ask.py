"""Questions to a trained model: a whole evaluation, or one problem."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.config import RunConfig
from orchestrator.policy import check_model, load_tokenizer
from orchestrator.recipes import ConfigError, apply_override, load, validate


def config_for(model: str, recipe: str | None, overrides: Sequence[str]) -> RunConfig:
    """The settings to question a model with: the named recipe's, else those of the run that the model came from."""
    run_config = Path(model).resolve().parent / "config.json"
    if recipe is None and run_config.is_file():
        settings = json.loads(run_config.read_text())
        for override in overrides:
            apply_override(settings, override)
        return validate(settings)
    return load(recipe, overrides)


def evaluate_model(model: str, recipe: str | None, overrides: Sequence[str], console: Console) -> None:
    """Print the figures of `model` on the held-out problems, and two of its completions."""
    check_model(model)
    config = config_for(model, recipe, overrides)
    from orchestrator.evaluation import evaluate
    from orchestrator.fleet import RolloutFleet, engine_spec, is_colocated, ray_cluster
    from rollout.prompts.stream import PromptStream

    with ray_cluster(config):
        spec = engine_spec(config, model, load_weights=True)
        fleet = RolloutFleet(config, spec, gpus_per_generator=1.0 if is_colocated(config) else 0.0)
        try:
            prompts = PromptStream(config.prompts, load_tokenizer(model)).held_out()
            fleet.wait_until_ready()
            result = evaluate(fleet.rollouts, prompts, config.evaluation, config.sampling.max_completion_tokens)
        finally:
            fleet.close()
    table = Table("figure", "value", title=f"{model}: {len(prompts)} held-out problems", title_justify="left")
    for k, estimate in sorted(result.pass_at.items()):
        table.add_row(f"pass@{k} (sampled, temperature {config.evaluation.temperature:g})", str(estimate))
    for title, rate in (("pass@1 (greedy)", result.greedy), ("well-formed answers", result.format_rate)):
        if rate is not None:
            table.add_row(title, str(rate))
    table.add_row("mean reward", f"{result.reward.mean:.3f} ± {result.reward.half_width:.3f}")
    table.add_row("mean completion, tokens", f"{result.mean_tokens:.1f}")
    table.add_row("cut off at the limit", f"{100 * result.truncated:.1f}%")
    console.print(table)
    for group in result.groups[:2]:
        console.print(f"\n{group.prompt.text}{group.completions[0].text}", markup=False, highlight=False)
        console.print(f"reward {group.rewards[0].total:g}")


def solve(model: str, question: str, recipe: str | None, attempts: int, console: Console) -> bool:
    """Let the model answer, and check it. True when an attempt is right."""
    check_model(model)
    config = config_for(model, recipe, ())
    if config.prompts.task != "countdown":
        raise ConfigError(
            f"prompts.task = {config.prompts.task!r}: `rayzero solve` asks Countdown's questions only. Use `rayzero eval "
            f"{model}`, which prints completions, or name a Countdown recipe with --recipe"
        )
    numbers, target = parse_question(question)
    group = sample_one(config, model, numbers, target, attempts)
    from rewards.countdown import check, extract_answer

    is_right = False
    for completion in group.completions:
        console.print(f"{group.prompt.text}[bold]{escape(completion.text)}[/]", highlight=False)
        expression = extract_answer(completion.text)
        if expression is None:
            console.print("[red]no answer:[/] no <answer>…</answer> in the completion")
            continue
        verdict = check(expression, numbers, target, config.prompts.countdown.must_use_all)
        is_right |= verdict.is_correct
        console.print("[green]right[/]" if verdict.is_correct else f"[red]wrong:[/] {escape(verdict.reason)}")
    return is_right


def sample_one(config: RunConfig, model: str, numbers: Sequence[int], target: int, attempts: int) -> Any:
    """A group of completions for one problem, from an engine in this process: no cluster for one question."""
    from rollout.actor import environment
    from rollout.config import SamplingConfig
    from rollout.prompts import countdown
    from rollout.prompts.template import Template
    from rollout.types import EngineSpec

    os.environ.update(environment(config.rollout))
    from rollout.engine import Engine

    tokenizer = load_tokenizer(model)
    problem = countdown.problem(numbers, target, config.prompts.countdown.must_use_all)
    try:
        prompt = Template(config.prompts, tokenizer).prompt("solve", problem)
    except Exception as error:  # a word-level tokenizer refuses numbers that it has no token for
        raise ConfigError(f"the model cannot read numbers {list(numbers)} and target {target}: {error}") from error
    engine = Engine(
        EngineSpec(model, config.model.dtype, config.max_model_len, load_weights=True),
        config.rollout,
        lambda token_ids: str(tokenizer.decode(token_ids.tolist(), skip_special_tokens=True)),
    )
    sampling = SamplingConfig(
        temperature=0.0 if attempts == 1 else config.sampling.temperature,
        max_completion_tokens=config.sampling.max_completion_tokens,
    )
    try:
        return next(engine.generate([prompt], sampling, attempts, config.seed))
    finally:
        engine.close()


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


def escape(text: str) -> str:
    from rich.markup import escape as escape_markup

    return escape_markup(text)
