"""The dependency rules of the design, read off the imports: who may import whom, and which library appears where."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rollout", "rewards", "learner", "orchestrator", "deploy")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAY_IMPORT = {
    "rollout": {"rollout"},
    "rewards": {"rewards", "rollout.types"},
    "learner": {"learner", "rollout.types"},
    "orchestrator": {"orchestrator", "rollout", "rewards", "learner"},
    "deploy": set(PACKAGES),
}
LIBRARY_HOMES = {
    "ray": r"(rollout|learner)/actor\.py|rewards/pool\.py"
    r"|orchestrator/(cluster|fleet|generators|heartbeats|learner_group|placement|ray_metrics|remote|stream|submit)\.py",
    "vllm": r"rollout/(engine|versioned_engine|weights|nccl_weights)\.py|learner/transfer\.py",
    "deepspeed": r"learner/(backend|reference|weights|checkpoint)\.py",
}


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def within(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(f"{allowed}.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_design(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    allowed = MAY_IMPORT[place.split("/")[0]]
    for name in imports(path):
        root = name.split(".")[0]
        if root in PACKAGES:
            assert any(within(name, package) for package in allowed), f"{place} imports {name}"
        if root in LIBRARY_HOMES:
            assert re.fullmatch(LIBRARY_HOMES[root], place), f"{place} imports {root}"


def test_packages_are_empty_shells_and_no_module_is_a_drawer() -> None:
    assert all(not path.read_text() for path in FILES if path.name == "__init__.py")
    drawers = {"utils", "helpers", "common", "manager", "misc"}
    assert not [path for path in FILES if path.stem in drawers]
