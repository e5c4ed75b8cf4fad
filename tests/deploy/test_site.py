"""The documentation as a site: the pages as GitHub shows them, and no link that leads nowhere."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from deploy.site import pages
from tests.support.markdown import anchor_of
from tests.support.paths import ROOT

CONFIG = ROOT / "deploy" / "site" / "mkdocs.yml"
BUILT = pytest.mark.skipif(find_spec("mkdocs") is None, reason="`make site` installs mkdocs-material")


def build(config: Path, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(folder)]
    return subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)


@BUILT
@pytest.mark.slow
def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    ended = build(CONFIG, tmp_path)
    assert ended.returncode == 0, ended.stderr
    written = {file.stem for file in tmp_path.glob("*.html")}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"README"} <= written
    for page in tmp_path.rglob("*.html"):
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"https?://", page.read_text()), page


@BUILT
@pytest.mark.slow
def test_links_that_lead_nowhere_stop_the_build(tmp_path: Path) -> None:
    links = ["nowhere.md", "push.md#no-such-heading", "../nowhere.py"]
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "push.md").open("a") as page:
        page.writelines(f"\nSee [this]({link}).\n" for link in links)
    config = tmp_path / "mkdocs.yml"
    config.write_text(f"INHERIT: {CONFIG}\ndocs_dir: docs\nhooks: [{CONFIG.parent / 'pages.py'}]\n")
    ended = build(config, tmp_path / "site")
    assert ended.returncode != 0 and not [link for link in links if f"'{link}'" not in ended.stderr]


@pytest.mark.parametrize("heading", ["What does the card say?", "`rayzero push`: the command", "Größe & Maß – 2.5"])
def test_anchors_are_those_of_github(heading: str) -> None:
    assert pages.anchor(heading, "-") == anchor_of(heading)


def test_links_lead_to_the_sites_own_pages_and_code_stays() -> None:
    text = "[a](report.md#x) [b](../README.md#recipes) [c](../rollout/config.py) ![d](images/dashboard.png) [e](https://x.y)"
    drawn = f"![drawn](data:image/png;base64,{'A' * 5000})"
    assert pages.redirected(drawn, "notebooks/first_run.md") == drawn
    assert pages.redirected(f"{text}\n```\n[b](../README.md)\n```\n", "push.md").splitlines() == [
        "[a](report.md#x) [b](source/rayzero.md#recipes) [c](source/rollout/config.py.md) ![d](images/dashboard.png) "
        "[e](https://x.y)",
        *("```", "[b](../README.md)", "```"),
    ]
    assert pages.redirected(
        "![a](docs/smollm2-135m.png) [b](docs/push.md) [c](CONTRIBUTING.md)", "source/rayzero.md"
    ) == ("![a](../smollm2-135m.png) [b](../push.md) [c](CONTRIBUTING.md)")


def test_the_order_is_that_of_the_index() -> None:
    found = pages.navigation(
        "# Index\n\n## First\n| a | [b](one-two.md#x) [c](../README.md) |\n## Second\n[d](one-two.md)\n"
    )
    assert [next(iter(section)) for section in found] == ["Overview", "First"]
    assert found[1]["First"] == [{"One two": "one-two.md"}]


def test_a_notebook_is_a_page_and_no_output_ends_its_block() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": [{"text": ["```\n", "<b>1</b>\n"]}]},
        {"cell_type": "code", "source": [], "outputs": [{"data": {"image/png": "iVBO\n", "text/plain": ["<Figure>"]}}]},
    ]
    assert pages.notebook({"cells": cells}) == (
        "# Title\ntext\n\n```python\nprint(1)\n```\n\n````text\n```\n<b>1</b>\n````\n\n```python\n\n```\n\n"
        "![drawn](data:image/png;base64,iVBO)\n"
    )
