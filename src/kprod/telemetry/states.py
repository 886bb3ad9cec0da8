"""The states of client telemetry, and the table of their transitions (KIP-714).

They are those of Java's ``ClientTelemetryState``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class State(enum.Enum):
    """Where client telemetry is."""

    SUBSCRIPTION_NEEDED = "subscription needed"
    """The brokers have to be asked, now or later, which metrics they want."""
    SUBSCRIPTION_IN_PROGRESS = "subscription in progress"
    PUSH_NEEDED = "push needed"
    """Waiting for the push interval to be over."""
    PUSH_IN_PROGRESS = "push in progress"
    TERMINATING_PUSH_NEEDED = "terminating push needed"
    """The producer is being closed: the last metrics are to be sent at once."""
    TERMINATING_PUSH_IN_PROGRESS = "terminating push in progress"
    TERMINATED = "terminated"
    """Nothing more is sent."""


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.SUBSCRIPTION_NEEDED: frozenset({State.SUBSCRIPTION_IN_PROGRESS, State.TERMINATED}),
    State.SUBSCRIPTION_IN_PROGRESS: frozenset(
        {State.PUSH_NEEDED, State.SUBSCRIPTION_NEEDED, State.TERMINATED}
    ),
    State.PUSH_NEEDED: frozenset(
        {State.PUSH_IN_PROGRESS, State.SUBSCRIPTION_NEEDED, State.TERMINATING_PUSH_NEEDED, State.TERMINATED}
    ),
    State.PUSH_IN_PROGRESS: frozenset(
        {State.PUSH_NEEDED, State.SUBSCRIPTION_NEEDED, State.TERMINATING_PUSH_NEEDED, State.TERMINATED}
    ),
    State.TERMINATING_PUSH_NEEDED: frozenset({State.TERMINATING_PUSH_IN_PROGRESS, State.TERMINATED}),
    State.TERMINATING_PUSH_IN_PROGRESS: frozenset({State.TERMINATED}),
    State.TERMINATED: frozenset(),
}
"""From each state to those that may follow it."""
