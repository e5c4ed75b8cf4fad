"""The report's scripts say their types by JSDoc, and TypeScript finds them right."""

import re
import shutil
import subprocess

import pytest

from tests.support.paths import ROOT

ASSETS = sorted((ROOT / "orchestrator" / "report" / "page" / "assets").glob("*.js"))
NPX = shutil.which("npx")


@pytest.mark.skipif(NPX is None, reason="npx is missing: install Node.js")
def test_typescript_finds_nothing() -> None:
    said = (ROOT / "CONTRIBUTING.md").read_text().replace("\\\n", " ")
    command = re.search(r"\$ npx (--package typescript@\S+ tsc .*?)\S+\.js$", said, re.MULTILINE)
    assert command is not None and NPX is not None and len(ASSETS) > 5
    # Nothing is downloaded by a test.
    arguments = [NPX, "--offline", "--yes", *command[1].split(), *map(str, ASSETS)]
    found = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    if "ENOTCACHED" in found.stderr:
        pytest.skip("TypeScript is not in npm's cache: run the command of CONTRIBUTING.md once")
    assert found.returncode == 0, found.stdout + found.stderr
