"""Every name in the documentation exists, every link leads somewhere, and prose is wrapped and short."""

from __future__ import annotations

import argparse
import builtins
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from orchestrator.arguments import parser
from orchestrator.config.recipe import RECIPES
from orchestrator.config.schema import RunConfig
from tests.support.markdown import Page
from tests.support.paths import ROOT

PAGES = [Page(path) for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]]
NAMES = [page for page in PAGES if page.path.name != "CHANGELOG.md"]
"""The changelog names what there was."""
SHORT = [page for page in NAMES if page.path.name != "experiments.md"]
PACKAGES = ("rollout", "rewards", "learner", "orchestrator", "deploy", "tests", "benchmarks")
SOURCES = {path: path.read_text("utf-8") for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
CLASSES = {name for text in SOURCES.values() for name in re.findall(r"^ *class (\w+)", text, re.MULTILINE)}
WORDS = {word for text in SOURCES.values() for word in re.findall(r"\w+", text)}
OTHER_PROJECTS = {"RayJob", "PodMonitor", "ReadWriteMany", "enable_metrics_collection", "tag_count"}
METRICS = {name for name in Page(ROOT / "docs" / "metrics.md").spans if re.fullmatch(r"[a-z]+/[\w/<>…]+", name)}
METRIC = re.compile(r"(reward|rollout|curriculum|loss|optim|eval|marker|health|time|system)/[\w/]+")
PLACES = "|".join((*PACKAGES, "docs"))
KINDS = "py|md|toml|txt|sh|sbatch|ya?ml|jsonl?|png|svg|ipynb|js|css|html"
FILE = re.compile(rf"(?<![\w/.<-])(?:{PLACES})/(?:[\w./*-]*\.(?:{KINDS})\b|[\w./-]*/(?=[`\s]))")
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.name)
PAGES_WITH_NAMES = pytest.mark.parametrize("page", NAMES, ids=lambda page: page.path.name)


@PAGES_WITH_NAMES
def test_files_exist(page: Page) -> None:
    assert not [name for name in FILE.findall(page.text) if not exists(name)]


def test_the_tour_shows_every_room() -> None:
    """The tree in CONTRIBUTING.md: folders, and files beside them, each followed by what it is for."""
    ((_, tree),) = [block for block in Page(ROOT / "CONTRIBUTING.md").blocks if block[1].startswith("rollout/")]
    shown, package = set(), ROOT
    for indent, names in re.findall(r"^( *)(\S+(?:, \S+)*)  ", tree, re.MULTILINE):
        if not indent:
            package = ROOT / names
        shown |= {package / name if indent else package for name in names.split(", ")}
    assert not [path for path in shown if not path.exists()]
    rooms = {path for package in PACKAGES[:4] for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()}
    assert rooms <= shown


def exists(name: str) -> bool:
    return any(ROOT.glob(name)) if "*" in name else (ROOT / name).exists()


@EVERY_PAGE
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.path.parent / name if name else page.path
        assert target.exists(), link
        assert not anchor or anchor in Page(target).anchors, link


def test_every_page_is_in_the_index() -> None:
    index = Page(ROOT / "docs" / "README.md")
    linked = {link.partition("#")[0] for link in index.links} | {"README.md"}
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= linked


@PAGES_WITH_NAMES
def test_commands_and_their_options_exist(page: Page) -> None:
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    for line in page.commands:
        for name, rest in re.findall(r"\brayzero ([a-z]\w*)([^|;&]*)", line):
            assert name in commands.choices, line
            options = re.findall(r"(?<=\s)--[\w-]+", rest)
            assert set(options) <= commands.choices[name]._option_string_actions.keys(), line


@PAGES_WITH_NAMES
def test_modules_that_are_run_exist(page: Page) -> None:
    for line in page.commands:
        for module in re.findall(r"python -m ([\w.]+)", line):
            if module.partition(".")[0] in PACKAGES:
                assert file_of(module).exists(), line


@PAGES_WITH_NAMES
def test_options_of_modules_that_are_run_exist(page: Page) -> None:
    """They stand in the module's text, or in that of a module that it imports, such as one with shared options."""
    for line in page.commands:
        for module, rest in re.findall(r"python -m ([\w.]+)([^|;&]*)", line):
            if module.partition(".")[0] in PACKAGES:
                text = SOURCES[file_of(module)]
                imported = re.findall(r"^from ([\w.]+) import", text, re.MULTILINE)
                texts = [text, *(SOURCES.get(file_of(name), "") for name in imported)]
                for option in re.findall(r"(?<=\s)--([\w-]+)", rest):
                    assert any(re.search(f'"(?:--)?{option}"', each) for each in texts), line


def file_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


@PAGES_WITH_NAMES
def test_make_has_the_targets(page: Page) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in page.commands:
        if asked := re.match(r"(?:\$ )?make ([a-z-]+)", line):
            assert asked[1] in targets, line


@PAGES_WITH_NAMES
def test_recipes_exist(page: Page) -> None:
    """In inline code, in commands, and as endings of such names: `countdown-4090`, `-1.5b`."""
    known = {path.stem for path in RECIPES.glob("*.toml")}
    kinds = r"(?:tiny|4090|80gb|\d(?:x\d)?gpu|135m)"
    named = {span for span in page.spans if re.fullmatch(rf"[a-z][\w-]*-{kinds}[\w.-]*", span)}
    endings = {span for span in page.spans if re.fullmatch(rf"-(?:\d+(?:\.\d+)?b|{kinds}|qwen[\w.-]*)", span)}
    assert not [ending for ending in endings if not any(name.endswith(ending) for name in known)]
    for line in page.commands:
        named |= {*re.findall(r"(?:\s--recipe |ARGS=[\"']?)([a-z][\w.-]*)(?=[\s\"']|$)", line)}
        for words in re.findall(r"\brayzero (?:train|sft|plan|submit) ([^|;&]*)", line):
            first = words.split()[0] if words.split() else ""
            if re.fullmatch(r"[a-z][\w.-]*", first):
                named.add(first)
    assert named <= known


