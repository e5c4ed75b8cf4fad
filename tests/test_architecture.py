"""The rules of the house, read off the code: who imports whom, which library is where, and how large things grow."""

import ast
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rollout", "rewards", "learner", "orchestrator", "deploy")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES if path.stem != "__init__"}
MAY_IMPORT = {
    "rollout": {"rollout"},
    "rewards": {"rewards", "rollout.types"},
    "learner": {"learner", "rollout.types"},
    "orchestrator": {"orchestrator", "rollout", "rewards", "learner"},
    "deploy": set(PACKAGES),
}
LIBRARY_HOMES = {
    "ray": r"(rollout|learner)/actor\.py|rewards/workers/.*|orchestrator/(cluster|fleet|submit)/.*"
    r"|orchestrator/records/(recorder|trackers/ray_metrics)\.py",
    "vllm": r"(rollout/engine|rollout/weights|learner/weights)/.*",
    "deepspeed": r"learner/(backend|weights)/.*",
}
NOUNS_MAY_USE = {"numpy", "rollout"}
MAX_FILES, MAX_LINES, MAX_FUNCTION_LINES = 14, 250, 60


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> list[str]:
    """Every name that is imported, in functions and for type checkers too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def imported_modules(path: Path) -> set[str]:
    """The project's own modules among them."""
    return {module for name in imports(path) for module in (name, name.rpartition(".")[0]) if module in MODULES}


def within(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(f"{allowed}.")


@pytest.mark.parametrize("path", FILES, ids=place)
def test_imports_follow_the_design(path: Path) -> None:
    allowed = MAY_IMPORT[place(path).split("/")[0]]
    for name in imports(path):
        root = name.split(".")[0]
        if root in PACKAGES:
            assert any(within(name, package) for package in allowed), f"{place(path)} imports {name}"
        if root in LIBRARY_HOMES:
            assert re.fullmatch(LIBRARY_HOMES[root], place(path)), f"{place(path)} imports {root}"


def test_the_nouns_need_the_standard_library_and_numpy_alone() -> None:
    import sys

    for path in (ROOT / "rollout" / "types").glob("*.py"):
        roots = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names
        assert roots <= NOUNS_MAY_USE, f"{place(path)} imports {roots}"
        assert all(within(name, "rollout.types") for name in imports(path) if within(name, "rollout"))


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({module: imported_modules(path) for module, path in MODULES.items()}).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_no_two_public_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not [name for name, count in names.items() if count > 1]


def test_packages_are_empty_shells_and_no_module_is_a_drawer() -> None:
    assert all(not path.read_text() for path in FILES if path.name == "__init__.py")
    drawers = {"utils", "helpers", "common", "manager", "misc"}
    assert not [path for path in FILES if path.stem in drawers]


def test_rooms_files_and_functions_stay_small() -> None:
    rooms = groupby(sorted(MODULES.values(), key=lambda path: path.parent), key=lambda path: path.parent)
    counts = {place(folder): sum(1 for _ in files) for folder, files in rooms}
    assert not {room: count for room, count in counts.items() if count > MAX_FILES}
    lengths = {place(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {file: length for file, length in lengths.items() if length > MAX_LINES}
    functions = [
        (place(path), node.name, node.end_lineno - node.lineno + 1)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    ]
    assert not [each for each in functions if each[2] > MAX_FUNCTION_LINES]
