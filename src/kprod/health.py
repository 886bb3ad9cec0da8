"""``producer.healthy()``: whether records leave, and if not, why; for health checks of services."""

from __future__ import annotations

from typing import Any

from kprod.errors import KafkaError
from kprod.values import Value


class Health(Value):
    """What a producer is like at a moment. It is true when nothing is wrong: ``if producer.healthy(): ...``.

    Nobody waits for the network for it, and it costs some microseconds.
    """

    reasons: tuple[str, ...]
    """What is wrong, in words; empty: nothing."""
    closed: bool
    """close() was called."""
    fatal_error: KafkaError | None
    """What ended the producer: another one has its ``transactional_id``, a record was lost with
    ``gapless`` ...
    """
    connected: bool
    """There is a connection to a broker. Without records there need be none: see
    ``connections_max_idle_ms``.
    """
    oldest_record_age: float
    """Seconds since the oldest batch that is not acknowledged was opened; 0.0: there is none."""
    unacknowledged_batches: int
    """Batches that wait, are under way, or will be sent again."""
    buffer_share: float
    """Share of ``buffer_memory`` that is taken, 0.0 to 1.0."""
    waiting_threads: int
    """Threads that wait in send() for memory."""
    brokers_away: tuple[int, ...]
    """Ids of brokers that lead partitions with records to send, and are not connected or take nothing."""

    def __bool__(self) -> bool:
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for a JSON answer; ``healthy`` is the verdict."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["reasons"] = list(self.reasons)
        values["brokers_away"] = list(self.brokers_away)
        values["fatal_error"] = None if self.fatal_error is None else str(self.fatal_error)
        return {"healthy": bool(self), **values}


def judge(
    *,
    closed: bool,
    forked: bool,
    fatal_error: KafkaError | None,
    connected: bool,
    trouble: str | None,
    oldest_record_age: float,
    unacknowledged_batches: int,
    buffer_share: float,
    waiting_threads: int,
    brokers_away: tuple[int, ...],
    max_record_age: float,
    max_buffer_share: float,
) -> Health:
    """A verdict on figures.

    Args:
        closed, fatal_error, connected, oldest_record_age, unacknowledged_batches, buffer_share,
        waiting_threads,
            brokers_away: those of :class:`Health`.
        forked: this process is a child of the one that the producer was made in.
        trouble: what is known of each broker, if none is connected and the last attempts failed.
        max_record_age: seconds that a record may be under way.
        max_buffer_share: share of ``buffer_memory`` that may be taken.
    """
    reasons = []
    if closed:
        reasons.append("the producer is closed")
    elif forked:
        reasons.append("the producer was made before a fork: make a new one in the child")
    elif fatal_error is not None:
        reasons.append(f"the producer cannot send any more: {fatal_error}")
    else:
        if trouble is not None:
            reasons.append(f"no broker is connected: {trouble}")
        elif brokers_away:
            ids = ", ".join(map(str, brokers_away))
            reasons.append(f"records wait for brokers that are not connected, or take nothing: {ids}")
        if oldest_record_age > max_record_age:
            reasons.append(
                f"the oldest record has been under way for {oldest_record_age:.1f} s, more than "
                f"{max_record_age:g} s"
            )
        if buffer_share > max_buffer_share or waiting_threads:
            reasons.append(
                f"{buffer_share:.0%} of buffer_memory is taken, and {waiting_threads} thread(s) wait for room"
            )
    return Health(
        reasons=tuple(reasons),
        closed=closed,
        fatal_error=fatal_error,
        connected=connected,
        oldest_record_age=oldest_record_age,
        unacknowledged_batches=unacknowledged_batches,
        buffer_share=buffer_share,
        waiting_threads=waiting_threads,
        brokers_away=brokers_away,
    )
