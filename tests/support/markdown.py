"""The parts of a Markdown page that the tests of the documentation look at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
LIST_ITEM = re.compile(r" *(?:[-*]|\d+\.) ")


@dataclass(frozen=True)
class Page:
    """A Markdown file, read once."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without fenced code; as many lines as the file has."""
        return FENCE.sub(lambda match: "\n" * match[0].count("\n"), self.text)

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and text of each fenced block."""
        return FENCE.findall(self.text)

    @cached_property
    def spans(self) -> list[str]:
        """The inline code, each on one line."""
        found = re.findall(r"(?<!`)`([^`]+)`(?!`)", self.prose)
        return [re.sub(r"\s+", " ", span).strip() for span in found]

    @cached_property
    def commands(self) -> list[str]:
        """Lines of code, inline or fenced, without their comments; a line that a backslash continues is one."""
        fenced = [re.sub(r"\\\n\s*", " ", block) for _, block in self.blocks]
        lines = [*self.spans, *(line for block in fenced for line in block.splitlines())]
        return [re.sub(r"(^|\s)#.*", "", line) for line in lines]

    @cached_property
    def links(self) -> list[str]:
        """Targets of links and pictures."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @cached_property
    def anchors(self) -> set[str]:
        """What `#…` may name, as GitHub makes it of the headings."""
        headings = re.findall(r"^#+ +(.+?)\s*$", self.prose, re.MULTILINE)
        return {anchor_of(heading) for heading in headings}

    @cached_property
    def paragraphs(self) -> list[str]:
        """Paragraphs and items of lists; no tables, headings or pictures."""
        paragraphs: list[list[str]] = [[]]
        for line in self.prose.splitlines():
            if not line.strip() or line.startswith(("#", "|", "![")):
                paragraphs.append([])
                continue
            if LIST_ITEM.match(line):
                paragraphs.append([])
            paragraphs[-1].append(line)
        return [" ".join(lines) for lines in paragraphs if lines]

    @cached_property
    def cells(self) -> list[str]:
        """Texts of the cells of tables."""
        rows = [line for line in self.prose.splitlines() if line.startswith("|")]
        return [cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row)]

    @cached_property
    def long_lines(self) -> list[str]:
        """Lines of prose of more than 100 characters. Tables, and where links lead, do not count."""
        lines = [line for line in self.prose.splitlines() if not line.startswith("|")]
        return [line for line in lines if len(re.sub(r"\]\([^)]*\)", "]", line)) > 100]


def anchor_of(heading: str) -> str:
    """GitHub's anchor: lower case, no punctuation, a hyphen for each space."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
