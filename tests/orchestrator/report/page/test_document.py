"""The page itself: what a model wrote cannot become a part of it, and nothing can be loaded or sent."""

import base64
import hashlib
import json
import re
from collections import Counter

import pytest

from orchestrator.report.page.document import ASSETS, MODULES, STYLES, bundled, document
from orchestrator.report.reading.embedding import embedded

pytest.importorskip("plotly", reason="`make install` installs plotly")

HOSTILE = [
    "</script><script>alert(1)</script>", "<!-- <script>", "]]>", "\u0000\u202eevil\u2066", "\ud800", "😀", "&lt;b&gt;",
    "x" * 2**20,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_text_stays_text(text: str) -> None:
    found = embedded({"text": text})
    assert not set("<>&\u0000\u202e") & set(found)
    assert json.loads(found) == {"text": text}
    page = document(text, {"text": text})
    assert page.count("</script>") == 3 and page.count("<script") == 3
    assert "<b>" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_only_the_pages_own_scripts_may_run_and_nothing_may_be_loaded() -> None:
    page = document("a", {})
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe-eval" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(hashes) == 2 and re.findall(r"'sha256-([^']*)'", policy) == hashes
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href|url)\s*[=(]", outside)


def test_modules_share_a_scope_and_so_no_name_is_given_twice() -> None:
    text = bundled()
    assert not re.findall(r"^\s*(?:import|export)\b.*from", text, re.MULTILINE)
    names = Counter(re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", text, re.MULTILINE))
    assert not [name for name, count in names.items() if count > 1]


def test_every_module_and_style_is_in_the_page_after_what_it_imports() -> None:
    assert {path.name for path in ASSETS.iterdir()} == {*MODULES, *STYLES}
    for place, name in enumerate(MODULES):
        imported = re.findall(r'^import .* from "\./(\w+\.js)";', (ASSETS / name).read_text(), re.MULTILINE)
        assert set(imported) <= set(MODULES[:place]), name


def test_scripts_are_small_and_make_no_markup_of_text() -> None:
    for path in ASSETS.glob("*.js"):
        text = path.read_text()
        assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
        assert len(text.splitlines()) <= 250, path.name
