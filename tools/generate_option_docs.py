"""Writes the documentation of the options from the table in kprod.config.

    python tools/generate_option_docs.py            rewrite docs/options.md and the table in README.md
    python tools/generate_option_docs.py --check    exit with 1 if they are not up to date

The table in README.md stands between two marker comments; it has the options of high importance and those of
medium importance that most applications meet.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from kprod.config import FOREIGN_NAMES, NO_EFFECT, NOT_AVAILABLE, OPTIONS, SECURITY, TRANSACTIONS, Option

ROOT = Path(__file__).resolve().parent.parent
OPTIONS_PAGE = ROOT / "docs" / "options.md"
README = ROOT / "README.md"
BEGIN = "<!-- options: made by tools/generate_option_docs.py -->"
END = "<!-- /options -->"

INTRODUCTION = """\
# Options

<!-- Made by tools/generate_option_docs.py from the table in src/kprod/config.py: change it there. -->

Options are keyword arguments of `KafkaProducer`, or a mapping as its first argument, or both:

<!-- run with: imported -->

```python
KafkaProducer(bootstrap_servers="kafka-1:9092,kafka-2:9092", linger_ms=20)
KafkaProducer({"bootstrap.servers": "kafka-1:9092,kafka-2:9092", "linger.ms": "20"})
```

* Every name may be written with underscores or with dots, as in Java's properties files.
* In a mapping numbers and booleans may be text (`"20"`, `"true"`); as keyword arguments they must be numbers
  and booleans.
* An unknown name, a value out of range and options that contradict each other are a `KafkaConfigurationError`
  (a `ValueError`) of the constructor, before anything is connected.
* Defaults and rules are the Java client's, version 4, unless the text says otherwise.
"""


def cell(text: str) -> str:
    """Text that is safe in a cell of a Markdown table; names of pages become links."""
    safe = text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    return re.sub(r"\b([a-z-]+)\.md\b", r"[\1](\g<0>)", safe)


def default_of(option: Option) -> str:
    """The default, as a user would write it or in words."""
    if option.default_text is not None:
        return option.default_text
    return f"`{option.show(option.default)}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell(text) for text in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def name_of(option: Option) -> str:
    """The name, with further names below it."""
    further = "".join(f"<br>also `{alias}`" for alias in option.aliases)
    return f"`{option.name}`{further}"


def options_page() -> str:
    """The text of docs/options.md."""
    parts = [INTRODUCTION]
    groups = dict.fromkeys(option.group for option in OPTIONS.values())
    for group in groups:
        rows = [
            (name_of(option), default_of(option), option.kind.accepts, option.doc)
            for option in OPTIONS.values()
            if option.group == group
        ]
        # name_of() makes markup, so its column is not escaped by table().
        head = ("option", "default", "takes", "what it does")
        lines = [f"| {' | '.join(head)} |", "|---|---|---|---|"]
        lines += [f"| {row[0]} | {' | '.join(cell(text) for text in row[1:])} |" for row in rows]
        parts.append(f"## {group}\n\n" + "\n".join(lines) + "\n")
    parts.append(
        "## Accepted without effect\n\n"
        "Options of the Java client and of kafka-python 2.0 to 3.1 that mean nothing here. They give a "
        "warning, unless the value asks for nothing.\n\n"
        + table(("option", "why"), ((f"`{name}`", option.reason) for name, option in NO_EFFECT.items()))
    )
    parts.append(
        "## Not available\n\n"
        "Setting these is an error, because ignoring them would change what happens to records or "
        "connections.\n\n"
        + table(("option", "what is missing"), ((f"`{name}`", what) for name, what in NOT_AVAILABLE.items()))
    )
    parts.append(
        "## librdkafka's names\n\n"
        "Where an option of librdkafka or aiokafka is called otherwise here, the error for the unknown name "
        "says so.\n\n"
        + table(("there", "here"), ((f"`{name}`", f"`{here}`") for name, here in FOREIGN_NAMES.items()))
    )
    return "\n".join(parts)


def readme_table() -> str:
    """The table in README.md, with its markers."""
    rows = [
        (f"`{option.name}`", default_of(option), option.doc)
        for option in OPTIONS.values()
        if option.group not in (SECURITY, TRANSACTIONS)
        and (option.importance == "high" or option.name in README_TOO)
    ]
    return f"{BEGIN}\n\n{table(('option', 'default', 'what it does'), rows)}\n{END}"


# Options of medium importance that most applications meet.
README_TOO = (
    "client_id",
    "batch_size",
    "linger_ms",
    "max_block_ms",
    "max_request_size",
    "request_timeout_ms",
    "delivery_timeout_ms",
    "partitioner",
    "on_delivery",
    "topic_options",
    "compression_level",
)


def with_table(readme: str) -> str:
    """README.md with the table as it should be.

    Raises:
        ValueError: the markers are missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks {BEGIN} or {END}")
    return before + readme_table() + after


def outdated() -> list[Path]:
    """The files that are not up to date."""
    wanted = {OPTIONS_PAGE: options_page(), README: with_table(README.read_text(encoding="utf-8"))}
    return [
        path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the documentation of the options.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    if parser.parse_args(arguments).check:
        for path in outdated():
            print(f"{path.relative_to(ROOT)} is not up to date: run {Path(__file__).name}", file=sys.stderr)
        return 1 if outdated() else 0
    OPTIONS_PAGE.write_text(options_page(), encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
