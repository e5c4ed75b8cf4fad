"""Prepare docs/ for mkdocs: the order of the pages, and extra pages for linked files outside of docs/.

The files in docs/ are written for GitHub and are not changed. mkdocs calls the functions whose names begin with `on_`.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INDEX = "docs/README.md"
SOURCE = "source"
"""Folder of the site for files outside of docs/ that are linked from there."""
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
SCHEME = re.compile(r"[a-z]+:")
FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
OF_THE_REPOSITORY = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""Pages outside of docs/."""
PICTURES = (".png", ".svg")
LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".txt": "text"}


def on_config(config: Any) -> Any:
    """Make the same anchors as GitHub, and take the order of the pages from docs/README.md."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = anchor
    config.nav = navigation((ROOT / INDEX).read_text("utf-8"))
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add a page for every linked file outside of docs/, and for each notebook."""
    from mkdocs.structure.files import File

    for path in outside([file.src_uri for file in files if file.src_uri.endswith(".md")]):
        files.append(File.generated(config, page_of(path), content=content_of(path)))
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(file)
        text = notebook(json.loads((ROOT / "docs" / file.src_uri).read_text("utf-8")))
        files.append(File.generated(config, page_of(f"docs/{file.src_uri}"), content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return a page's text with links to pages of the site."""
    return redirected(markdown, page.file.src_uri)


def anchor(heading: str, separator: str) -> str:
    """Return GitHub's anchor for a heading: lower case, no punctuation, a hyphen for each space."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def navigation(index: str) -> list[dict[str, Any]]:
    """Return the sections of the index with their pages. Each page appears only in its first section."""
    sections: dict[str, dict[str, str]] = {"Overview": {"By question": "README.md", "Rayzero": page_of("README.md")}}
    seen: set[str] = set()
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for _, target, _ in LINK.findall(section):
            path = posixpath.normpath(f"docs/{target}")
            if path.endswith((".md", ".ipynb")) and path not in (*seen, "README.md"):
                seen.add(path)
                name = Path(path).stem.replace("-", " ").replace("_", " ")
                sections.setdefault(title, {})[name[0].upper() + name[1:]] = page_of(path)
    return [{title: [{name: page} for name, page in pages.items()]} for title, pages in sections.items()]


def outside(pages: list[str]) -> list[str]:
    """Return the files outside of docs/ that are linked from `pages`, or from Markdown files among the results."""
    linked, todo = {"README.md"}, [f"docs/{page}" for page in pages] + ["README.md"]
    while todo:
        for _, target, _ in LINK.findall(FENCE.sub("", (ROOT / (page := todo.pop())).read_text("utf-8"))):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
            if (
                not SCHEME.match(target)
                and not path.startswith("docs/")
                and path not in linked
                and (ROOT / path).exists()
            ):
                linked.add(path)
                todo += [path] if path.endswith(".md") else []
    return sorted(linked)


def page_of(path: str) -> str:
    """Return the source path of the site's page for a file or folder of the repository."""
    if path.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))
    return f"{SOURCE}/{path if path.endswith('.md') else f'{path}.md'}".replace("README.md", "rayzero.md")


def redirected(markdown: str, page: str) -> str:
    """Return a page's text, with its links to files of the repository replaced by links to pages of the site."""
    here = next((path for path in OF_THE_REPOSITORY if page == page_of(path)), f"docs/{page}")

    def target(match: re.Match[str]) -> str:
        opening, name, fragment = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), name))
        if SCHEME.match(name) or not (ROOT / path).exists():  # mkdocs reports broken links
            return match[0]
        shown = path.removeprefix("docs/") if path.endswith(PICTURES) else page_of(path)
        return f"{opening}{posixpath.relpath(shown, posixpath.dirname(page) or '.')}{fragment}"

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(target, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(target, markdown[end:])])


def content_of(path: str) -> str:
    """Return a page with the text of a file of the repository, or with the names in a folder."""
    file = ROOT / path
    if file.is_dir():
        return f"# {path}/\n\n" + "".join(f"- `{each.name}`\n" for each in sorted(file.glob("[!_]*")))
    text = file.read_text("utf-8")
    return text if path.endswith(".md") else f"# {path}\n\n{fenced(LANGUAGES.get(file.suffix, 'text'), text)}\n"


def fenced(language: str, text: str) -> str:
    """Return a block of code, with a fence that no line of the text can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def notebook(content: dict[str, Any]) -> str:
    """Return a notebook as a page: its cells, with their printed output and pictures."""
    parts = []
    for cell in content["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else fenced("python", text))
        for output in cell.get("outputs", []):
            shown = output.get("data", {})
            if "image/png" in shown:
                parts.append(f"![drawn](data:image/png;base64,{''.join(shown['image/png']).strip()})")
            elif printed := "".join(output.get("text", shown.get("text/plain", ""))):
                parts.append(fenced("text", printed))
    return "\n\n".join(parts) + "\n"
