"""Draws the states of a transactional producer into docs/transactions.md.

    python tools/draw_transaction_states.py            rewrite the diagram
    python tools/draw_transaction_states.py --check    exit with 1 if it is not up to date

The diagram (Mermaid, which GitHub and most documentation tools show as a picture) stands between two marker
comments, and is made from the table in kprod.transactions.states.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kprod.transactions.states import TRANSITIONS, State

PAGE = Path(__file__).resolve().parent.parent / "docs" / "transactions.md"
BEGIN = "<!-- states: made by tools/draw_transaction_states.py -->"
END = "<!-- /states -->"

LABELS: dict[tuple[State, State], str] = {
    (State.UNINITIALIZED, State.INITIALIZING): "init_transactions()",
    (State.INITIALIZING, State.READY): "has its producer id",
    (State.INITIALIZING, State.PREPARED): "has kept a prepared transaction",
    (State.INITIALIZING, State.UNINITIALIZED): "not allowed",
    (State.READY, State.IN_TRANSACTION): "begin_transaction()",
    (State.IN_TRANSACTION, State.PREPARING): "prepare_transaction()",
    (State.PREPARING, State.PREPARED): "all is written",
    (State.PREPARING, State.ABORTING): "abort_transaction() after a timeout",
    (State.PREPARING, State.ABORTABLE_ERROR): "a record or an offset was refused",
    (State.PREPARED, State.COMMITTING): "complete_transaction() with its state, commit_transaction()",
    (State.PREPARED, State.ABORTING): "complete_transaction() with another, abort_transaction()",
    (State.IN_TRANSACTION, State.COMMITTING): "commit_transaction()",
    (State.IN_TRANSACTION, State.ABORTING): "abort_transaction()",
    (State.IN_TRANSACTION, State.ABORTABLE_ERROR): "a record or an offset was refused",
    (State.COMMITTING, State.READY): "committed",
    (State.COMMITTING, State.ABORTABLE_ERROR): "a record was refused, or the coordinator has aborted",
    (State.ABORTABLE_ERROR, State.ABORTING): "abort_transaction()",
    (State.ABORTING, State.READY): "aborted",
}
"""What leads from one state to another; every state but the last also leads to the fatal error."""


def diagram() -> str:
    """The table of transitions as a Mermaid state diagram.

    Raises:
        ValueError: the table has a transition that is not named here, or the other way round.
    """
    drawn = {
        (state, following)
        for state, all_following in TRANSITIONS.items()
        for following in all_following
        if following is not State.FATAL_ERROR
    }
    if drawn != set(LABELS):
        different = sorted(f"{a.name} to {b.name}" for a, b in drawn ^ set(LABELS))
        raise ValueError(f"name these transitions in LABELS, or take them out: {', '.join(different)}")
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.UNINITIALIZED.name}"]
    lines += [f"    {state.name}: {state.value}" for state in State]
    order = list(State)
    for state, following in sorted(LABELS, key=lambda pair: (order.index(pair[0]), order.index(pair[1]))):
        lines.append(f"    {state.name} --> {following.name}: {LABELS[state, following]}")
    lines += [
        f"    {state.name} --> {State.FATAL_ERROR.name}"
        for state in State
        if State.FATAL_ERROR in TRANSITIONS[state]
    ]
    lines += [f"    {state.name} --> [*]" for state in State if not TRANSITIONS[state]]
    return "\n".join([*lines, "```"])


def with_diagram(page: str) -> str:
    """The text of the page with the diagram of now.

    Raises:
        ValueError: the page does not have both marker comments.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} must have the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{diagram()}\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Rewrite the page, or check it; the exit status."""
    parser = argparse.ArgumentParser(description="Draws the transaction states into docs/transactions.md.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    options = parser.parse_args(arguments)
    page = PAGE.read_text(encoding="utf-8")
    wanted = with_diagram(page)
    if options.check:
        if page != wanted:
            print(f"{PAGE} is not up to date: run python tools/draw_transaction_states.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
