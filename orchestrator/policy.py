"""The policy that a run begins with: loaded, or built and warm-started, and then kept for the next run."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from orchestrator.config import RunConfig
from orchestrator.interrupt import Interrupt
from orchestrator.learner_group import LearnerGroup
from rollout.prompts.countdown import GeneratedProblems
from rollout.prompts.countdown_traces import search_trace
from rollout.prompts.template import Template
from rollout.types import SupervisedExample


class PolicyError(ValueError):
    """The model cannot be used."""


def cache_folder() -> Path:
    """Where built and warm-started policies are kept: RAYZERO_CACHE, or ~/.cache/rayzero."""
    return Path(os.environ.get("RAYZERO_CACHE", "~/.cache/rayzero")).expanduser()


def base_model(config: RunConfig) -> str:
    """Folder or hub name of the policy before any training; builds it if the recipe says so.

    Raises PolicyError for a folder that holds no model.
    """
    if config.model.build is None:
        assert config.model.path is not None
        return check_model(config.model.path)
    folder = cache_folder() / f"built-{key(built_from(config))}"
    if not folder.exists():
        # Imported here: it loads torch, which a run whose policy is cached does not need in this process.
        from learner.build import build_model

        aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        build_model(config.model.build, config.warm_start.seed, aside)
        replace_folder(aside, folder)
    return str(folder)


def check_model(path: str) -> str:
    """`path` itself. Raises PolicyError when it looks like a local folder but is no Hugging Face model."""
    folder = Path(path)
    looks_local = folder.exists() or path.startswith((".", "/", "~")) or path.count("/") != 1
    if looks_local and not (folder / "config.json").is_file():
        what = "does not exist" if not folder.exists() else "has no config.json"
        raise PolicyError(f"{path!r} is not a model: it {what}. Give a Hugging Face folder, such as runs/<name>/final")
    return path


def warm_started_model(
    config: RunConfig, base: str, tokenizer: Any, learner: LearnerGroup, console: Console, interrupt: Interrupt
) -> str | None:
    """The folder that reinforcement learning starts from; trained now unless the cache has it.

    None when the user interrupted the training, which is then done from the start the next time.
    """
    warm = config.warm_start
    if warm.num_steps == 0:
        return base
    folder = cache_folder() / f"warm-{key(warm_started_from(config))}"
    if folder.exists():
        console.print(f"warm start: cached in {folder}")
        return str(folder)
    learner.start(base, warm.applied_to(config.learner), warm.num_steps, temperature=1.0)
    examples = warm_start_examples(config, tokenizer)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("warm start", total=warm.num_steps)
        for step in range(1, warm.num_steps + 1):
            metrics = learner.supervised_update(step, [next(examples) for _ in range(warm.sequences_per_step)])
            progress.update(bar, completed=step, description=f"warm start, loss {metrics['optim/loss']:.3f}")
            if step % 100 == 0 and not console.is_terminal:
                console.print(f"warm start {step}/{warm.num_steps}  loss {metrics['optim/loss']:.3f}", highlight=False)
            if interrupt.requested:
                return None
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    learner.export(aside)
    replace_folder(aside, folder)
    return str(folder)


def warm_start_examples(config: RunConfig, tokenizer: Any) -> Iterator[SupervisedExample]:
    """Endless examples: a problem that is not held out, and a search trace as its completion."""
    rng = random.Random(f"traces/{config.warm_start.seed}")
    template = Template(config.prompts, tokenizer)
    countdown = config.prompts.countdown
    sources = {
        count: GeneratedProblems(
            countdown.model_copy(update={"numbers_per_problem": count}),
            config.prompts.num_held_out if count == countdown.numbers_per_problem else 0,
            config.prompts.seed,
        )
        for count in (2, countdown.numbers_per_problem)
    }
    traces = config.traces.model_dump(exclude={"two_number_rate"})
    while True:
        count = 2 if rng.random() < config.traces.two_number_rate else countdown.numbers_per_problem
        problem = sources[count].draw(rng)
        trace = search_trace(
            problem.answer["numbers"], problem.answer["target"], rng, max_value=countdown.max_intermediate, **traces
        )
        completion = [*tokenizer.encode(trace, add_special_tokens=False), tokenizer.eos_token_id]
        yield SupervisedExample(template.prompt("warm_start", problem).token_ids, np.array(completion, dtype=np.int32))


def built_from(config: RunConfig) -> dict[str, Any]:
    """Every setting that decides the built policy."""
    assert config.model.build is not None
    return {"build": config.model.build.model_dump(mode="json"), "seed": config.warm_start.seed}


def warm_started_from(config: RunConfig) -> dict[str, Any]:
    """Every setting that decides the warm-started policy."""
    learner = ("num_ranks", "max_tokens_per_microbatch", "zero_stage")
    return built_from(config) | {
        "warm_start": config.warm_start.model_dump(mode="json"),
        "traces": config.traces.model_dump(mode="json"),
        "prompts": config.prompts.model_dump(mode="json"),
        "dtype": config.model.dtype,
        "learner": {name: getattr(config.learner, name) for name in learner},
    }


def key(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def replace_folder(aside: Path, folder: Path) -> None:
    """Move a finished folder into place; if another run was faster, keep that one's."""
    try:
        aside.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(aside)
