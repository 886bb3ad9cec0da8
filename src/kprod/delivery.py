"""From the error codes of the core to exceptions with words: what failed, where, can a retry help."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from kprod import errors
from kprod.errors import KafkaError, Persisted
from kprod.records import TopicPartition

logger = logging.getLogger("kprod.delivery")

# Errors that no broker sends; the values are those of _core/structs.pxd.
EXPIRED = -1001
CLOSED = -1002
PURGED_QUEUE = -1003
PURGED_IN_FLIGHT = -1004
SIBLING_RECORD = -1005
TOO_MANY_RETRIES = -1006
DISCONNECTED = -1007
BAD_RESPONSE = -1008
FATAL = -1010
REQUEST_TIMED_OUT = -1012
WAIT_TIMED_OUT = -1013
BUFFER_EXHAUSTED = -1014
TRANSACTION_ABORTED = -1015
GAP = -1016
LEADERS_AWAY = -1017
REFUSED = -1018
FRAME_SIZE = -1030
NOT_ASKED = -1031
NOT_ANSWERED = -1032
BAD_OFFSET = -1033

BROKEN_ANSWERS = frozenset({BAD_RESPONSE, FRAME_SIZE, NOT_ASKED, NOT_ANSWERED, BAD_OFFSET})
"""What no Kafka broker sends."""

GATE_NO_TRANSACTION = 1
GATE_CLOSED = 2
GATE_FATAL = 3
GATE_FORKED = 4

# Losses that the application asked for are no news to it.
_ASKED_FOR = frozenset({PURGED_QUEUE, PURGED_IN_FLIGHT, TRANSACTION_ABORTED})
_LOG_INTERVAL_S = 1.0

_LOCAL_NAMES = {
    EXPIRED: "delivery_timeout_ms was over",
    PURGED_QUEUE: "dropped by purge()",
    PURGED_IN_FLIGHT: "dropped by purge()",
    CLOSED: "the producer was closed",
    SIBLING_RECORD: "another record of its batch was refused",
    TRANSACTION_ABORTED: "the transaction was aborted",
    TOO_MANY_RETRIES: "the option retries allowed no more attempts",
    DISCONNECTED: "the connection was lost",
    BAD_RESPONSE: "the broker's answer was malformed",
    FRAME_SIZE: "the broker announced an answer of an impossible length",
    NOT_ASKED: "the broker sent an answer to a request that was not made",
    NOT_ANSWERED: "the broker's answer left the partition out",
    BAD_OFFSET: "the broker's answer had an impossible offset",
    REQUEST_TIMED_OUT: "no answer within request_timeout_ms",
    REFUSED: "the broker refused this client",
}


def reason_text(code: int) -> str:
    """A broker's or the client's error code in words."""
    return _LOCAL_NAMES.get(code) or errors.name_for_code(code)


class DeliveryReporter:
    """Makes the exceptions that delivery futures, callbacks and ``send()`` give to the application.

    Args:
        describe_broker: the text for a node id.
        describe_leader: why a partition's records do not leave, in words; asked for expired records.
        refusal_of: why a partition's leader refused this client, as the error that its set-up ended with.
        fatal: the error that ended the producer, once there is one.
        no_transaction: why a transactional producer takes no records now.
        buffer_memory, max_block_ms, delivery_timeout_ms: the options, for the messages.
    """

    def __init__(
        self,
        describe_broker: Callable[[int], str | None],
        describe_leader: Callable[[str, int], str],
        refusal_of: Callable[[str, int], KafkaError | None],
        fatal: Callable[[], KafkaError | None],
        no_transaction: Callable[[], KafkaError],
        *,
        buffer_memory: int,
        max_block_ms: float,
        delivery_timeout_ms: float,
    ) -> None:
        self._describe_broker = describe_broker
        self._describe_leader = describe_leader
        self._refusal_of = refusal_of
        self._fatal = fatal
        self._no_transaction = no_transaction
        self._buffer_memory = buffer_memory
        self._max_block_ms = max_block_ms
        self._delivery_timeout_ms = delivery_timeout_ms
        self._quiet_until = 0.0
        self._left_out = 0

    topic_partition = staticmethod(TopicPartition)

    def delivery_error(
        self,
        code: int,
        message: str | None,
        topic: str,
        partition: int,
        node_id: int,
        persisted: Persisted,
        attempts: int,
        age_ms: float,
        last_error: int,
        count: int,
    ) -> KafkaError:
        """The exception of one record.

        Args:
            code: a broker's error code or one of this module's.
            message: the broker's own words, if it had any.
            topic, partition, node_id: where.
            persisted: whether the record may have been written.
            attempts: how often its batch was sent.
            age_ms: ms since its batch was opened.
            last_error: the code that ended the last attempt, 0: none did.
            count: records in its batch.
        """
        kind, text = self._explain(code, message, topic, partition, attempts, age_ms, last_error, count)
        return kind(
            text,
            topic=topic,
            partition=partition,
            broker=self._describe_broker(node_id) if node_id >= 0 else None,
            persisted=persisted,
        )

    def _explain(
        self,
        code: int,
        message: str | None,
        topic: str,
        partition: int,
        attempts: int,
        age_ms: float,
        last_error: int,
        count: int,
    ) -> tuple[type[KafkaError], str]:
        if code >= -1:
            kind = errors.for_code(code)
            return kind, message or kind.description or errors.name_for_code(code)
        sent = self._history(topic, partition, attempts, last_error)
        if code == EXPIRED:
            return errors.KafkaTimeoutError, (
                f"{count} record(s) for {topic}-{partition} expired: {age_ms:.0f} ms have passed since their "
                f"batch was opened, delivery_timeout_ms is {self._delivery_timeout_ms:g}; {sent}"
            )
        if code == TOO_MANY_RETRIES:
            last: type[KafkaError] = (
                errors.KafkaConnectionError if last_error < -1 else errors.for_code(last_error)
            )
            return last, f"the option retries allows no more attempts; {sent}"
        if code == CLOSED:
            return (
                errors.ProducerClosedError,
                f"the producer was closed before the record was acknowledged; {sent}",
            )
        if code in (PURGED_QUEUE, PURGED_IN_FLIGHT):
            where = "in the queue" if code == PURGED_QUEUE else "in flight"
            return errors.PurgedError, f"purge() dropped the record while it was {where}"
        if code == TRANSACTION_ABORTED:
            return errors.TransactionAbortedError, "the transaction was aborted before the record was sent"
        if code == SIBLING_RECORD:
            return errors.InvalidDifferentRecordError, (
                "the broker refused the batch because of another record in it; this one can be sent again"
            )
        if code == FATAL:
            cause = self._fatal()
            return (type(cause) if isinstance(cause, errors.BrokerResponseError) else KafkaError), (
                f"the producer cannot send any more: {cause}"
            )
        if code == REFUSED:
            refusal = self._refusal_of(topic, partition)
            if refusal is not None:
                return type(refusal), str(refusal.args[0]) if refusal.args else str(refusal)
        if code == WAIT_TIMED_OUT:
            return errors.KafkaTimeoutError, f"the record is not decided yet; {sent}"
        if code == LEADERS_AWAY:
            return errors.BufferExhaustedError, (
                f"records for leaders that are away hold half of buffer_memory ({self._buffer_memory} "
                f"bytes), and stayed for {age_ms:.0f} ms, max_block_ms is {self._max_block_ms:g}; "
                "the other half is kept for the others; "
                f"{self._describe_leader(topic, partition)}"
            )
        if code == BUFFER_EXHAUSTED:
            return errors.BufferExhaustedError, (
                f"buffer_memory ({self._buffer_memory} bytes) stayed full for {age_ms:.0f} ms, max_block_ms "
                f"is {self._max_block_ms:g}: records come faster than the brokers take them; "
                f"{self._describe_leader(topic, partition)}"
            )
        return errors.KafkaConnectionError, f"{reason_text(code)}; {sent}"

    def _history(self, topic: str, partition: int, attempts: int, last_error: int) -> str:
        if attempts == 0:
            return f"never sent: {self._describe_leader(topic, partition)}"
        times = "once" if attempts == 1 else f"{attempts} times"
        if last_error == 0:
            return f"sent {times}, no answer yet"
        return f"sent {times}, last error: {reason_text(last_error)}"

    def unattended_failure(self, code: int, error: KafkaError, count: int) -> None:
        """Log the failure of a batch with records of ``send_nowait()``; called on the delivery thread.

        Args:
            code: what :meth:`delivery_error` made ``error`` of.
            error: the batch's.
            count: its records.
        """
        if code in _ASKED_FOR:
            return
        now = time.monotonic()
        if now < self._quiet_until:
            self._left_out += count
            return
        self._quiet_until = now + _LOG_INTERVAL_S
        self._log_left_out()
        logger.error("a batch of %d record(s) sent with send_nowait() failed: %s", count, error)

    def delivery_ended(self) -> None:
        """The delivery thread ends: log what was kept back."""
        self._log_left_out()

    def _log_left_out(self) -> None:
        if self._left_out:
            logger.error("%d more records sent with send_nowait() failed", self._left_out)
            self._left_out = 0

    def gate_error(self, reason: int) -> KafkaError:
        """Why ``send()`` is refused."""
        if reason == GATE_NO_TRANSACTION:
            return self._no_transaction()
        if reason == GATE_FORKED:
            return errors.ForkedProcessError(
                "this KafkaProducer was made before a fork; its threads and connections stayed in the parent "
                "process: make a new KafkaProducer in the child"
            )
        if reason == GATE_FATAL:
            cause = self._fatal()
            # An `except ProducerFencedError` covers send() as well.
            kind = type(cause) if isinstance(cause, errors.BrokerResponseError) else KafkaError
            error = kind(f"the producer cannot send any more, close it: {cause}")
            error.__cause__ = cause
            return error
        return errors.ProducerClosedError("the KafkaProducer is closed")