@PAGES_WITH_NAMES
def test_settings_exist(page: Page) -> None:
    unknown = [name for name in settings_named(page) if not is_setting(name) and not is_code(name)]
    assert not unknown


def settings_named(page: Page) -> Iterator[str]:
    """Dotted names of a recipe's sections: in inline code, on a command line of ours, or in TOML."""
    sections = "|".join(RunConfig.model_fields)
    for span in page.spans:
        if named := re.match(rf"((?:{sections})(?:\.\w+)+)(?:$|[ =:,])", span):
            yield named[1]
    for line in page.commands:
        if "rayzero " in line:
            yield from re.findall(r"(?<=\s)'?([a-z_]+(?:\.\w+)*)=", line)
    for language, block in page.blocks:
        if language == "toml":
            for name in flat(tomllib.loads(block)):
                if name.partition(".")[0] in RunConfig.model_fields:
                    yield name


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def is_setting(name: str) -> bool:
    """Whether a recipe may set `name`; below a mapping with keys of the user's own, any name will do.

    So it will in the section of `my_task`, the task of a user's own in docs/tasks.md, which has tests of its own.
    """
    model: Any = RunConfig
    for part in name.split("."):
        if model is Any or part == "my_task":
            return True
        if get_origin(model) is dict:
            model = model_in(get_args(model)[1])
        elif part in model.model_fields:
            model = model_in(model.model_fields[part].annotation)
        elif "task" in model.model_fields and (ROOT / "rollout" / "tasks" / f"{part}.py").exists():
            model = import_module(f"rollout.tasks.{part}").SETTINGS
        else:
            return False
    return True


def model_in(annotation: Any) -> Any:
    """What may stand below a setting of this type: a section, a mapping, or Any."""
    if get_origin(annotation) is dict:
        return annotation
    found = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
    return next((each for each in found if issubclass(each, BaseModel)), Any)


@PAGES_WITH_NAMES
def test_python_names_exist(page: Page) -> None:
    dotted = {span for span in page.spans if re.fullmatch(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+", span)}
    assert not [name for name in dotted if not is_code(name) and not is_setting(name)]
    camel = {span.partition(".")[0] for span in page.spans if re.fullmatch(r"(?:[A-Z][a-z]+){2,}(?:\.\w+)?", span)}
    assert camel <= CLASSES | OTHER_PROJECTS | {*vars(builtins)}


@PAGES_WITH_NAMES
def test_names_in_snake_case_are_ours(page: Page) -> None:
    """A setting, a function or a column that is named alone: some file of ours says it too."""
    named = {span for span in page.spans if re.fullmatch(r"[a-z]+(?:_[a-z0-9]+)+", span)}
    assert named <= WORDS | OTHER_PROJECTS


def test_the_calls_that_the_dashboard_shows_exist() -> None:
    """Task names such as `countdown/generator-0.generate`, and `.commit_weights` after one."""
    shells = [ROOT / "rollout" / "actor.py", ROOT / "learner" / "actor.py", ROOT / "rewards" / "workers" / "worker.py"]
    methods = {name for path in shells for name in re.findall(r"    (?:async )?def (\w+)", SOURCES[path])}
    spans = Page(ROOT / "docs" / "dashboard.md").spans
    assert {call[1] for span in spans if (call := re.fullmatch(r"(?:\w+/\w+-\d+)?\.(\w+)", span))} <= methods


def is_code(name: str) -> bool:
    """Whether `name` is a module, or something that a module defines."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        if path.is_dir():
            return count == len(parts)
        if path.with_suffix(".py").is_file():
            text = SOURCES[path.with_suffix(".py")]
            return all(re.search(rf"\b(?:class|def) {part}\b|^{part}\b", text, re.MULTILINE) for part in parts[count:])
    return False


@PAGES_WITH_NAMES
def test_metrics_exist(page: Page) -> None:
    families = tuple(re.split("[<…]", key)[0] for key in METRICS if re.search("[<…]", key))
    named = {span for span in page.spans if METRIC.fullmatch(span) and not (ROOT / span).exists()}
    assert not [key for key in named - METRICS if not key.startswith(families)]


@EVERY_PAGE
def test_prose_is_wrapped(page: Page) -> None:
    assert not page.long_lines


@pytest.mark.parametrize("page", SHORT, ids=lambda page: page.path.name)
def test_paragraphs_are_short(page: Page) -> None:
    """Cells of tables are paragraphs too."""
    assert not [text for text in [*page.paragraphs, *page.cells] if len(text.split()) > 80]


def test_the_readme_is_read_in_minutes() -> None:
    """And in a terminal: its code is no wider than its prose. Rows of tables cannot be broken."""
    lines = Page(ROOT / "README.md").text.splitlines()
    assert len(lines) < 120
    code = [line for _, block in Page(ROOT / "README.md").blocks for line in block.splitlines()]
    assert not [line for line in code if len(line) > 100]
