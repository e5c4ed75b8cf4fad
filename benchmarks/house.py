"""Print how the code is built: rooms, files, lines, circles and imports.

`python -m benchmarks.house`, or with a folder that another version was checked out into. Tests hold the limits
(tests/test_architecture.py); this says how far from them the code is, and what a change did.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from pathlib import Path
from statistics import median

PACKAGES = ("rollout", "rewards", "learner", "orchestrator", "deploy")
WALKS = ("Prompt", "Group", "WeightBucket", "group_size")
"""Names whose files are counted: a question, its completions, a part of the weights, a setting."""


def main(root: Path) -> None:
    """Print the figures of the checkout in ``root``."""
    paths = [path for package in PACKAGES for path in (root / package).rglob("*.py") if path.stem != "__init__"]
    modules = {".".join(path.relative_to(root).with_suffix("").parts): path.read_text() for path in paths}
    trees = {name: ast.parse(text) for name, text in modules.items()}
    imports = {name: imported(tree) & modules.keys() for name, tree in trees.items()}
    rooms = Counter(name.rpartition(".")[0] for name in modules)
    lines = Counter({name: len(text.splitlines()) for name, text in modules.items()})
    functions = [
        node.end_lineno - node.lineno + 1
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    ]
    print(f"files {len(modules)}, lines {lines.total():,}, rooms {len(rooms)}")
    for package in PACKAGES:
        print(f"  {package}: {sum(count for name, count in lines.items() if name.startswith(package)):,} lines")
    print(f"widest rooms: {', '.join(f'{room} {count}' for room, count in rooms.most_common(3))}")
    print(f"longest files: {', '.join(f'{name} {count}' for name, count in lines.most_common(3))}")
    print(f"functions {len(functions):,}, median {median(functions):g} lines, longest {max(functions)}")
    print(f"imports {sum(map(len, imports.values()))}, files in circles {len(in_circles(imports))}")
    arrows = [(one, other) for one in imports for other in imports[one] if one[:12] == other[:12] == "orchestrator"]
    crossed = {(one.rpartition(".")[0], other.rpartition(".")[0]) for one, other in arrows}
    between = [pair for pair in crossed if pair[0] != pair[1]]
    print(f"imports within orchestrator {len(arrows)}, arrows between its rooms {len(between)}")
    for name in WALKS:
        passed = [module for module, text in modules.items() if re.search(rf"\b{name}\b", text)]
        print(f"  {name} is named in {len(passed)} files")


def imported(tree: ast.Module) -> set[str]:
    """Return all that a file imports, and the modules that the names come from."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def in_circles(imports: dict[str, set[str]]) -> set[str]:
    """Return the files that import themselves through others."""

    def reached_from(module: str) -> set[str]:
        reached, waiting = set[str](), [module]
        while waiting:
            waiting += (new := imports[waiting.pop()] - reached)
            reached |= new
        return reached

    return {module for module in imports if module in reached_from(module)}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
