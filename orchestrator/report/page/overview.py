"""The page Summary: the model, its task, the time and cost of training, and the result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import hypot, isfinite
from pathlib import PurePath
from typing import Any

from orchestrator.evaluate.statistics import Estimate, average
from orchestrator.records.health.monitor import ALARMS
from orchestrator.report.cost import cost, num_actors, total
from orchestrator.report.page.comparison import difference_figures, paired, paired_means
from orchestrator.report.page.events import verdicts
from orchestrator.report.reading.digest import MEANS, StepDigest
from orchestrator.report.reading.privacy import HIDDEN, last_part, without_places
from orchestrator.report.reading.recorded_run import RecordedRun, Row
from orchestrator.report.settings_text import changed, to_toml
from orchestrator.report.summary import evaluations, is_rate, rows

QUANTIZED = re.compile(r"(?:[.-](?:I?Q\d\w*|B?F16|F32))?\.gguf$")
"""The end of a GGUF file's name."""
AROUND = 10
"""A run without evaluations is compared with itself over the first and the last tenth of its steps."""
NAMES = {"generator": "generator", "learner": "learner rank", "reward": "reward worker"}
"""Names of the kinds of actors, by the beginnings of the actors' names."""


def overview(run: RecordedRun, held_out: Mapping[int, StepDigest]) -> dict[str, Any]:
    """Return the page's data."""
    evaluated = evaluations(run.rows)
    table = figures(evaluated, held_out)
    return {
        "model": model_name(run),
        "task": task_name(run),
        "command": "sft" if run.is_supervised else "train",
        "state": run.state,
        "steps": [run.last_step, run.num_steps],
        "outcome": table[0] if table else training_outcome(run.rows),
        "figures": table,
        "evaluated": [int(evaluated[0]["step"]), int(evaluated[-1]["step"])] if evaluated else [],
        "problems": num_problems(run, held_out),
        "facts": facts(run),
        "seconds": total(run.rows, "time/step_s"),
        "outlook": run.outlook,
        "checks": 0 if run.is_supervised else len(ALARMS),
        "verdicts": verdicts(run),
        "recipe": to_toml(changed(run.settings)) if run.settings else "",
    }


def num_problems(run: RecordedRun, held_out: Mapping[int, StepDigest]) -> int:
    """Return the number of held-out problems of the last evaluation; the recipe's if no completions were kept.

    The recipe's may be larger: rows that cannot be used are left out, also of the held-out ones.
    """
    if held_out:
        return held_out[max(held_out)].num_groups
    return run.setting("evaluation.num_prompts") or run.setting("prompts.num_held_out") or 0


def figures(evaluated: Sequence[Mapping[str, float]], held_out: Mapping[int, StepDigest]) -> list[dict[str, Any]]:
    """Return each held-out figure before and after, and its change, as `rayzero train` prints them at its end."""
    if not evaluated:
        return []
    first, last = evaluated[0], evaluated[-1]
    digests = held_out.get(int(first["step"])), held_out.get(int(last["step"]))
    made = []
    for title, name in rows(first).items():
        before, after = (estimate(*each, name) for each in zip((first, last), digests, strict=True))
        each = {"title": title, "is_rate": is_rate(f"eval/{name}"), "before": before, "after": after}
        if first is not last:
            each["change"] = change(*digests, name)
            if each["change"] is None and before[1] is not None and after[1] is not None:
                # This is the interval for two different sets of problems. They are the same here, so it is too wide.
                each["change_half"] = hypot(before[1], after[1])
        made.append(each)
    return made


def estimate(line: Mapping[str, float], digest: StepDigest | None, name: str) -> list[float | None]:
    """Return a figure and the half width of its interval; None for a value that was not measured.

    If the run logs no interval, it is computed from the `digest` of the evaluation, if completions were kept.
    """
    half = line.get(f"eval/{name}_ci95")
    if half is None and digest is not None and (means := means_of(digest, name)):
        half = average([*means.values()]).half_width
    return [known(line.get(f"eval/{name}")), known(half)]


