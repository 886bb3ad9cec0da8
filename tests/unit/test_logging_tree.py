"""One tree of loggers, and all of it documented."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def loggers() -> dict[str, str]:
    """The names given to getLogger() in the package, with a file that does."""
    found = {}
    for path in sorted((ROOT / "src" / "kprod").rglob("*.py*")):
        if path.suffix not in (".py", ".pyx"):
            continue
        text = path.read_text(encoding="utf-8")
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for argument in re.findall(r"""\b(?:logging\.getLogger|logger)\((__name__|"[^"]*")\)""", text):
            found[module if argument == "__name__" else argument.strip('"')] = str(path)
    del found["kprod"]  # the root: it gets handlers, and says nothing
    return found


def test_every_logger_is_below_kprod() -> None:
    names = loggers()
    assert {"kprod.engine", "kprod.delivery", "kprod.config", "kprod.interceptors"} <= set(names)
    assert [name for name in names if not name.startswith("kprod.")] == []


def test_every_logger_is_documented() -> None:
    page = (ROOT / "docs" / "logging.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(kprod[\w.]*)` \|", page, re.MULTILINE))
    assert documented == set(loggers())
