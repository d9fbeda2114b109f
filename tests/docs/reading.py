"""Reads blocks of code, and commands within the text, out of the README and the pages of docs/."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
# Blocks that are run, and blocks that only show something.
RUN = ("sh", "console", "python")
SHOWN = ("text", "diff", "{eval-rst}", "{include}", "{toctree}")
# Reasons in `<!-- not run: REASON -->`, in the line before a block.
REASONS = (
    "needs a GPU",
    "needs a plug-in",
    "needs optimum",
    "part of a change to the tests",
    "tests in CI are these commands",
)
_FENCE = re.compile(r"^( *)```(\S*)")
_MARK = re.compile(r"<!-- not run: (.*) -->$")
_INLINE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: its file.
        line: The number of its first line of code, from 1.
        language: The word after the fence; ``""`` where nothing is there.
        text: without the fences.
        reason: why it is not run; None for one that is.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def script(self) -> str:
        """What is run: the lines of a console that are typed, or all."""
        if self.language != "console":
            return self.text
        return "".join(f"{line[2:]}\n" for line in self.text.splitlines() if line.startswith("$ "))

    @property
    def output(self) -> list[str]:
        """Lines that a console shows; three dots stand for further ones."""
        if self.language != "console":
            return []
        lines = (line.strip() for line in self.text.splitlines() if not line.startswith("$ "))
        return [line for line in lines if line != "..."]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    before = ""
    for number, line in lines:
        if fence := _FENCE.match(line):
            closing = f"{fence[1]}```"
            text = []
            for _, inner in lines:
                if inner.startswith(closing):
                    break
                text.append(inner)
            mark = _MARK.search(before)
            yield Block(
                page,
                number + 1,
                fence[2],
                textwrap.dedent("\n".join(text)) + "\n",
                mark and mark[1],
            )
        before = line or before


def without_blocks(page: Path) -> str:
    """A page's text alone."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def inline(page: Path) -> list[str]:
    """What stands between backticks in a page's text, with its line breaks as spaces."""
    return [" ".join(code.split()) for code in _INLINE.findall(without_blocks(page))]
