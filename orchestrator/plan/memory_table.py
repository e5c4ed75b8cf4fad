"""Print the memory plan as tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from orchestrator.config.schema import RunConfig
from orchestrator.plan.advice import AdviceStep, advice, overrides_of
from orchestrator.plan.gpu_models import GpuModel
from orchestrator.plan.memory_plan import MARGIN, MemoryPlan, memory_plan
from orchestrator.plan.model_shapes import shape_of
from rollout.types.memory_terms import ALWAYS, GIB, LEARNING


def print_memory(config: RunConfig, gpu: GpuModel, console: Console) -> None:
    """Print the run's memory on ``gpu``, term by term, and what to change if it does not fit.

    Raises ConfigError for a run on the CPU, and for a model whose config cannot be read.
    """
    plan = memory_plan(config, shape_of(config.model), gpu)
    console.print()
    console.print(gpu_table(plan))
    console.print()
    console.print(host_table(plan))
    console.print()
    for line in (*summary(plan), *verdict(plan), *changes(advice(config, gpu))):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def gpu_table(plan: MemoryPlan) -> Table:
    """Return a table with a row for each term and a column for each phase."""
    sizes = plan.sizes
    shared = "one GPU, shared" if plan.colocated else "a GPU for each actor"
    table = Table(
        title=f"memory on {plan.gpu.name} ({plan.gpu.gib:g} GiB), {shared}, GiB · P = {sizes.P:,}, "
        f"trained T = {sizes.T:,}, ranks N = {sizes.N}",
        box=None,
        pad_edge=False,
        title_justify="left",
    )
    table.add_column("actor", style="bold")
    table.add_column("holds")
    for phase in ALWAYS:
        table.add_column(phase, justify="right")
    table.add_column("formula, bytes", style="dim")
    for term in plan.terms:
        cells = (f"{term.num_bytes / GIB:.2f}" if phase in term.phases else "" for phase in ALWAYS)
        table.add_row(term.actor, term.name, *cells, term.formula)
    totals = (f"{plan.num_bytes(phase) / GIB:.2f}" for phase in ALWAYS)
    limit = f"of {plan.usable_bytes / GIB:.2f}: {plan.gpu.gib:g} GiB minus a margin of {MARGIN:.0%}"
    table.add_row("total", "", *totals, limit, style="bold")
    return table


def host_table(plan: MemoryPlan) -> Table:
    table = Table(title="host memory, GiB", box=None, pad_edge=False, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for term in plan.host:
        table.add_row(term.actor, term.name, f"{term.num_bytes / GIB:.2f}", term.formula)
    table.add_row("total", "", f"{plan.host_bytes / GIB:.2f}", "on all machines together", style="bold")
    return table


def summary(plan: MemoryPlan) -> list[str]:
    """Return the lines about the KV cache, vLLM's share, and a warm start that needs more than the run."""
    cache = plan.kv_cache
    lines = [
        f"KV cache: {cache.num_tokens:,} tokens of {cache.bytes_per_token:,} bytes, so {cache.num_completions} "
        f"completions of full length ({cache.tokens_per_completion} tokens, prompt included) at once; "
        f"rollout.max_concurrent_completions is {cache.wanted_completions}",
        f"rollout.gpu_memory_fraction {plan.fraction.value:g}: {plan.fraction.reason}",
    ]
    if 1 <= cache.num_completions < cache.wanted_completions:
        lines.append("warning: if completions get that long, vLLM preempts some of them and computes them again")
    if plan.warm_start is not None:
        needed = ", ".join(f"{phase} {plan.warm_start_bytes(phase) / GIB:.2f} GiB" for phase in LEARNING)
        lines.append(f"the warm start trains all weights, not a LoRA: {needed}")
    return lines


def verdict(plan: MemoryPlan) -> list[str]:
    if plan.fits:
        return ["fits: generating and learning (estimated; docs/memory.md says how reliable each term is)"]
    return ["does not fit:", *(f"  {problem}" for problem in plan.problems())]


def changes(steps: Sequence[AdviceStep]) -> list[str]:
    """Return the advice, a line for each change."""
    if not steps:
        return []
    lines = ["what to change, cheapest first, each in addition to the ones before it:"]
    for step in steps:
        saved = ", ".join(f"{gib:.1f} GiB ({phase})" for phase, gib in step.saved_gib.items() if abs(gib) >= 0.05)
        settings = " ".join(step.change.overrides) or f"rollout.gpu_memory_fraction={step.after.fraction.value:g}"
        lines.append(f"  {settings}: saves {saved or 'KV cache only'}; costs {step.change.cost}")
    last = steps[-1].after
    if last.fits:
        lines.append(f"with all these changes it fits, with {last.kv_cache.num_completions} completions at once:")
        lines.append(f"  {' '.join(overrides_of(steps))}")
    else:
        lines.append("not enough: use a larger GPU, or several (learner.num_ranks, learner.zero_stage=3)")
    return lines
