"""One HTML file that needs nothing else: style, scripts, charts library and data, under a strict content policy."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.report.reading.embedding import embedded

ASSETS = Path(__file__).parent / "assets"
STYLES = ("page.css", "charts.css", "rollouts.css")
MODULES = (
    *("dom.js", "columns.js", "plots.js", "charts.js", "summary.js", "learning.js", "tokens.js", "rollouts.js"),
    *("emergence.js", "credit.js", "compare.js", "evaluation.js", "main.js"),
)
"""In the order in which they need each other; each may import from those before it."""
MAX_PAGE = 15_000_000
"""Bytes of a report, which people send to each other."""
MAX_GROUPS = 8 * 2**20
"""Bytes of the completions in it, so that the page stays quick."""
EXAMPLES = 100_000
"""Bytes of what is made of a run's completions once they are chosen: the groups that are explained."""
IMPORT = re.compile(r"^import\b[^;]*;\n", re.MULTILINE)
EXPORT = re.compile(r"^export ", re.MULTILINE)

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript><p>This report draws itself: allow its scripts. They load nothing and send nothing.</p></noscript>
<div id="report"></div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
<script>{library}</script>
</body>
</html>
"""


def document(title: str, data: Mapping[str, Any]) -> str:
    """Return the page as HTML. Only these very scripts may run in it, and nothing may be loaded or sent."""
    script, library = bundled(), charts_library()
    allowed = " ".join(f"'sha256-{digest(each)}'" for each in (script, library))
    # The charts library writes its own style sheet, so that styles cannot be named by their hashes.
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    style = "\n".join((ASSETS / name).read_text("utf-8") for name in STYLES)
    return PAGE.format(
        policy=policy, title=escape(title), style=style, data=embedded(data), script=script, library=library
    )


def room_beside(data: Mapping[str, Any]) -> int:
    """Return how many bytes a page that shows this data has left for completions."""
    taken = empty_page() + len(embedded(data)) + EXAMPLES * len(data.get("runs", ["an evaluation"]))
    return min(MAX_GROUPS, max(0, MAX_PAGE - taken))


@cache
def empty_page() -> int:
    """Return the bytes of a page without data."""
    return len(document("", {}).encode())


def bundled() -> str:
    """Return the page's modules as one script: what they import from each other stands in one scope."""
    parts = [EXPORT.sub("", IMPORT.sub("", (ASSETS / name).read_text("utf-8"))) for name in MODULES]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();"


def charts_library() -> str:
    """Return plotly.js, as the Python package ships it. Nothing of the package is imported."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the report's charts need plotly: `make install` installs it")
    text = (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_text("utf-8")
    return text.replace("</script", "<\\/script")


def digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
