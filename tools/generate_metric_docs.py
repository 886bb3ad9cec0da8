"""Writes the tables of docs/metrics.md from those in kprod.metric_names and kprod.prometheus.

    python tools/generate_metric_docs.py            rewrite docs/metrics.md
    python tools/generate_metric_docs.py --check    exit with 1 if it is not up to date

What stands outside of the marker comments is written by hand. Needs the extra `prometheus`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from kprod import prometheus
from kprod.metric_names import GROUPS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
_BEGIN = "<!-- {}: made by tools/generate_metric_docs.py -->"
_END = "<!-- /{} -->"

_PROMETHEUS = (
    (prometheus.PRODUCER, "`client_id`"),
    (prometheus.HEALTH, "`client_id`"),
    (prometheus.TOPIC, "`client_id`, `topic`"),
    (prometheus.BROKER, "`client_id`, `broker`"),
)


def java_tables() -> Iterable[str]:
    """The groups of metrics()."""
    for group, metrics in GROUPS.items():
        yield f"### {group}\n"
        yield "| metric | what it says |\n|---|---|"
        yield from (f"| `{metric.name}` | {metric.doc} |" for metric in metrics)
        yield ""


def prometheus_table() -> Iterable[str]:
    """What the collector exports."""
    yield "| metric | type | labels | what it says |\n|---|---|---|---|"
    for metrics, labels in _PROMETHEUS:
        for metric in metrics:
            name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
            yield f"| `{name}` | {metric.kind} | {labels} | {metric.doc} |"


def made() -> str:
    """The page as it should be.

    Raises:
        ValueError: a marker is missing.
    """
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in (("java", java_tables()), ("prometheus", prometheus_table())):
        begin, end = _BEGIN.format(name), _END.format(name)
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise ValueError(f"{PAGE.name} lacks {begin} or {end}")
        table = "\n".join(lines).rstrip()
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def outdated() -> bool:
    """Whether the page is not up to date."""
    return made() != PAGE.read_text(encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the documentation of the metrics.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    if parser.parse_args(arguments).check:
        if outdated():
            print(f"{PAGE.name} is not up to date: run {Path(__file__).name}", file=sys.stderr)
        return int(outdated())
    PAGE.write_text(made(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
