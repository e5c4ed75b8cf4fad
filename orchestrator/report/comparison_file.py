"""Write a comparison for programs: its figures as JSON, with all completions from which they were computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.comparison import ModelResult
from orchestrator.evaluate.evaluation import Evaluation, by_label
from orchestrator.evaluate.trainability import judge_trainability
from orchestrator.records.files.atomic_file import write_atomically
from orchestrator.records.files.strict_json import to_json
from orchestrator.report.tables import LABELS
from rollout.types.completions import Completion, Group, Reward
from rollout.types.paths import from_home


def comparison_file(given: str | None, config: RunConfig) -> Path:
    """Return the file for the JSON: `given`, or else a new file under `runs_dir`.

    Raises ConfigError if it cannot be written. This is checked now, so that it does not fail after the sampling.
    """
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        file = Path(from_home(given)) if given else Path(from_home(config.runs_dir)) / "evaluations" / f"{now}.json"
    except ValueError as error:
        raise ConfigError(f"--json {given}: {error}") from error
    if file.is_dir():
        raise ConfigError(f"--json {file}: is a folder; name a file in it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise ConfigError(f"--json {file}: cannot be written ({error.strerror}); name another file") from error
    return file


def write_comparison(results: Sequence[ModelResult], config: RunConfig, file: Path) -> None:
    """Write the figures and the records. Unknown figures are null."""
    content = {
        "config": config.model_dump(mode="json"),
        "models": {result.model.name: result.model.path for result in results},
        "results": [result_record(result, config) for result in results],
    }
    write_atomically(file, to_json(content, indent=1) + "\n")


def result_record(result: ModelResult, config: RunConfig) -> dict[str, Any]:
    """Return the record of one model in one format."""
    evaluation = result.evaluation
    return {
        "model": result.model.name,
        "format": result.format,
        "figures": figures(evaluation),
        "difference": asdict(result.difference) if result.difference else None,
        **{f"by_{label}": breakdown(evaluation, label) for label in LABELS},
        "trainability": asdict(judge_trainability(evaluation, config)) if evaluation.pass_at else None,
        "prompts": [
            prompt_record(group, greedy)
            for group, greedy in zip(
                evaluation.groups, evaluation.greedy_groups or [None] * len(evaluation.groups), strict=True
            )
        ],
    }


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Return the figures; an estimate has a mean, and the ends of its interval as low and high."""
    return {
        **{f"pass_at_{k}": asdict(estimate) for k, estimate in evaluation.pass_at.items()},
        "greedy_pass_at_1": asdict(evaluation.greedy) if evaluation.greedy else None,
        "format_rate": asdict(evaluation.format_rate) if evaluation.format_rate else None,
        "reward": asdict(evaluation.reward),
        "completion_tokens": evaluation.completion_tokens,
        "right_completion_tokens": evaluation.right_tokens,
        "wrong_completion_tokens": evaluation.wrong_tokens,
        "truncated": evaluation.truncated,
        "unmarked": evaluation.unmarked,
        "markers": evaluation.markers,
    }


def breakdown(evaluation: Evaluation, label: str) -> dict[str, Any]:
    """Return pass@1 by a label of the prompts; empty if answers are not right or wrong."""
    if not evaluation.pass_at:
        return {}
    labelled = by_label(evaluation.groups, LABELS[label])
    return {name: {"num_prompts": count, "pass_at_1": asdict(estimate)} for name, (count, estimate) in labelled.items()}


def prompt_record(group: Group, greedy: Group | None) -> dict[str, Any]:
    """Return the record of a prompt and all its completions."""
    prompt = group.prompt
    return {
        "id": prompt.id,
        "source": prompt.source,
        "difficulty": prompt.difficulty,
        "text": prompt.text,
        "answer": dict(prompt.answer),
        "completions": [completion_record(*pair) for pair in zip(group.completions, group.rewards, strict=True)],
        "greedy": completion_record(greedy.completions[0], greedy.rewards[0]) if greedy else None,
    }


def completion_record(completion: Completion, reward: Reward) -> dict[str, Any]:
    return {
        "text": completion.text,
        "num_tokens": completion.num_tokens,
        "finish_reason": completion.finish_reason,
        "reward": reward.total,
        "parts": {part.name: part.value for part in reward.parts},
        "status": reward.status,
        "markers": reward.markers,
    }
