"""`rayzero push`: share a trained model on the Hugging Face hub, with a card made from its run."""

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
from orchestrator.records.final_model import has_model_of, step_of_model
from orchestrator.records.health.replay import was_stopped
from orchestrator.records.run_files import is_supervised
from orchestrator.report.reading.recorded_run import RecordedRun, read_run
from rollout.types.paths import from_home

FOLDER = "push"
"""The folder in the run's directory into which a dry run writes."""


def push(directory: str, repository: str, console: Console, *, licence: str | None, is_private: bool) -> None:
    """Upload a run's model, adapter and card.

    Args:
        directory: the run's directory.
        repository: OWNER/NAME on the hub.
        licence: the model's licence; by default the base model's.
        is_private: make a new repository private.

    Raises ConfigError if there is nothing to upload, or no token; HubError if the upload fails.
    """
    check_name(repository)
    run = finished(directory)
    token = hub_token()
    card = card_of(run, repository, licence)
    temporary = Path(mkdtemp(prefix=".push-", dir=run.path))
    try:
        write_folder(run, card, temporary)
        say(console, f"uploading {describe(temporary)} to {repository} ...")
        url = upload(temporary, repository, token, f"Upload the run {card.title}", is_private=is_private)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    say(console, url)


def write_only(directory: str, repository: str, console: Console, output: str | None, *, licence: str | None) -> None:
    """Write the folder that `push` would upload, by default into the run's directory. Needs no token.

    Also raises ConfigError if the folder exists and somebody has changed or added files there.
    """
    check_name(repository)
    run = finished(directory)
    card = card_of(run, repository, licence)
    folder = Path(from_home(output)) if output else run.path / FOLDER
    if folder.exists() and not (folder / CARD).is_file():
        raise ConfigError(f"{folder} exists and was not made by `rayzero push`: choose another folder with --output")
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        write_folder(run, card, temporary)
        if changed := differing(folder, temporary):
            raise ConfigError(
                f"{folder} has files that would be lost or changed, so nothing was written: {', '.join(changed)}. "
                "Delete the folder, choose another one with --output, or upload it as it is: "
                f"{upload_command(folder, repository)}"
            )
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    say(console, f"{folder}: {describe(folder)}, nothing was uploaded. Read {CARD}, change it if you like, then run")
    say(console, f"  {upload_command(folder, repository)}")


def upload_command(folder: Path, repository: str) -> str:
    """Return the command of the hub's own tool for uploading a folder."""
    return f"hf upload {repository} {folder}"


def finished(directory: str) -> RecordedRun:
    """Return the run. Raises ConfigError if it is not complete, or has no model."""
    run, num_steps = steps_of(read_run(Path(from_home(directory))))
    if run.state != "complete":
        state = f"the run {run.name!r} is at step {run.last_step} of {num_steps}"
        final = run.path / "final"
        missing = "" if final.exists() else " and has no final/"
        if not missing and not has_model_of(final, run.last_step):
            missing = f", and final/ holds the model of step {step_of_model(final)}"
        raise ConfigError(f"{state}{missing}, so there is no finished model to upload: {advice(run)}")
    names = {file.name for file in files_of(run.path / "final")}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ConfigError(
            f"{run.path / 'final'} contains no model: config.json or weights are missing. Delete this folder and start "
            "the run's command again, which writes the model from the last checkpoint"
        )
    return run


def steps_of(run: RecordedRun) -> tuple[RecordedRun, int]:
    """Return the run and its number of steps. A run of `rayzero sft` gets `num_steps` 0: it does not use that key."""
    if not is_supervised(run.rows):
        return run, run.num_steps
    return replace(run, settings={**run.settings, "num_steps": 0}), run.num_steps


def advice(run: RecordedRun) -> str:
    """Return the advice for a run that is not complete."""
    if run.state == "going on":
        return "wait for its end"
    if was_stopped(run.rows, run.settings) and (run.path / "final").exists():
        return "it was stopped as hopeless, and resumes only if health.stop_after is raised, or 0"
    ends_it = f", or ends it at this step if you add num_steps={run.last_step}"
    return "the command that started it resumes it" + (ends_it if run.last_step and run.setting("num_steps") else "")


def describe(folder: Path) -> str:
    """Return the number and the total size of a folder's files, in words."""
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return f"{len(sizes)} files, {sum(sizes) / 2**20:,.1f} MiB"


def say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
