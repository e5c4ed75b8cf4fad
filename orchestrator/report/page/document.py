"""Write one self-contained HTML file: style, scripts, charts library and data, under a strict content policy."""

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
"""In the order of their imports: each may import from the modules before it."""
MAX_PAGE = 15_000_000
"""Largest size of a report in bytes, because people send reports to each other."""
MAX_GROUPS = 8 * 2**20
"""Largest size of its completions in bytes, so that the page stays fast."""
EXAMPLES = 100_000
"""Bytes reserved for data that depends on the chosen completions: the groups that the page explains."""
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
    """Return the page as HTML. Its policy allows only its own scripts, and no loading or sending."""
    script, library = bundled(), charts_library()
    allowed = " ".join(f"'sha256-{digest(each)}'" for each in (script, library))
    # The charts library creates its own style sheet, so the policy cannot list styles by their hashes.
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    style = "\n".join((ASSETS / name).read_text("utf-8") for name in STYLES)
    return PAGE.format(
        policy=policy, title=escape(title), style=style, data=embedded(data), script=script, library=library
    )


def room_beside(data: Mapping[str, Any]) -> int:
    """Return the number of bytes that a page with this data has left for completions."""
    taken = empty_page() + len(embedded(data)) + EXAMPLES * len(data.get("runs", ["an evaluation"]))
    return min(MAX_GROUPS, max(0, MAX_PAGE - taken))


@cache
def empty_page() -> int:
    """Return the size in bytes of a page without data."""
    return len(document("", {}).encode())


def bundled() -> str:
    """Return the page's modules as one script with one scope, so that they need no imports."""
    parts = [EXPORT.sub("", IMPORT.sub("", (ASSETS / name).read_text("utf-8"))) for name in MODULES]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();"


def charts_library() -> str:
    """Return plotly.js from the Python package, without importing the package."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the report's charts need plotly: `make install` installs it")
    text = (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_text("utf-8")
    return text.replace("</script", "<\\/script")


def digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