def known(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def change(before: StepDigest | None, after: StepDigest | None, name: str) -> list[float | None] | None:
    """Return the change in a figure with its interval and p-value (if known), paired by problem.

    None if completions were not kept, or do not determine the figure: greedy completions are never kept.
    """
    if before is None or after is None:
        return None
    difference: Estimate | None = paired(counts_of(after, name), counts_of(before, name))
    difference = difference or paired_means(means_of(after, name), means_of(before, name))
    return None if difference is None else difference_figures(difference)


def counts_of(digest: StepDigest, name: str) -> Mapping[str, Sequence[int]]:
    """Return, by problem, the number of completions that a share counts, and of all; empty if `name` is not a share."""
    if name == "format_rate":
        return digest.formatted
    return solved(digest.right, int(name.removeprefix("pass_at_"))) if name.startswith("pass_at_") else {}


def means_of(digest: StepDigest, name: str) -> Mapping[str, float]:
    """Return, by problem, the mean over its completions; empty if `name` is not in MEANS."""
    return {problem: means[MEANS.index(name)] for problem, means in digest.means.items()} if name in MEANS else {}


def solved(right: Mapping[str, Sequence[int]], k: int) -> Mapping[str, Sequence[int]]:
    """Return, by problem, how often pass@k counts it as solved, and the number of attempts."""
    if k == 1:
        return right
    return {problem: [int(count > 0), 1] for problem, (count, of) in right.items() if of == k}


def training_outcome(lines: Sequence[Row]) -> dict[str, Any] | None:
    """Return a figure of the training prompts over the first and the last tenth, for a run without evaluations."""
    for key, title in (("reward/correctness", "right on training prompts"), ("reward/total", "mean reward, training")):
        values = [line[key] for line in lines if key in line and isfinite(line[key])]
        if values:
            count = max(1, len(values) // AROUND)
            ends = [sum(part) / count for part in (values[:count], values[-count:])]
            return {
                "title": title, "is_rate": key == "reward/correctness", "is_training": True,
                "before": [ends[0], None], "after": [ends[1], None],
            }  # fmt: skip
    return None


def facts(run: RecordedRun) -> list[tuple[str, str]]:
    """Return the most important facts about a run, each with a label."""
    tokens, completions = total(run.rows, "rollout/sampled_tokens"), batch(run)
    algorithm = run.setting("learner.algorithm.preset")
    lora, pairs = run.setting("model.lora"), run.setting("warm_start.sequences_per_step")
    rate = run.setting("warm_start.learning_rate" if run.is_supervised else "learner.learning_rate")
    if run.is_supervised:
        algorithm, completions = "supervised, by rayzero sft", f"{pairs:,} examples" if isinstance(pairs, int) else ""
    found = {
        "Model": model_name(run) + (f", {dtype}" if (dtype := run.setting("model.dtype")) else ""),
        "Task": task_name(run),
        "Steps": f"{run.last_step:,} of {run.num_steps:,}",
        "A step": completions,
        "Sampled": f"{tokens:,.0f} tokens" if tokens else "",
        "Algorithm": f"{algorithm}" if algorithm else "",
        "Trains": ("" if not run.settings else "a LoRA" if lora else "all weights"),
        "Teacher": "" if run.is_supervised else teacher_name(run),
        "Learning rate": f"{rate:g}" if isinstance(rate, int | float) else "",
        "Actors": ", ".join(plural(count, NAMES[kind]) for kind, count in num_actors(run).items() if count),
        "Cost": cost(run),
        "Seed": str(run.setting("seed", "")),
    }
    return [(label, text) for label, text in found.items() if text]


def batch(run: RecordedRun) -> str:
    prompts, size = run.setting("prompts_per_step"), run.setting("group_size")
    if not isinstance(prompts, int) or not isinstance(size, int):
        return ""
    return f"{prompts:,} prompts × {size:,} completions"


def plural(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def model_name(run: RecordedRun) -> str:
    """Return the policy's name: the last part of its path, or how it was built."""
    build, path = run.setting("model.build"), run.setting("model.path")
    if isinstance(build, dict):
        return f"a {build.get('num_layers', '?')}-layer {build.get('architecture', 'model')} from scratch"
    shown = without_places(path, "path") if isinstance(path, str) else ""
    if not shown or shown == HIDDEN:
        return "a model"
    return QUANTIZED.sub("", PurePath(shown).name)


def teacher_name(run: RecordedRun) -> str:
    """Return the name of the teacher; empty without a teacher. A run's final model has the name of the run."""
    if run.setting("learner.algorithm.surrogate") != "none":
        return ""
    teacher = run.setting("model.teacher")
    shown = without_places(teacher, "path") if isinstance(teacher, str) else ""
    path = PurePath(shown)
    return "" if shown == HIDDEN else path.parent.name if path.name == "final" else path.name


def task_name(run: RecordedRun) -> str:
    """Return the names of the tasks, in words; of supervised training on a file of pairs, the name of the file."""
    if run.is_supervised and isinstance(data := run.setting("warm_start.data"), str):
        file = last_part(without_places(data, "path"))
        return "pairs of its own" if file == HIDDEN else file
    mixture = run.setting("prompts.mixture") or {}
    names = [str(each.get("task", name)) for name, each in mixture.items() if isinstance(each, dict)]
    names = names or [str(run.setting("prompts.task") or run.setting("task.name") or "")]
    if names == ["reasoning_gym"]:
        found = [str(each.get("name", "")) for each in run.setting("prompts.reasoning_gym.datasets") or []]
        names = [f"{', '.join(dict.fromkeys(found))} (reasoning-gym)" if found else "reasoning-gym"]
    return " and ".join(dict.fromkeys(name.replace("_", " ") for name in names if name)) or "a task of its own"
