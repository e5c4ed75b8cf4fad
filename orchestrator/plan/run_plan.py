"""Describe a run before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from learner.algorithm.settings import AlgorithmConfig
from learner.config import LearnerConfig, OptimizerConfig
from learner.model.attention import decide_attention
from orchestrator.config.precision import slow_bfloat16
from orchestrator.config.resolve import corrected_algorithm
from orchestrator.config.schema import RunConfig

DETERMINISM = "on a GPU with vLLM's batch-invariant and PyTorch's deterministic kernels, slower (docs/placement.md)"


def print_rows(name: str, rows: Sequence[tuple[str, str]], console: Console) -> None:
    """Print the titles and texts of a plan below the run's name."""
    table = Table(title=f"rayzero · {name}", show_header=False, box=None, pad_edge=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for title, text in rows:
        table.add_row(title, Text(text))  # not parsed as markup: a stop text may be `[/INST]`
    console.print(table)


def plan(config: RunConfig) -> list[tuple[str, str]]:
    """Return titles and texts: the batch arithmetic, the actors and their resources, all settings of the algorithm."""
    return [
        ("policy", policy_line(config)),
        ("task", task_line(config)),
        ("batch", batch_line(config)),
        ("actors", actors_line(config)),
        ("algorithm", algorithm_line(config)),
        ("attention", attention_line(config)),
        ("optimizer", knobs(optimizer_settings(config.learner, config.learner))),
        ("sampling", knobs(config.sampling.model_dump())),
        ("rewards", rewards_line(config)),
        ("evaluation", evaluation_line(config)),
        ("run directory", str(config.directory)),
        *((("determinism", DETERMINISM),) if config.deterministic else ()),
        *(("warning", notice) for notice in notices(config)),
    ]


def notices(config: RunConfig) -> list[str]:
    """Return warnings about settings that are allowed but have made runs fail, slow or hard to understand."""
    updates, algorithm = config.learner.updates_per_step, config.learner.algorithm
    slow = slow_bfloat16(config.model.dtype, config.placement.mode)
    texts = [slow] if slow else []
    if corrected_algorithm(config) != algorithm:
        texts.append(
            f"max_staleness {config.max_staleness}: part of each batch may be sampled with weights that are up to "
            f"{config.max_staleness} steps old, so mismatch_correction is switched on, truncated at "
            f"{algorithm.mismatch_high:g}; learner.algorithm.mismatch_correction=off trains without it"
        )
    if updates > 1 and algorithm.surrogate == "policy_gradient":
        texts.append(
            f"learner.updates_per_step {updates} with surrogate policy_gradient: after the first optimizer step the "
            "policy differs from the one that sampled the completions, and no ratio corrects that; one of our runs "
            "collapsed (docs/algorithms.md). Set updates_per_step=1, or surrogate=ppo_clip with the same first step"
        )
    if algorithm.kl_beta > 0 and algorithm.kl_placement == "loss" and algorithm.kl_estimator == "k1":
        texts.append("kl_estimator k1 in the loss has zero expected gradient and adds only noise: use k2, k3 or exact")
    return texts


def policy_line(config: RunConfig) -> str:
    warm = config.warm_start
    if warm.num_steps == 0:
        return model_line(config) + ("; random weights" if config.model.build else "")
    examples = f"examples of {warm.data}" if warm.data else "traces"
    return f"{model_line(config)}; warm start of {warm.num_steps} steps × {warm.sequences_per_step} {examples}"


def model_line(config: RunConfig) -> str:
    """Describe the policy's model, and its teacher if it has one."""
    build, dtype = config.model.build, config.model.dtype
    taught = "" if config.model.teacher is None else f", taught by {config.model.teacher}"
    if build is None:
        return f"{config.model.path}, {dtype}{taught}"
    shape = f"{build.num_layers} layers, hidden {build.hidden_size}, {build.num_heads} heads of {build.head_size}"
    return f"built: {build.architecture}, {shape}, {dtype}{taught}"


def task_line(config: RunConfig) -> str:
    prompts = config.prompts
    tasks = [
        f"{'' if name == task.name else f'{name}: '}{task.task} from {getattr(task.settings, 'source', 'generated')}"
        for name, task in prompts.tasks.items()
    ]
    stages = f", in {len(prompts.curriculum.stages)} stages" if prompts.curriculum.stages else ""
    return f"{'; '.join(tasks)}{stages}, prompt format {prompts.format}, {prompts.num_held_out} problems held out"


def batch_line(config: RunConfig) -> str:
    updates = config.learner.updates_per_step
    return (
        f"{config.num_steps} steps × {config.prompts_per_step} prompts × {config.group_size} completions = "
        f"{config.completions_per_step} completions a step, trained in {updates} optimizer step{'s' * (updates > 1)} "
        f"of {config.completions_per_step / updates:g}; at most {config.sampling.max_completion_tokens} tokens each, "
        f"microbatches of {config.learner.max_tokens_per_microbatch} tokens"
    )


def actors_line(config: RunConfig) -> str:
    rollout, learner, rewards = config.rollout, config.learner, config.rewards
    return (
        f"{rollout.num_generators} × generator ({rollout.cpus_per_generator:g} CPU), "
        f"{learner.num_ranks} × learner ({learner.cpus_per_rank:g} CPU, ZeRO {learner.zero_stage}), "
        f"{rewards.num_workers} × reward ({rewards.cpus_per_worker:g} CPU); placement {config.placement.mode}"
    )


def algorithm_line(config: RunConfig) -> str:
    """Describe the preset, the settings that differ from it, and then all settings."""
    settings = config.learner.algorithm.model_dump()
    name = settings.pop("preset")
    preset = AlgorithmConfig(preset=name).model_dump()
    changed = {knob: value for knob, value in settings.items() if value != preset[knob]}
    title = f"preset {name}" + (f" with {knobs(changed)}" if changed else "")
    return f"{title}: {knobs(settings)}"


def attention_line(config: RunConfig) -> str:
    """Describe the learner's attention. Assumes that the learner's machine has the same packages as this one."""
    attention = decide_attention(config.model, on_gpu=config.placement.mode != "cpu")
    condition = ", if it gets a GPU" if config.placement.mode == "auto" and attention.name != "sdpa" else ""
    return f"{attention.name} on the learner ({attention.reason}{condition})"


def optimizer_settings(learner: LearnerConfig, course: OptimizerConfig) -> dict[str, object]:
    """Return the learner's optimizer with the settings in `course`, which are different for a warm start."""
    names = ("learning_rate", "lr_schedule", "warmup_steps", "adam_betas", "weight_decay", "max_grad_norm")
    return {"optimizer": learner.optimizer} | {name: getattr(course, name) for name in names}


def rewards_line(config: RunConfig) -> str:
    rewards = config.rewards
    ensembles = [f"{name} = {each.by} of ({knobs(each.weights)})" for name, each in rewards.ensembles.items()]
    judges = [f"{name} judged by {each.model} at {each.base_url}" for name, each in rewards.judges.items()]
    return "; ".join([knobs(rewards.weights), *ensembles, *judges, f"deadline {rewards.deadline_s:g} s a completion"])


def evaluation_line(config: RunConfig) -> str:
    evaluation = config.evaluation
    when = f" and every {evaluation.every_steps} steps" if evaluation.every_steps else ""
    count = evaluation.num_prompts or config.prompts.num_held_out
    formats = ", ".join(config.measured_formats)
    samples = f"{count} prompts × {evaluation.completions_per_prompt}, and greedy"
    return f"before and after training{when}: {samples}; prompt formats: {formats}"


def knobs(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
