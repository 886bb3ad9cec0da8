"""Writes the table of broker errors in docs/troubleshooting.md from the one in kprod.errors.

python tools/generate_error_docs.py            rewrite the table
python tools/generate_error_docs.py --check    exit with 1 if it is not up to date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kprod.errors import BROKER_ERRORS, BrokerError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "troubleshooting.md"
BEGIN = "<!-- errors: made by tools/generate_error_docs.py -->"
END = "<!-- /errors -->"


def treatment(error: BrokerError) -> str:
    """What a producer does about it."""
    if error.fatal:
        return "ends the producer, if it is idempotent or transactional"
    if error.abortable:
        return "abort the transaction"
    if error.retriable:
        return "again by itself" + (", with new metadata" if error.refresh_metadata else "")
    return "reported"


def table() -> str:
    """The table, between its markers."""
    lines = [BEGIN, "", "| code | error | what it means | what happens |", "|--:|---|---|---|"]
    for error in sorted(BROKER_ERRORS.values(), key=lambda error: error.code):
        if error.code == 0:
            continue
        description = error.description.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
        names = f"`{error.error.__name__}`<br>{error.name}"
        lines.append(f"| {error.code} | {names} | {description} | {treatment(error)} |")
    return "\n".join([*lines, "", END])


def with_table(page: str) -> str:
    """The page with the table of now.

    Raises:
        ValueError: the page does not have both marker comments.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} must have the lines {BEGIN} and {END}")
    return before + table() + after


def main(arguments: Sequence[str]) -> int:
    """Rewrite the page, or check it; the exit status."""
    parser = argparse.ArgumentParser(description="Writes the table of errors in docs/troubleshooting.md.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    page = PAGE.read_text(encoding="utf-8")
    if not parser.parse_args(arguments).check:
        PAGE.write_text(with_table(page), encoding="utf-8")
    elif page != with_table(page):
        print("docs/troubleshooting.md is not up to date: run tools/generate_error_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
