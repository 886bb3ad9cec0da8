"""The messages in docs/troubleshooting.md are those of the source."""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^### `(.*)`$", PAGE, re.MULTILINE)
VARIES = "\0"


def texts_of(path: Path) -> list[str]:
    """The texts in a source file, with VARIES for what is put into them."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        # Cython has no parser at hand: join adjacent literals, and take what is between quotes.
        joined = re.sub(r'"[ \t]*\n[ \t]*f?"', "", source)
        literals = re.findall(r'"((?:[^"\\\n]|\\.)*)"', joined)
        return [re.sub(r"\{[^}]*\}", VARIES, literal) for literal in literals]
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else VARIES for part in node.values]
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


@cache
def texts() -> list[str]:
    """The texts in all sources."""
    return [
        text
        for pattern in ("*.py", "*.pyx", "*.pxi")
        for path in sorted((ROOT / "src" / "kprod").rglob(pattern))
        for text in texts_of(path)
    ]


def is_written(message: str) -> bool:
    """Whether the fixed parts of the message are in one text of the source, in their order."""
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
    pattern = re.compile(".*?".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in texts())


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 30


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_in_the_source(message: str) -> None:
    assert is_written(message), "no text in src/kprod has this message any more"


def test_a_message_that_nobody_writes_is_noticed() -> None:
    assert not is_written("none of the bootstrap servers could be reached by …")


def test_the_table_of_errors_is_up_to_date() -> None:
    path = ROOT / "tools" / "generate_error_docs.py"
    spec = importlib.util.spec_from_file_location("generate_error_docs", path)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.with_table(PAGE) == PAGE, "run python tools/generate_error_docs.py"
