"""The arguments of the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

DESCRIPTION = "R1-Zero-style reinforcement learning of reasoning, on one GPU, a pod, or no GPU at all."
TAKES_OVERRIDES = ("train", "sft", "submit", "plan", "eval")
OVERRIDES = "settings to change, such as learner.learning_rate=2e-6"


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their arguments."""
    root = argparse.ArgumentParser(prog="rayzero", description=DESCRIPTION)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def takes_recipe(name: str, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help)
        what = f"recipe file or name; {OVERRIDES}"
        command.add_argument("arguments", nargs="*", metavar="[RECIPE] key=value", help=what)
        return command

    train = takes_recipe("train", "train a policy, or resume a run of the same name")
    train.add_argument("--live", action="store_true", help="show a live view, if the output is a terminal")
    takes_recipe("sft", "fine-tune a model on pairs of prompt and completion, or resume that")
    submit = takes_recipe("submit", "train as a job on a Ray cluster, or resume that")
    submit.add_argument(
        "--address", help="URL of the dashboard; default: RAY_API_SERVER_ADDRESS or http://127.0.0.1:8265"
    )
    submit.add_argument("--follow", action="store_true", help="print the job's log; exit with the job's exit code")
    submit.add_argument("--working-dir", default=".", help="folder to upload for the job (default: the current one)")
    submit.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="also send this environment variable to the job"
    )

    plan = takes_recipe("plan", "check a recipe and print its plan, without starting anything")
    plan.add_argument("--gpu", help="also plan the memory of a GPU, such as 4090, a100-80 or h100, or a size in GiB")

    evaluate = commands.add_parser("eval", help="measure and compare models on held-out problems")
    evaluate.add_argument(
        "arguments",
        nargs="+",
        metavar="MODEL key=value",
        help="model folders, such as runs/<name>/final, or hub names; name:model gives a model another name; "
        + OVERRIDES,
    )
    evaluate.add_argument("--recipe", help="recipe with the questions; default: the recipe of the first model's run")
    evaluate.add_argument("--formats", nargs="+", help="zero_shot one_shot natural; default: the recipe's own")
    evaluate.add_argument("--num-prompts", type=int, help="number of held-out prompts to ask; default: all")
    evaluate.add_argument("--seed", type=int, help="seed of the choice of prompts, and of the sampling")
    evaluate.add_argument(
        "--pass-at", nargs="+", metavar="K", help="each k of pass@k; the largest is the number of completions"
    )
    evaluate.add_argument("--json", help="file for figures and completions; default: a new one in runs/evaluations/")

    solve = commands.add_parser("solve", help="let a model answer one question, and check the answer")
    solve.add_argument("model", help="model folder, such as runs/<name>/final, or a hub name")
    solve.add_argument("question", help='such as "Using the numbers [4, 7, 3], create an equation that equals 25"')
    solve.add_argument("--recipe", help="recipe with the question's template; default: the recipe of the model's run")
    solve.add_argument("--answer", help="the right answer, such as 72; Countdown needs none")
    solve.add_argument("--attempts", type=int, default=1, help="completions to sample; 1 is greedy (default: 1)")

    add_commands_on_runs(commands)
    doctor = commands.add_parser("doctor", help="check this machine and its installation, and say how to fix problems")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    return root


def add_commands_on_runs(commands: Any) -> None:
    """Add the commands that take the directory of a run."""
    report = commands.add_parser("report", help="write one HTML file that shows a run, or compares several")
    report.add_argument("runs", nargs="*", metavar="RUN", help="directory of a run, such as runs/<name>")
    report.add_argument("--evaluation", metavar="FILE", help="show this JSON file of `rayzero eval` instead of runs")
    report.add_argument("--output", help="the file; default: report.html in the run's directory")
    report.add_argument(
        "--steps", nargs="+", type=int, default=[], metavar="N", help="keep every completion of these steps"
    )
    report.add_argument("--open", action="store_true", help="open it in the browser")

    push = commands.add_parser("push", help="upload a run's model to the Hugging Face hub, with a card about the run")
    push.add_argument("run", help="directory of the run, such as runs/<name>")
    push.add_argument("repository", metavar="OWNER/NAME", help="its name on the hub")
    push.add_argument("--dry-run", action="store_true", help="write the folder, but upload nothing")
    push.add_argument(
        "--output", metavar="FOLDER", help="the folder of --dry-run; default: push/ in the run's directory"
    )
    push.add_argument("--license", metavar="ID", help="the model's license, such as apache-2.0; default: its base's")
    push.add_argument("--private", action="store_true", help="create a private repository if it is new")

    scale = commands.add_parser("scale", help="change the number of generators of a run while it runs")
    scale.add_argument("run", help="directory of the run, such as runs/<name>")
    scale.add_argument("num_generators", type=int, help="the number of generators from the next step on")

    watch = commands.add_parser("watch", help="show a run's progress, from another terminal, until it ends")
    watch.add_argument("run", help="directory of the run, such as runs/<name>")

    plot = commands.add_parser("plot", help="draw a run's learning curve, or any of its metrics, from its files")
    plot.add_argument("run", help="directory of the run, such as runs/<name>")
    plot.add_argument(
        "--metric",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY",
        help="such as reward/total; default: the curve",
    )
    plot.add_argument("--smooth", type=int, default=1, metavar="N", help="draw the mean of N steps (default: 1)")
    plot.add_argument("--output", metavar="FILE", help="a .png or .svg file; default: plot.png in the run's directory")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line, with `key=value` at any position. Exits with 2 if it is wrong.

    argparse alone needs overrides before the options, and refuses them after an option with several values.
    """
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


def evaluation_overrides(given: argparse.Namespace) -> list[str]:
    """Return the options of `rayzero eval` as overrides. The largest k is the number of sampled completions."""
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
