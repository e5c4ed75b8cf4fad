"""Make the card of a trained model, in the hub's Markdown, from its run alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.push.ingredients import LICENCE, PAIRS, QUESTIONS, UNKNOWN, Ingredient, base_of, data_of, teacher_of
from orchestrator.push.limits import limits
from orchestrator.report.cost import training_seconds
from orchestrator.report.page.group_credit import learns_without_rewards
from orchestrator.report.page.overview import overview
from orchestrator.report.reading.digests import KeptDigests
from orchestrator.report.reading.recorded_run import RecordedRun
from orchestrator.report.report import rayzero_version

TAGS = ("rayzero", "reasoning")
LEFT_OUT = ("Model", "Task", "Actors")
"""Facts that are in other parts of a card, or that describe the machine."""
OF_REINFORCEMENT = ("A step", "Algorithm", "Learning rate", "Cost")
"""Facts about settings that supervised training does not use."""


@dataclass(frozen=True, slots=True)
class Card:
    """A model's description for the hub."""

    title: str
    text: str
    """The complete Markdown of README.md, with the front matter."""
    recipe: str
    """TOML that repeats the run."""
    base: Ingredient
    """The model from which the run started."""


def card_of(run: RecordedRun, repository: str, licence: str | None = None) -> Card:
    """Return the card of a run's model.

    Args:
        repository: OWNER/NAME on the hub.
        licence: the model's licence; by default the base model's.
    """
    held_out = KeptDigests(run.path).of(run.held_out)
    shown, base, data = overview(run, held_out), base_of(run), data_of(run)
    title = repository.partition("/")[2]
    parts = [
        [f"# {title}", headline(run, shown)],
        ["## Results", *results(shown)],
        ["## How it was trained", *training(run, shown)],
        ["## What it was made from", *ingredients([base, *teacher_of(run), *data])],
        ["## Limits", "\n".join(f"- {plain(limit)}" for limit in limits(run, shown))],
        ["## Use it", *usage(run, repository, base)],
        ["## Repeat it", *repetition(run, shown)],
    ]
    body = "\n\n".join(text for part in parts for text in part)
    meta = front_matter(run, base, data, licence)
    return Card(title, f"---\n{meta}\n---\n\n{body}\n", shown["recipe"], base)


def method_of(run: RecordedRun) -> tuple[str, list[str]]:
    """Return what trained the model, in words, and its tags on the hub."""
    if not run.setting("num_steps"):
        return "supervised training", ["sft"]
    if learns_without_rewards(run.settings):
        return "distillation from a teacher", ["distillation"]
    algorithm = str(run.setting("learner.algorithm.preset") or "")
    tags = ["reinforcement-learning", *([algorithm.replace("_", "-")] if algorithm else [])]
    return f"reinforcement learning ({algorithm.upper()})", tags


def front_matter(run: RecordedRun, base: Ingredient, data: list[Ingredient], licence: str | None) -> str:
    """Return the metadata that the hub's programs read, as YAML."""
    from huggingface_hub import ModelCardData

    known = base.licence if LICENCE.fullmatch(base.licence) else UNKNOWN
    return ModelCardData(
        license=licence or known.lower(),
        base_model=base.hub or None,
        datasets=sorted({each.hub for each in data if each.hub}) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[*TAGS, *method_of(run)[1], *(["lora"] if run.setting("model.lora") else [])],
    ).to_yaml()


def headline(run: RecordedRun, shown: Mapping[str, Any]) -> str:
    model = plain(shown["model"])
    task, (how, _) = plain(shown["task"]), method_of(run)
    return f"{model[:1].upper()}{model[1:]}, trained on {task} by {how} with Rayzero {rayzero_version()}."


def results(shown: Mapping[str, Any]) -> Iterator[str]:
    """Yield the held-out figures, or the rewards of training if there are none, and the curve."""
    figures, outcome = shown["figures"], shown["outcome"]
    if figures:
        first, last = shown["evaluated"]
        head = ["", f"step {first}", *([f"step {last}", "change"] if last != first else [])]
        rows = [[each["title"], *cells(each, is_one=first == last)] for each in figures]
        yield table(head, rows)
        yield (
            f"Measured on {shown['problems']} held-out problems, which were not used in training. The numbers after ± "
            "are half widths of 95% intervals over problems."
        )
    elif outcome:
        before, after = cells(outcome)[:2]
        yield (
            f"Not measured on held-out problems. {outcome['title'].capitalize()}, over the first and the last tenth of "
            f"the steps: {before} and {after}."
        )
    else:
        yield "Nothing was measured."
    if outcome:
        yield "![the run's curve](curve.png)"


