"""How ``kprod demo`` shows what it did: with rich where it is installed, else as plain text."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from kprod.commands.demo_checks import Check


class Section(NamedTuple):
    """A part of the report: a title and lines of a label and what it says."""

    title: str
    lines: list[tuple[str, str]]


def make_console() -> Any:
    """A rich console, or None when rich is not installed."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False, soft_wrap=True)


def show_step(console: Any, text: str) -> None:
    """Say what happens now."""
    if console is None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    else:
        console.print(text, markup=False, style="dim")


def show_report(console: Any, sections: list[Section], checks: list[Check]) -> None:
    """Print the report to stdout."""
    if console is None:
        _show_plain(sections, checks)
    else:
        _show_rich(console, sections, checks)


def _verdict(checks: list[Check]) -> str:
    wrong = sum(not check.passed for check in checks)
    return "Everything is as it should be." if wrong == 0 else f"{wrong} of {len(checks)} checks failed."


def _show_plain(sections: list[Section], checks: list[Check]) -> None:
    width = max(len(label) for section in sections for label, _ in section.lines)
    out = [""]
    for section in sections:
        out.append(section.title)
        out += [f"  {label:<{width}}  {text}" for label, text in section.lines]
        out.append("")
    out.append("Checks")
    out += [f"  {'ok   ' if check.passed else 'WRONG'}  {check.name}: {check.detail}" for check in checks]
    out += ["", _verdict(checks)]
    sys.stdout.write("\n".join(out) + "\n")


def _show_rich(console: Any, sections: list[Section], checks: list[Check]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    width = max(len(label) for section in sections for label, _ in section.lines)
    for section in sections:
        table = Table(
            title=section.title,
            title_justify="left",
            title_style="bold",
            box=None,
            show_header=False,
            padding=(0, 1),
        )
        table.add_column(style="cyan", min_width=width, no_wrap=True)
        table.add_column(overflow="fold")
        for label, text in section.lines:
            table.add_row(Text(label), Text(text))
        console.print()
        console.print(table)
    table = Table(
        title="Checks",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        show_header=False,
        padding=(0, 1),
    )
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(overflow="fold")
    for check in checks:
        mark = Text("ok", style="green") if check.passed else Text("WRONG", style="bold red")
        table.add_row(mark, Text(check.name), Text(check.detail, style="" if check.passed else "red"))
    console.print()
    console.print(table)
    passed = all(check.passed for check in checks)
    console.print(Text(_verdict(checks), style="bold green" if passed else "bold red"))
