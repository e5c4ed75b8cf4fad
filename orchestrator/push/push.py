"""`rayzero push`: give a trained model away on the Hugging Face hub, with a card made from its run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from rich.console import Console

from orchestrator.config.recipe import ConfigError
from orchestrator.push.card import card_of
from orchestrator.push.folder import CARD, differing, files_of, write_folder
from orchestrator.push.hub import check_name, hub_token, upload
from orchestrator.records.health.replay import was_stopped
from orchestrator.records.run_files import is_supervised
from orchestrator.report.reading.recorded_run import RecordedRun, read_run
from rollout.types.paths import from_home

FOLDER = "push"
"""Where in the run's directory a dry run writes."""


def push(
    given: str, repository: str, console: Console, *, licence: str | None = None, is_private: bool = False
) -> None:
    """Upload a run's model, adapter and card.

    Args:
        given: the run's directory.
        repository: OWNER/NAME on the hub.
        licence: the model's; by default that of its base.
        is_private: make a new repository private.

    Raises ConfigError where there is nothing to upload, or no token; HubError where the hub refuses.
    """
    check_name(repository)
    run = finished(given)
    token = hub_token()
    card = card_of(run, repository, licence)
    aside = Path(mkdtemp(prefix=".push-", dir=run.path))
    try:
        write_folder(run, card, aside)
        say(console, f"uploading {describe(aside)} to {repository} ...")
        url = upload(aside, repository, token, f"Upload the run {card.title}", is_private=is_private)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    say(console, url)


def write_only(
    given: str, repository: str, console: Console, output: str | None = None, *, licence: str | None = None
) -> None:
    """Write the folder that would be uploaded, by default into the run's directory. Otherwise as `push`.

    Raises ConfigError too where such a folder has files that somebody has changed, or put there.
    """
    check_name(repository)
    run = finished(given)
    card = card_of(run, repository, licence)
    folder = Path(from_home(output)) if output else run.path / FOLDER
    if folder.exists() and not (folder / CARD).is_file():
        raise ConfigError(f"{folder} exists and was not made by `rayzero push`: name another folder with --output")
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        write_folder(run, card, aside)
        if changed := differing(folder, aside):
            raise ConfigError(
                f"{folder} has another {' and '.join(changed)} than would be written, and nothing was overwritten: "
                f"remove it, name another folder with --output, or upload it as it is: {how(folder, repository)}"
            )
        shutil.rmtree(folder, ignore_errors=True)
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    say(console, f"{folder}: {describe(folder)}, nothing was uploaded. Look at {CARD}, change it as you like, and then")
    say(console, f"  {how(folder, repository)}")


def how(folder: Path, repository: str) -> str:
    """Return the command of the hub's own tool that uploads a folder."""
    return f"hf upload {repository} {folder}"


def finished(given: str) -> RecordedRun:
    """Return the run. Raises ConfigError where it is not complete, or has no model."""
    run, asked = steps_of(read_run(Path(from_home(given))))
    if run.state != "complete":
        at = f"the run {run.name!r} is at step {run.last_step} of {asked}"
        missing = "" if (run.path / "final").exists() else " and has no final/"
        raise ConfigError(f"{at}{missing}, so that there is no finished model to upload: {what_to_do(run)}")
    names = {file.name for file in files_of(run.path / "final")}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ConfigError(
            f"{run.path / 'final'} holds no model: config.json or weights are missing. Remove it, and the command that "
            "started the run writes it again from its last checkpoint"
        )
    return run


def steps_of(run: RecordedRun) -> tuple[RecordedRun, int]:
    """Return the run and the steps that it was asked for. One of `rayzero sft` took no `num_steps` of its recipe."""
    if not is_supervised(run.rows):
        return run, run.num_steps
    return replace(run, settings={**run.settings, "num_steps": 0}), run.num_steps


def what_to_do(run: RecordedRun) -> str:
    """Return what to do with a run that is not complete."""
    if run.state == "going on":
        return "wait for its end"
    if was_stopped(run.rows, run.settings) and (run.path / "final").exists():
        return "it was stopped as hopeless, and resumes only if health.stop_after is raised, or 0"
    ends_it = f", or num_steps={run.last_step} there ends it here"
    return "the command that started it resumes it" + (ends_it if run.last_step and run.setting("num_steps") else "")


def describe(folder: Path) -> str:
    """Return how many files a folder has, and their size."""
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return f"{len(sizes)} files, {sum(sizes) / 2**20:,.1f} MiB"


def say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
