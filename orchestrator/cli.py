"""The command line. Slow libraries are imported only after the command has been checked."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.arguments import evaluation_overrides, parse

if TYPE_CHECKING:
    from rich.console import Console


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Exit codes: 0 done, 1 failed, 2 wrong input, 3 stopped as hopeless, 130 interrupted.

    After 130 the same command resumes. After 3, which only occurs with `health.stop_after`, it does not continue.
    """
    given = parse(arguments)
    if given.command == "doctor":  # it must work even if the imports below fail
        return run_doctor(given)
    quiet_libraries(shows_progress=given.command == "push" and sys.stderr.isatty())
    from rich.console import Console

    from orchestrator.config.recipe import ConfigError

    # A pipe has no width, so allow long lines.
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        return COMMANDS[given.command](given, console)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001  the outermost level: report and log the error, and set the exit code
        return failed(error)


def run_train(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.config.recipe import load

    config = load(*recipe_and_overrides(given.arguments))
    from orchestrator.run import run

    return run(config, console, is_live=given.live and console.is_terminal).value


def run_sft(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.config.recipe import load

    config = load(*recipe_and_overrides(given.arguments), supervised_only=True)
    from orchestrator.sft import run_supervised

    return run_supervised(config, console).value


def run_submit(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.config.recipe import load

    recipe, overrides = recipe_and_overrides(given.arguments)
    config = load(recipe, overrides)
    from orchestrator.submit.submit import submit_run

    return submit_run(
        config,
        recipe,
        overrides,
        console,
        address=given.address,
        working_dir=given.working_dir,
        also_send=given.env,
        follow_it=given.follow,
    )


def run_plan(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.config.recipe import load
    from orchestrator.plan.run_plan import plan, print_rows

    config = load(*recipe_and_overrides(given.arguments))
    print_rows(config.name, plan(config), console)
    if given.gpu is not None:
        from orchestrator.plan.gpu_models import gpu_model
        from orchestrator.plan.memory_table import print_memory

        print_memory(config, gpu_model(given.gpu), console)
    return 0


def run_eval(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.evaluate.models import config_for_all, named_models

    models = named_models([argument for argument in given.arguments if "=" not in argument])
    overrides = [argument for argument in given.arguments if "=" in argument]
    config = config_for_all(models, given.recipe, overrides + evaluation_overrides(given))
    from orchestrator.evaluate.asked_problems import asked_problems
    from orchestrator.evaluate.comparison import compare, prompts_of, with_room_for
    from orchestrator.report.comparison_file import comparison_file, write_comparison
    from orchestrator.report.tables import print_comparison

    problems = asked_problems(models, config)
    prompts = {model.name: prompts_of(model, config, problems) for model in models}
    file = comparison_file(given.json, config)
    results = compare(models, prompts, with_room_for(prompts, config), console)
    print_comparison(results, config, console)  # before writing, so that a full disk does not lose the results
    write_comparison(results, config, file)
    console.print(f"\nfigures and every completion: {file}", highlight=False, markup=False, soft_wrap=True)
    return 0


def run_solve(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.evaluate.solve import solve
    from rollout.types.paths import from_home

    is_right = solve(from_home(given.model), given.question, given.recipe, given.answer, given.attempts, console)
    return 0 if is_right else 1


def run_report(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.config.recipe import ConfigError
    from orchestrator.report.report import write_evaluation_report, write_report
    from rollout.types.paths import from_home

    if bool(given.runs) == bool(given.evaluation):
        raise ConfigError("rayzero report: name runs, such as runs/<name>, or --evaluation FILE, and not both")
    output = Path(from_home(given.output)) if given.output else None
    if given.evaluation:
        file = write_evaluation_report(Path(from_home(given.evaluation)), output)
    else:
        file = write_report([Path(from_home(run)) for run in given.runs], output, given.steps)
    console.print(f"{file} ({file.stat().st_size / 2**20:.1f} MiB)", highlight=False, markup=False, soft_wrap=True)
    if given.open:
        import webbrowser

        webbrowser.open(file.resolve().as_uri())
    return 0


def run_push(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.push.push import push, write_only

    if given.dry_run:
        write_only(given.run, given.repository, console, given.output, licence=given.license)
    else:
        push(given.run, given.repository, console, licence=given.license, is_private=given.private)
    return 0


def run_scale(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.fleet.scale import request_generators
    from rollout.types.paths import from_home

    request_generators(Path(from_home(given.run)), given.num_generators)
    console.print(
        f"{given.run}: {given.num_generators} generators from the next step on; its log.txt says when they sample",
        markup=False,
    )
    return 0


def run_watch(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.watch.watch import watch

    return watch(given.run, console)


def run_plot(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.report.plot_command import plot_run

    file = plot_run(given.run, given.metric, given.smooth, given.output)
    console.print(str(file), highlight=False, markup=False, soft_wrap=True)
    return 0


def run_doctor(given: argparse.Namespace) -> int:
    from orchestrator.doctor.report import doctor

    return doctor(as_json=given.json)


COMMANDS = {
    "train": run_train,
    "sft": run_sft,
    "submit": run_submit,
    "plan": run_plan,
    "eval": run_eval,
    "solve": run_solve,
    "report": run_report,
    "push": run_push,
    "scale": run_scale,
    "watch": run_watch,
    "plot": run_plot,
}


def recipe_and_overrides(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the recipe (None if none is named) and the `key=value` pairs. Raises ConfigError for a second recipe."""
    from orchestrator.config.recipe import ConfigError

    recipes = [argument for argument in arguments if "=" not in argument]
    if len(recipes) > 1:
        raise ConfigError(f"{recipes[1]!r} is neither the recipe ({recipes[0]!r} is) nor an override: write key=value")
    return (recipes[0] if recipes else None), [argument for argument in arguments if "=" in argument]


def failed(error: Exception) -> int:
    """Print the error: only the message of our own errors, other errors with their traceback. Both go to log.txt."""
    import logging

    logging.getLogger("rayzero").info("the run failed", exc_info=error)
    ours = type(error).__module__.partition(".")[0] in {"orchestrator", "rollout", "rewards", "learner"}
    if not ours and not isinstance(error, ValueError | OSError):
        import traceback

        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr)
    return 1


def quiet_libraries(*, shows_progress: bool) -> None:
    """Turn off the terminal output of libraries; the run logs what matters."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not shows_progress:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


if __name__ == "__main__":
    sys.exit(main())