def cells(figure: Mapping[str, Any], *, is_one: bool = False) -> list[str]:
    """Return the cells of a figure: before, after, and the change; only the first if ``is_one``."""
    before, after = figure["before"], figure["after"]
    shown = [value(before, figure), value(after, figure)]
    if is_one:
        return shown[:1]
    if before[0] is None or after[0] is None:
        return [*shown, ""]
    scale, unit = (100, " points") if figure["is_rate"] else (1, "")
    digits = 1 if figure["is_rate"] or abs(after[0]) >= 10 else 3
    difference, interval = after[0] - before[0], ""
    if figure.get("change"):
        difference, low, high, p = figure["change"]
        p_text = "" if p is None else ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"
        interval = f" (95% interval {scale * low:+.{digits}f} to {scale * high:+.{digits}f}{p_text})"
    return [*shown, f"{scale * difference:+.{digits}f}{unit}{interval}"]


def value(estimate: list[float | None], figure: Mapping[str, Any]) -> str:
    mean, half = estimate
    if mean is None:
        return ""
    scale, unit = (100, "%") if figure["is_rate"] else (1, "")
    digits = 1 if figure["is_rate"] or abs(mean) >= 10 else 3
    return f"{scale * mean:.{digits}f}{unit}" + (f" ± {scale * half:.{digits}f}" if half is not None else "")


def training(run: RecordedRun, shown: Mapping[str, Any]) -> Iterator[str]:
    left_out = LEFT_OUT if run.setting("num_steps") else (*LEFT_OUT, *OF_REINFORCEMENT)
    rows = [[label, text] for label, text in shown["facts"] if label not in left_out]
    if shown["seconds"]:
        seconds = training_seconds(run.rows)
        rows.append(["Time", f"{seconds / 60:,.1f} minutes, without evaluations"])
    yield table(["", ""], rows)


def ingredients(items: list[Ingredient]) -> Iterator[str]:
    rows = []
    for each in items:
        name = f"[{each.hub}](https://huggingface.co/{link(each)})" if each.hub else plain(each.name)
        commit = f", commit {plain(each.revision)}" if each.revision else ""
        rows.append([each.role, name + commit, plain(each.licence)])
    yield table(["", "", "licence"], rows, is_plain=True)


def link(each: Ingredient) -> str:
    return f"datasets/{each.hub}" if each.role in (PAIRS, QUESTIONS) else each.hub


def usage(run: RecordedRun, repository: str, base: Ingredient) -> Iterator[str]:
    """Yield how to use the model, and its adapter if it has one."""
    serve = f"$ vllm serve {repository}"
    if isinstance(run.setting("warm_start.data"), str) and not run.setting("num_steps"):
        yield "Use prompts of the same form as those of the supervised pairs."
    else:
        yield (
            "Use prompts of the same form as in training: `recipe.toml` has the templates (`prompts`), the sampling "
            "settings and the stop texts."
        )
        serve = f'$ rayzero solve {repository} "QUESTION" --recipe recipe.toml\n{serve}'
    yield block("console", serve)
    yield block(
        "python",
        "from transformers import pipeline\n\n"
        f'ask = pipeline("text-generation", model="{repository}")\nprint(ask("PROMPT", max_new_tokens=256))',
    )
    if not run.setting("model.lora"):
        return
    yield "The adapter is merged into these weights; `adapter/` has the adapter alone, in peft's format."
    is_warm_started = run.setting("num_steps") and run.setting("warm_start.num_steps")
    if base.hub and not is_warm_started:
        load = f'model = PeftModel.from_pretrained(base, "{repository}", subfolder="adapter")'
        yield block("python", f'base = AutoModelForCausalLM.from_pretrained("{base.hub}")\n{load}')
    else:
        yield "The adapter was trained on weights that are not on the hub, so it does not fit any model there."


def repetition(run: RecordedRun, shown: Mapping[str, Any]) -> Iterator[str]:
    command = "train" if run.setting("num_steps") else "sft"
    yield "`recipe.toml` contains this recipe; all other settings have their defaults."
    yield block("console", f"$ rayzero {command} recipe.toml")
    yield block("toml", shown["recipe"].strip())
    yield "Paths are shortened to their last part; addresses, keys, and the run's folder are left out."


def block(language: str, text: str) -> str:
    """Return a fenced block. No line of the recipe can end it, because keys are quoted and texts are escaped."""
    return f"```{language}\n{text}\n```"


def table(head: list[str], rows: list[list[str]], *, is_plain: bool = False) -> str:
    lines = [head, ["---"] * len(head), *([cell if is_plain else plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """Return the text on one line, escaped so that Markdown and HTML show it unchanged."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*[]|":
        text = text.replace(character, f"\\{character}")
    return text
