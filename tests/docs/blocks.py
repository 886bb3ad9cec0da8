"""Blocks of code on the pages of the documentation, and what a comment in front of one says about it.

A comment ``<!-- run with: NAME, NAME -->`` in front of a block gives it what functions of these names in
``tests.docs.surroundings`` make. ``<!-- not run: REASON -->`` keeps a block from being run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<word>run with|not run): (?P<said>[^\n]*?) -->\n\n?)?"
    r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
LEFT_ALONE = {"text", "mermaid"}
"""Languages of blocks that are no code: output of programs, and diagrams."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, what it is, and what the comment in front of it says."""

    page: str
    line: int
    language: str
    code: str
    surroundings: tuple[str, ...] = ()
    not_run: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page, as a path in the repository."""
    in_root = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "bench/README.md"]
    return in_root + [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        said = match["said"] or ""
        found.append(
            Block(
                page,
                # Of the first line of code.
                text.count("\n", 0, match.start("code")) + 1,
                match["language"].strip(),
                match["code"],
                tuple(said.split(", ")) if match["word"] == "run with" else (),
                said if match["word"] == "not run" else None,
            )
        )
    return found
