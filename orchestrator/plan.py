"""The resolved plan of a run, printed before anything starts."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from orchestrator.config import RunConfig


def print_plan(config: RunConfig, console: Console) -> None:
    """Batch arithmetic, actors and their resources, and every knob of the algorithm."""
    table = Table(title=f"rayzero · {config.name}", show_header=False, box=None, pad_edge=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for title, text in plan(config):
        table.add_row(title, text)
    console.print(table)


def plan(config: RunConfig) -> list[tuple[str, str]]:
    """Titles and lines of the plan."""
    return [
        ("policy", policy_line(config)),
        ("task", task_line(config)),
        ("batch", batch_line(config)),
        ("actors", actors_line(config)),
        ("algorithm", knobs(config.learner.algorithm.model_dump())),
        ("optimizer", knobs(optimizer_settings(config))),
        ("sampling", knobs(config.sampling.model_dump())),
        ("rewards", knobs(config.rewards.weights) + f", deadline {config.rewards.deadline_s:g} s a completion"),
        ("evaluation", evaluation_line(config)),
        ("run directory", str(config.directory)),
    ]


def policy_line(config: RunConfig) -> str:
    build, dtype = config.model.build, config.model.dtype
    if build is None:
        return f"{config.model.path}, {dtype}"
    warm = config.warm_start
    start = (
        f"warm start of {warm.num_steps} steps × {warm.sequences_per_step} traces"
        if warm.num_steps
        else "random weights"
    )
    shape = f"{build.num_layers} layers, hidden {build.hidden_size}, {build.num_heads} heads of {build.head_size}"
    return f"built: {build.architecture}, {shape}, {dtype}; {start}"


def task_line(config: RunConfig) -> str:
    prompts = config.prompts
    source = getattr(prompts, prompts.task).source
    return f"{prompts.task} from {source}, {prompts.num_held_out} problems held out"


def batch_line(config: RunConfig) -> str:
    updates = config.learner.updates_per_step
    return (
        f"{config.num_steps} steps × {config.prompts_per_step} prompts × {config.group_size} completions = "
        f"{config.completions_per_step} completions a step, trained in {updates} optimizer step{'s' * (updates > 1)} of "
        f"{config.completions_per_step / updates:g}; at most {config.sampling.max_completion_tokens} tokens each, "
        f"microbatches of {config.learner.max_tokens_per_microbatch} tokens"
    )


def actors_line(config: RunConfig) -> str:
    rollout, learner, rewards = config.rollout, config.learner, config.rewards
    return (
        f"{rollout.num_generators} × generator ({rollout.cpus_per_generator:g} CPU), "
        f"{learner.num_ranks} × learner ({learner.cpus_per_rank:g} CPU, ZeRO {learner.zero_stage}), "
        f"{rewards.num_workers} × reward ({rewards.cpus_per_worker:g} CPU); placement {config.placement.mode}"
    )


def optimizer_settings(config: RunConfig) -> dict[str, object]:
    names = ("learning_rate", "lr_schedule", "warmup_steps", "adam_betas", "weight_decay", "max_grad_norm")
    return {name: getattr(config.learner, name) for name in names}


def evaluation_line(config: RunConfig) -> str:
    evaluation = config.evaluation
    when = f", every {evaluation.every_steps} steps" if evaluation.every_steps else ""
    return (
        f"before, after{when}: {config.prompts.num_held_out} prompts × {evaluation.completions_per_prompt}, and greedy"
    )


def knobs(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
