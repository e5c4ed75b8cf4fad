"""Notebooks as they are committed: executed in order, without errors, small, and without a trace of a machine."""

import json
import re
from pathlib import Path

import pytest

from orchestrator.report.reading.privacy import FOLDER
from tests.support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
EVERY_NOTEBOOK = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
MAX_BYTES = 200_000
MODULE = re.compile(r"^from ((?:orchestrator|rollout|rewards|learner)[\w.]*) import", re.MULTILINE)


@EVERY_NOTEBOOK
def test_every_cell_was_executed_in_order_and_none_failed(file: Path) -> None:
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data", "execute_result"}
    for cell in cells:
        source = "".join(cell["source"])
        compile(source, file.name, "exec")
        for module in MODULE.findall(source):
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


@EVERY_NOTEBOOK
def test_it_is_small_and_tells_nothing_of_a_machine(file: Path) -> None:
    text = file.read_text()
    found = json.loads(text)
    assert len(text) < MAX_BYTES
    assert found["metadata"].keys() <= {"kernelspec", "language_info"}
    assert not [cell["metadata"] for cell in found["cells"] if cell["metadata"]]
    printed = [
        "".join(part)
        for cell in found["cells"]
        for output in cell.get("outputs", [])
        for part in (output.get("text", ""), output.get("data", {}).get("text/plain", ""))
    ]
    assert not [text for text in printed if FOLDER.search(text) or "127.0.0.1" in text]


def test_links_of_its_text_lead_somewhere() -> None:
    for file in NOTEBOOKS:
        cells = json.loads(file.read_text())["cells"]
        links = re.findall(r"\]\(([^)\s#]+)", "".join("".join(cell["source"]) for cell in cells))
        assert links and all("://" in link or (file.parent / link).exists() for link in links)
