"""The command line. Nothing heavy is imported before a command is known to be right."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = "R1-Zero-style reinforcement learning of reasoning, on one GPU, a pod, or no GPU at all."
TAKES_OVERRIDES = ("train", "sft", "submit", "plan", "eval")
OVERRIDES = "settings to change, as learner.learning_rate=2e-6"


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    root = argparse.ArgumentParser(prog="rayzero", description=DESCRIPTION)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a policy, or resume a run of the same name")
    train.add_argument("arguments", nargs="*", metavar="[RECIPE] key=value", help=f"recipe file or name; {OVERRIDES}")

    sft = commands.add_parser("sft", help="fine-tune a model on pairs of prompt and completion, or resume that")
    sft.add_argument("arguments", nargs="*", metavar="[RECIPE] key=value", help=f"recipe file or name; {OVERRIDES}")

    submit = commands.add_parser("submit", help="train as a job on a Ray cluster, or resume that")
    submit.add_argument("arguments", nargs="*", metavar="[RECIPE] key=value", help=f"recipe file or name; {OVERRIDES}")
    submit.add_argument(
        "--address", help="URL of the dashboard; default: RAY_API_SERVER_ADDRESS or http://127.0.0.1:8265"
    )
    submit.add_argument("--follow", action="store_true", help="print the job's log; exit as it does")
    submit.add_argument("--working-dir", default=".", help="uploaded to be the job's working directory (default: this)")
    submit.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="send this variable too, as it is here"
    )

    plan = commands.add_parser("plan", help="check a recipe and print its plan, without starting anything")
    plan.add_argument("arguments", nargs="*", metavar="[RECIPE] key=value", help=f"recipe file or name; {OVERRIDES}")
    plan.add_argument("--gpu", help="plan its memory too: a GPU, such as 4090, a100-80 or h100, or a size in GiB")

    evaluate = commands.add_parser("eval", help="measure and compare models on held-out problems")
    evaluate.add_argument(
        "arguments",
        nargs="+",
        metavar="MODEL key=value",
        help=f"model folders, such as runs/<name>/final, or hub names, as name:model to choose what they are called; {OVERRIDES}",
    )
    evaluate.add_argument("--recipe", help="recipe that asks the questions; default: that of the first model's run")
    evaluate.add_argument("--formats", nargs="+", help="zero_shot one_shot natural; default: the recipe's own")
    evaluate.add_argument("--num-prompts", type=int, help="ask so many of the held-out prompts; default: all")
    evaluate.add_argument("--seed", type=int, help="decides which prompts, and the sampling")
    evaluate.add_argument("--pass-at", nargs="+", metavar="K", help="each k of pass@k; the largest is sampled")
    evaluate.add_argument("--json", help="file for figures and completions; default: a new one in runs/evaluations/")

    solve = commands.add_parser("solve", help="let a model answer one question, and check the answer")
    solve.add_argument("model", help="model folder, such as runs/<name>/final, or a hub name")
    solve.add_argument("question", help='such as "Using the numbers [4, 7, 3], create an equation that equals 25"')
    solve.add_argument("--recipe", help="recipe that words the question; default: that of the model's own run")
    solve.add_argument("--answer", help="what is right, such as 72; Countdown needs none")
    solve.add_argument("--attempts", type=int, default=1, help="completions to sample; 1 is greedy (default: 1)")

    doctor = commands.add_parser("doctor", help="examine this machine and its installation, and say how to mend them")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    return root


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with `key=value` wherever it stands; argparse alone wants it before the options, or refuses it
    among an option's several values. Exits with 2 when it is wrong."""
    overrides = []
    if arguments is None:
        arguments = sys.argv[1:]
    if arguments and arguments[0] in TAKES_OVERRIDES:
        overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
        arguments = [argument for argument in arguments if argument not in overrides]
    given = parser().parse_args(arguments)
    if overrides:
        given.arguments += overrides
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Exit codes: 0 done, 1 failed, 2 wrong input, 130 interrupted (the same command resumes)."""
    given = parse(arguments)
    if given.command == "doctor":  # it has to answer where the imports below fail
        return run_doctor(given)
    quiet_libraries()
    from rich.console import Console

    from orchestrator.recipes import ConfigError

    # A pipe has no width: let its lines be as long as they are.
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        return COMMANDS[given.command](given, console)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001  the end of the line: say it, log it, set the exit code
        return failed(error)


def run_train(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.recipes import load

    config = load(*recipe_and_overrides(given.arguments))
    from orchestrator.run import run

    return 0 if run(config, console) else 130


def run_sft(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.recipes import load

    config = load(*recipe_and_overrides(given.arguments), supervised_only=True)
    from orchestrator.sft import run_supervised

    return 0 if run_supervised(config, console) else 130


def run_submit(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.recipes import load

    recipe, overrides = recipe_and_overrides(given.arguments)
    config = load(recipe, overrides)
    from orchestrator.submit import submit_run

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
    from orchestrator.plan import print_plan
    from orchestrator.recipes import load

    config = load(*recipe_and_overrides(given.arguments))
    print_plan(config, console)
    if given.gpu is not None:
        from orchestrator.memory.gpus import gpu_of
        from orchestrator.memory.table import print_memory

        print_memory(config, gpu_of(given.gpu), console)
    return 0


def run_eval(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.ask import config_for_all, named_models

    models = named_models([argument for argument in given.arguments if "=" not in argument])
    overrides = [argument for argument in given.arguments if "=" in argument]
    config = config_for_all(models, given.recipe, overrides + evaluation_overrides(given))
    from orchestrator.comparison import compare, prompts_of
    from orchestrator.report.comparison import print_comparison
    from orchestrator.report.records import comparison_file, write_comparison

    prompts = {model.name: prompts_of(model, config) for model in models}
    file = comparison_file(given.json, config)
    results = compare(models, prompts, config, console)
    write_comparison(results, config, file)
    print_comparison(results, config, console)
    console.print(f"\nfigures and every completion: {file}", highlight=False, soft_wrap=True)
    return 0


def evaluation_overrides(given: argparse.Namespace) -> list[str]:
    """The options of `rayzero eval` as settings. As many completions are sampled as the largest k asks for."""
    settings = {
        "evaluation.formats": given.formats,
        "evaluation.num_prompts": given.num_prompts,
        "evaluation.seed": given.seed,
        "seed": given.seed,
    }
    sizes = [int(k) if k.isdecimal() else k for k in given.pass_at or ()]
    if sizes:
        settings["evaluation.pass_at"] = sizes
        if not any(argument.startswith("evaluation.completions_per_prompt=") for argument in given.arguments):
            settings["evaluation.completions_per_prompt"] = max((k for k in sizes if isinstance(k, int)), default=1)
    return [f"{key}={json.dumps(value)}" for key, value in settings.items() if value is not None]


def run_solve(given: argparse.Namespace, console: Console) -> int:
    from orchestrator.solve import solve

    is_right = solve(given.model, given.question, given.recipe, given.answer, given.attempts, console)
    return 0 if is_right else 1


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
}


def recipe_and_overrides(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The recipe, if one is named, and the `key=value` pairs. Raises ConfigError for a second recipe."""
    from orchestrator.recipes import ConfigError

    recipes = [argument for argument in arguments if "=" not in argument]
    if len(recipes) > 1:
        raise ConfigError(f"{recipes[1]!r} is neither the recipe ({recipes[0]!r} is) nor an override: write key=value")
    return (recipes[0] if recipes else None), [argument for argument in arguments if "=" in argument]


def failed(error: Exception) -> int:
    """Say what went wrong: our own errors in their own words, anything else with its traceback. Both go to log.txt."""
    import logging

    logging.getLogger("rayzero").info("the run failed", exc_info=error)
    ours = type(error).__module__.partition(".")[0] in {"orchestrator", "rollout", "rewards", "learner"}
    if not ours and not isinstance(error, ValueError | OSError):
        import traceback

        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr)
    return 1


def quiet_libraries() -> None:
    """Keep libraries' chatter out of the terminal; what matters is logged by the run itself."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


if __name__ == "__main__":
    sys.exit(main())
