"""The notebook runs from its first cell to its last, on a real model, as whoever opens it would run it."""

from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.pretrained import gguf_file

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_every_cell_runs_and_the_run_is_there(tmp_path: Path, monkeypatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="`make install` installs nbclient")
    from nbclient import NotebookClient

    gguf_file()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "first_run.ipynb", as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=560, kernel_name="python3", resources=place).execute()
    run = tmp_path / "runs" / "first-run"
    assert (run / "final" / "model.safetensors").stat().st_size > 100 * 2**20
    assert (run / "report.html").exists() and (run / "push" / "README.md").exists()
    (trained,) = [cell for cell in notebook.cells if cell.source.startswith('rayzero("train"')]
    assert trained.outputs[0].text.count("step ") == 3
