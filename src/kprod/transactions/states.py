"""The states of a transactional producer, and the table of their transitions.

``docs/transactions.md`` draws this table, and the property tests walk it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class State(enum.Enum):
    """Where a transactional producer is."""

    UNINITIALIZED = "uninitialized"
    """``init_transactions()`` was not called, or failed in a way that it may be called again after."""
    INITIALIZING = "initializing"
    """Getting the producer id; older producers with the same transactional id are fenced by it."""
    READY = "ready"
    """No transaction is open."""
    IN_TRANSACTION = "in a transaction"
    PREPARING = "preparing"
    """``prepare_transaction()`` waits until all of the transaction is written (KIP-939)."""
    PREPARED = "in a prepared transaction"
    """All is written, and either end is still possible."""
    COMMITTING = "committing"
    ABORTING = "aborting"
    ABORTABLE_ERROR = "in a transaction that must be aborted"
    """Something failed; ``abort_transaction()`` leads on."""
    FATAL_ERROR = "ended by a fatal error"
    """Fenced, or refused for good: the producer can only be closed."""


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.UNINITIALIZED: frozenset({State.INITIALIZING, State.FATAL_ERROR}),
    State.INITIALIZING: frozenset({State.READY, State.PREPARED, State.UNINITIALIZED, State.FATAL_ERROR}),
    State.READY: frozenset({State.IN_TRANSACTION, State.FATAL_ERROR}),
    State.IN_TRANSACTION: frozenset(
        {State.PREPARING, State.COMMITTING, State.ABORTING, State.ABORTABLE_ERROR, State.FATAL_ERROR}
    ),
    State.PREPARING: frozenset({State.PREPARED, State.ABORTING, State.ABORTABLE_ERROR, State.FATAL_ERROR}),
    State.PREPARED: frozenset({State.COMMITTING, State.ABORTING, State.FATAL_ERROR}),
    State.COMMITTING: frozenset({State.READY, State.ABORTABLE_ERROR, State.FATAL_ERROR}),
    State.ABORTABLE_ERROR: frozenset({State.ABORTING, State.FATAL_ERROR}),
    State.ABORTING: frozenset({State.READY, State.FATAL_ERROR}),
    State.FATAL_ERROR: frozenset(),
}
"""From each state to those that may follow it."""


def may_follow(state: State, following: State) -> bool:
    """Whether the table has this transition."""
    return following in TRANSITIONS[state]
