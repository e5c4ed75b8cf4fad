"""The charts of the page Learning: whether the policy gets better, what it learns from, and if the update is sound."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from orchestrator.evaluate.evaluation import natural_order
from orchestrator.evaluate.statistics import Estimate, rate
from orchestrator.report.page.chart import Chart, Line, Role, healthy, healthy_each, metric_chart, present
from orchestrator.report.reading.digest import StepDigest
from rollout.types.prompts import PromptFormat

Digests = Mapping[int, StepDigest]
OWN_PARTS = ("timeouts", "errors", "right_untagged", "total")
"""Metrics under reward/ that are not parts of the reward."""
ROLES: tuple[Role, ...] = ("main", "second", "third", "muted", "run3", "run4", "wrong")
"""Roles for the lines of a chart with a line for each part or entry. All look different. Further lines are left out."""


def learning_sections(keys: Collection[str], held_out: Digests, reference: str) -> list[dict[str, Any]]:
    """Return the sections of the page with their charts, without empty sections.

    Args:
        keys: the keys of the run's metrics, and of the means over its completions.
        held_out: digests of the evaluations, by step.
        reference: the name of the model in the KL: the reference or the teacher.
    """
    sections = {
        "Does it get better?": [*results(keys), *by_difficulty(held_out)],
        "What is there to learn from?": [*rewards(keys), *groups(keys)],
        "How does it write?": lengths(keys),
        "Is the update sound?": updates(keys, reference),
        "Does the learner train on what was sampled?": sampling(keys),
    }
    made = {title: present(charts) for title, charts in sections.items()}
    return [{"title": title, "charts": charts} for title, charts in made.items() if charts]


def results(keys: Collection[str]) -> list[Chart | None]:
    training = "reward/correctness"
    sizes = sorted(int(size) for key in keys if (size := key.removeprefix("eval/pass_at_")).isdecimal())
    formats = [name for name in get_args(PromptFormat) if f"eval/{name}/pass_at_1" in keys]
    return [
        metric_chart(
            "Right answers", keys,
            Line("held-out pass@1", "eval/pass_at_1"),
            Line("held-out greedy", "eval/greedy_pass_at_1", "second"),
            Line("training prompts", training, "muted"),
        ),
        metric_chart(
            "pass@k on held-out problems", keys,
            *(Line(f"pass@{k}", f"eval/pass_at_{k}", role)
              for k, role in zip(reversed(sizes), ROLES, strict=False)),
        ) if len(sizes) > 1 else None,
        metric_chart(
            "Held-out pass@1 by format", keys,
            Line("the recipe's own", "eval/pass_at_1"),
            *(Line(name.replace("_", " "), f"eval/{name}/pass_at_1", role)
              for name, role in zip(formats, ROLES[1:], strict=False)),
            note=healthy(f"eval/{formats[0]}/pass_at_1"),
        ) if formats else None,
        by_entry(keys, "Right answers by entry of the mixture, training", "reward/correctness/<source>"),
        by_entry(keys, "Share of the prompts by entry of the mixture", "rollout/share/<source>"),
        metric_chart("Well-formed answers, held-out", keys, Line("well-formed", "eval/format_rate")),
    ]  # fmt: skip


def by_entry(keys: Collection[str], title: str, metric: str) -> Chart | None:
    """Return a chart of a metric with a line for each entry of a mixture; None if there is no mixture."""
    prefix = metric.removesuffix("<source>")
    found = sorted((key for key in keys if key.startswith(prefix)), key=natural_order)
    lines = [Line(key.removeprefix(prefix), key, role) for key, role in zip(found, ROLES, strict=False)]
    return metric_chart(title + of_all(len(lines), len(found)), keys, *lines)


def of_all(shown: int, known: int) -> str:
    """Return the end of a title if not all lines are shown, such as ` (7 of 9)`; else an empty text."""
    return f" ({shown} of {known})" if shown < known else ""


def by_difficulty(held_out: Digests) -> list[Chart]:
    """Return pass@1 for each difficulty in the first and the last evaluation."""
    steps = [step for step in held_out if held_out[step].difficulties]
    if not steps:
        return []
    labels = sorted(held_out[steps[-1]].difficulties, key=natural_order)
    lines = []
    for step, role in dict.fromkeys([(steps[0], "muted"), (steps[-1], "main")]):
        found = [by_prompt(held_out[step].difficulties.get(label)) for label in labels]
        lines.append(intervals(f"step {step}", labels, found, role))
    note = f"95% intervals over the problems of each difficulty, before and after. {healthy('eval/pass_at_1')}"
    return [Chart("Held-out pass@1 by difficulty", "share", lines, note, kind="groups", x_title="")]


def by_prompt(counts: Sequence[Sequence[int]] | None) -> Estimate | None:
    return rate([right / of for right, of in counts], max(of for _, of in counts)) if counts else None


def intervals(label: str, x: Sequence[Any], found: Sequence[Estimate | None], role: Any) -> Line:
    """Return a line of estimates with their intervals."""
    mean, low, high = (
        [None if each is None else round(getattr(each, name), 5) for each in found] for name in ("mean", "low", "high")
    )
    return Line(label, role=role, x=x, y=mean, low=low, high=high)


def rewards(keys: Collection[str]) -> list[Chart | None]:
    parts = sorted(
        (key for key in keys
         if key.startswith("reward/") and key.count("/") == 1 and key.removeprefix("reward/") not in OWN_PARTS),
        key=natural_order,
    )  # fmt: skip
    charts = [
        metric_chart("Mean reward", keys, Line("reward", "reward/total"), Line("held-out", "eval/reward", "second"))
    ]
    if parts:
        lines = [
            Line(key.removeprefix("reward/").replace("_", " "), key, role)
            for key, role in zip(parts, ROLES, strict=False)
        ]
        title, note = "Reward, part by part" + of_all(len(lines), len(parts)), healthy_each(lines) or healthy(parts[0])
        charts.append(Chart(title, "value of the part", lines, note))
    failed = [Line("timed out", "reward/timeouts"), Line("failed", "reward/errors", "second")]
    return [*charts, metric_chart("Completions that could not be graded", keys, *failed)]


def groups(keys: Collection[str]) -> list[Chart | None]:
    share, wrong, right = (f"rollout/groups_{name}" for name in ("without_spread", "all_wrong", "all_right"))
    outcome = None
    if wrong in keys:
        lines = [Line("none right", wrong, "wrong"), Line("all right", right, "right")]
        note = f"Only mixed groups teach what is right. {healthy_each(lines)}"
        outcome = Chart("Groups by outcome", "share", lines, note, kind="stack", rest="mixed")
    note = f"1 - {wrong} is the most that the step can learn. For {wrong}: {healthy(wrong)}"
    return [
        outcome,
        metric_chart("Groups without spread", keys, Line("without spread", share)),
        metric_chart("pass@group on training prompts", keys, Line("pass@group", "group/solved"), note=note),
    ]


def lengths(keys: Collection[str]) -> list[Chart | None]:
    length, cut_off = "rollout/completion_tokens", "rollout/truncated"
    sides = right_and_wrong(length) if f"right/{length}" in keys else ()
    title = "Length of right and wrong completions, training" if sides else "Length of completions"
    return [
        metric_chart(title, keys, Line("all", length, "muted") if sides else Line("mean", length), *sides),
        metric_chart(
            "Cut off at the limit", keys, *(right_and_wrong(cut_off) if sides else [Line("cut off", cut_off)])
        ),
        metric_chart(
            "Length of right and wrong completions, held-out", keys,
            Line("wrong", "eval/wrong_completion_tokens", "wrong"),
            Line("right", "eval/right_completion_tokens", "right"),
        ),
    ]  # fmt: skip


def right_and_wrong(key: str) -> tuple[Line, Line]:
    return Line("wrong", f"wrong/{key}", "wrong"), Line("right", f"right/{key}", "right")


def updates(keys: Collection[str], reference: str) -> list[Chart | None]:
    kl = sorted(key for key in keys if key.startswith("optim/kl_k") or key == "optim/kl_exact")
    return [
        metric_chart("Entropy", keys, Line("entropy", "optim/entropy")),
        metric_chart(f"KL to {reference}", keys, *(Line(key.removeprefix("optim/kl_"), key) for key in kl[:1])),
        metric_chart("Gradient norm", keys, Line("gradient norm", "optim/grad_norm")),
        metric_chart("Clipped tokens", keys, Line("clipped", "optim/clip_fraction")),
        metric_chart("Learning rate", keys, Line("learning rate", "optim/learning_rate")),
        metric_chart("Loss", keys, Line("loss", "optim/loss")),
        metric_chart("The critic's explained variance", keys, Line("explained", "optim/value_explained_variance")),
        metric_chart("The critic's loss", keys, Line("value loss", "optim/value_loss")),
    ]


def sampling(keys: Collection[str]) -> list[Chart | None]:
    return [
        metric_chart(
            "Gap between sampler and learner", keys,
            Line("mean", "rollout/logprob_gap"), Line("largest", "rollout/logprob_gap_max", "muted"), log=True,
        ),
        metric_chart("Mismatch, k3 estimate of the KL", keys, Line("mismatch", "rollout/mismatch_kl"), log=True),
        metric_chart(
            "Staleness", keys,
            Line("mean", "rollout/staleness"), Line("largest", "rollout/staleness_max", "muted"),
        ),
        metric_chart("Stage of the curriculum", keys, Line("stage", "curriculum/stage")),
        metric_chart("Pass rate of the stage", keys, Line("pass rate", "curriculum/stage_pass_rate")),
    ]  # fmt: skip
