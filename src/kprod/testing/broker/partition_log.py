"""The log of one partition, with the producer state that makes writes idempotent and transactional.

What is checked, in which order, and which error is answered follows Kafka's ``UnifiedLog``,
``LogValidator`` and ``ProducerAppendInfo`` (release 4.1). The work is per batch; records are decoded only
for `strict` checks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kprod.testing.broker.record_batch import (
    CODECS,
    BatchHeader,
    InvalidBatch,
    checksum,
    control_batch,
    read_header,
    read_records,
    with_log_append_time,
    with_offset,
)

DUPLICATE_WINDOW: Final = 5
"""Batches of a producer that are remembered, so that a repeated one is recognised (Kafka's number)."""

CORRUPT_MESSAGE: Final = 2
MESSAGE_TOO_LARGE: Final = 10
INVALID_TIMESTAMP: Final = 32
OUT_OF_ORDER_SEQUENCE_NUMBER: Final = 45
INVALID_PRODUCER_EPOCH: Final = 47
INVALID_TXN_STATE: Final = 48
UNKNOWN_PRODUCER_ID: Final = 59
UNSUPPORTED_COMPRESSION_TYPE: Final = 76
INVALID_RECORD: Final = 87

READ_COMMITTED: Final = 1


class AppendError(Exception):
    """A batch that a broker refuses.

    Args:
        code: Kafka's error code.
        message: what is wrong.
        record_errors: (index, message) of single records, as in produce responses from version 8 (KIP-467).
    """

    def __init__(self, code: int, message: str, record_errors: Sequence[tuple[int, str | None]] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.record_errors = list(record_errors)


class StoredBatch(NamedTuple):
    """A batch in the log."""

    header: BatchHeader
    data: bytes

    @property
    def last_offset(self) -> int:
        """Offset of its last record."""
        return self.header.base_offset + self.header.last_offset_delta


class Appended(NamedTuple):
    """Where a batch went; `log_append_time` is -1 unless the broker sets the time stamps."""

    base_offset: int
    log_append_time: int
    duplicate: bool


class AbortedTransaction(NamedTuple):
    """An aborted transaction, as consumers are told of it; `last_offset` is that of the marker."""

    producer_id: int
    first_offset: int
    last_offset: int


@dataclass
class TopicConfig:
    """The topic settings that have an effect here; names and defaults as in Kafka 4.1."""

    max_message_bytes: int = 1_048_588
    log_append_time: bool = False
    timestamp_before_max_ms: int = (1 << 63) - 1
    timestamp_after_max_ms: int = 3_600_000
    compacted: bool = False
    min_insync_replicas: int = 1
    all: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, config: Mapping[str, object]) -> TopicConfig:
        """Read settings by their Kafka names; those without an effect here are kept in `all`.

        Raises:
            ValueError: a value is not one that Kafka takes.
        """
        result = cls(all={name: str(value) for name, value in config.items()})
        for name, value in result.all.items():
            try:
                if name == "max.message.bytes":
                    result.max_message_bytes = int(value)
                elif name == "message.timestamp.type":
                    if value not in ("CreateTime", "LogAppendTime"):
                        raise ValueError(value)
                    result.log_append_time = value == "LogAppendTime"
                elif name == "message.timestamp.before.max.ms":
                    result.timestamp_before_max_ms = int(value)
                elif name == "message.timestamp.after.max.ms":
                    result.timestamp_after_max_ms = int(value)
                elif name == "cleanup.policy":
                    policies = set(value.split(","))
                    if not policies <= {"compact", "delete"}:
                        raise ValueError(value)
                    result.compacted = "compact" in policies
                elif name == "min.insync.replicas":
                    result.min_insync_replicas = int(value)
            except ValueError:
                raise ValueError(f"topic setting {name}={value!r} is not valid") from None
        return result


@dataclass
class _ProducerState:
    epoch: int
    batches: deque[tuple[int, int, int, int]] = field(default_factory=lambda: deque(maxlen=DUPLICATE_WINDOW))
    """(first sequence, last sequence, base offset, log append time) of the last batches in this epoch."""
    transaction_start: int | None = None


class PartitionLog:
    """Batches of one partition.

    Args:
        config: the topic's settings.
        strict: decode and check every record of every batch.
        rejects_unknown_producers: a first sequence other than 0 of an unknown producer gets
            UNKNOWN_PRODUCER_ID, as brokers before 2.5 answer (KIP-360).
    """

    def __init__(
        self, config: TopicConfig, *, strict: bool = True, rejects_unknown_producers: bool = False
    ) -> None:
        self.config = config
        self.strict = strict
        self.rejects_unknown_producers = rejects_unknown_producers
        self.clear()

    def clear(self) -> None:
        """Empty the log: offsets begin at 0 again and producers are forgotten."""
        self.batches: list[StoredBatch] = []
        self.next_offset = 0
        self.record_count = 0
        self.aborted: list[AbortedTransaction] = []
        self._base_offsets: list[int] = []
        self._producers: dict[int, _ProducerState] = {}

    @property
    def last_stable_offset(self) -> int:
        """First offset of the oldest open transaction, the end of the log when none is open."""
        return min(
            (s.transaction_start for s in self._producers.values() if s.transaction_start is not None),
            default=self.next_offset,
        )

    def has_open_transaction(self, producer_id: int) -> bool:
        """Whether the producer has written in a transaction that has not ended."""
        state = self._producers.get(producer_id)
        return state is not None and state.transaction_start is not None

    def append(self, data: bytes, leader_epoch: int, now_ms: int) -> Appended:
        """Check a batch as a broker does and append it.

        Args:
            data: exactly one record batch.
            leader_epoch: epoch of the leader, to be stored with it.
            now_ms: the broker's time, ms since 1970.

        Raises:
            AppendError: the broker's answer to a batch like this one.
        """
        header = self._check_batch(data)
        if header.producer_id >= 0:
            duplicate = self._check_producer(header)
            if duplicate is not None:
                return duplicate
        timestamps_checked_by_record = self.strict and not self.config.log_append_time
        if self.strict or self.config.compacted:
            self._check_records(data, header, now_ms if timestamps_checked_by_record else None)
        elif not self.config.log_append_time:
            self._check_timestamp(header.max_timestamp, now_ms, -1)

        log_append_time = -1
        base_offset = self.next_offset
        stored = with_offset(data, base_offset, leader_epoch)
        if self.config.log_append_time:
            log_append_time = now_ms
            stored = with_log_append_time(stored, now_ms)
        self._store(stored)
        self.record_count += header.record_count
        if header.producer_id >= 0:
            self._remember(header, base_offset, log_append_time)
        return Appended(base_offset, log_append_time, False)

    def _store(self, data: bytes) -> None:
        header = read_header(data)
        self.batches.append(StoredBatch(header, data))
        self._base_offsets.append(header.base_offset)
        self.next_offset = header.base_offset + header.last_offset_delta + 1

    def _check_batch(self, data: bytes) -> BatchHeader:
        try:
            header = read_header(data)
        except InvalidBatch as exc:
            raise AppendError(CORRUPT_MESSAGE, str(exc)) from None
        if header.magic != 2:
            raise AppendError(INVALID_RECORD, f"record batches of version 2 are needed, not {header.magic}")
        if header.size != len(data):
            raise AppendError(INVALID_RECORD, "more than one record batch for a partition")
        if header.size > self.config.max_message_bytes:
            raise AppendError(
                MESSAGE_TOO_LARGE,
                f"the batch has {header.size} bytes, max.message.bytes is {self.config.max_message_bytes}",
            )
        expected = checksum(data)
        if header.crc != expected:
            raise AppendError(
                CORRUPT_MESSAGE, f"the batch has CRC {header.crc:#010x}, its content {expected:#010x}"
            )
        if header.codec >= len(CODECS):
            raise AppendError(UNSUPPORTED_COMPRESSION_TYPE, f"unknown compression codec {header.codec}")
        if header.record_count <= 0:
            raise AppendError(INVALID_RECORD, f"the batch says it has {header.record_count} records")
        if header.last_offset_delta != header.record_count - 1:
            raise AppendError(
                INVALID_RECORD,
                f"last offset delta {header.last_offset_delta} of a batch of {header.record_count} records",
            )
        if header.is_control:
            raise AppendError(INVALID_RECORD, "clients must not write control batches")
        if header.producer_id >= 0 and header.base_sequence < 0:
            raise AppendError(
                INVALID_RECORD, f"base sequence {header.base_sequence} with producer id {header.producer_id}"
            )
        if header.is_transactional and header.producer_id < 0:
            raise AppendError(INVALID_RECORD, "a transactional batch without a producer id")
        return header

    def _check_producer(self, header: BatchHeader) -> Appended | None:
        """Check epoch and sequence; a duplicate gives the answer that the original got."""
        state = self._producers.get(header.producer_id)
        if state is None:
            if self.rejects_unknown_producers and header.base_sequence != 0:
                raise AppendError(
                    UNKNOWN_PRODUCER_ID,
                    f"first sequence {header.base_sequence} of the unknown producer {header.producer_id}",
                )
            return None
        who = f"producer {header.producer_id}"
        if header.producer_epoch < state.epoch:
            raise AppendError(
                INVALID_PRODUCER_EPOCH, f"epoch {header.producer_epoch} of {who}, {state.epoch} was seen"
            )
        if header.producer_epoch > state.epoch:
            if header.base_sequence != 0:
                raise AppendError(
                    OUT_OF_ORDER_SEQUENCE_NUMBER,
                    f"first sequence {header.base_sequence} of {who} in new epoch {header.producer_epoch}",
                )
        else:
            for first, last, base_offset, log_append_time in state.batches:
                if first == header.base_sequence and last == header.last_sequence:
                    return Appended(base_offset, log_append_time, True)
            last_sequence = state.batches[-1][1] if state.batches else -1
            if header.base_sequence != (last_sequence + 1) & 0x7FFFFFFF:
                raise AppendError(
                    OUT_OF_ORDER_SEQUENCE_NUMBER,
                    f"sequence {header.base_sequence} of {who} after {last_sequence}",
                )
        if state.transaction_start is not None and not header.is_transactional:
            raise AppendError(INVALID_TXN_STATE, f"non-transactional batch in a transaction of {who}")
        return None

    def _remember(self, header: BatchHeader, base_offset: int, log_append_time: int) -> None:
        state = self._producers.get(header.producer_id)
        if state is None:
            state = self._producers[header.producer_id] = _ProducerState(header.producer_epoch)
        elif state.epoch != header.producer_epoch:
            state.epoch = header.producer_epoch
            state.batches.clear()
        state.batches.append((header.base_sequence, header.last_sequence, base_offset, log_append_time))
        if header.is_transactional and state.transaction_start is None:
            state.transaction_start = base_offset

    def _check_records(self, data: bytes, header: BatchHeader, now_ms: int | None) -> None:
        try:
            records = read_records(data, header)
        except InvalidBatch as exc:
            errors = [(exc.index, str(exc))] if exc.index >= 0 else []
            raise AppendError(INVALID_RECORD, str(exc), errors) from None
        if self.config.compacted:
            keyless = [(index, None) for index, record in enumerate(records) if record.key is None]
            if keyless:
                raise AppendError(
                    INVALID_RECORD,
                    "One or more records have been rejected: a compacted topic needs keys",
                    keyless,
                )
        if now_ms is not None:
            base = header.base_timestamp
            deltas = [record.timestamp_delta for record in records]
            # Two comparisons decide for nearly all batches; only a bad one is searched for the record.
            for delta in (max(deltas), min(deltas)):
                self._check_timestamp(base + delta, now_ms, deltas.index(delta))

    def _check_timestamp(self, timestamp: int, now_ms: int, index: int) -> None:
        config = self.config
        if (
            timestamp - now_ms > config.timestamp_after_max_ms
            or now_ms - timestamp > config.timestamp_before_max_ms
        ):
            message = f"timestamp {timestamp} of the record is out of range; the broker's time is {now_ms}"
            raise AppendError(INVALID_TIMESTAMP, message, [(index, message)] if index >= 0 else [])

    def end_transaction(
        self, producer_id: int, producer_epoch: int, commit: bool, leader_epoch: int, now_ms: int
    ) -> None:
        """Write a commit or abort marker and close the producer's transaction in this partition."""
        offset = self.next_offset
        self._store(control_batch(offset, leader_epoch, now_ms, producer_id, producer_epoch, commit))
        state = self._producers.get(producer_id)
        if state is None:
            self._producers[producer_id] = _ProducerState(producer_epoch)
            return
        if state.transaction_start is not None and not commit:
            self.aborted.append(AbortedTransaction(producer_id, state.transaction_start, offset))
        state.transaction_start = None
        if producer_epoch > state.epoch:
            state.epoch = producer_epoch
            state.batches.clear()

    def read(self, offset: int, max_bytes: int, isolation_level: int) -> tuple[list[bytes], int]:
        """Batches from the one with `offset` on, and their size.

        Args:
            offset: where to begin, at most the end of the log.
            max_bytes: stop before this many bytes are exceeded, but not before the first batch (KIP-74).
            isolation_level: :data:`READ_COMMITTED` ends at the last stable offset.
        """
        chunks: list[bytes] = []
        size = 0
        for batch in self._batches_from(offset, isolation_level):
            if chunks and size + len(batch.data) > max_bytes:
                break
            chunks.append(batch.data)
            size += len(batch.data)
        return chunks, size

    def readable_bytes(self, offset: int, isolation_level: int, enough: int) -> int:
        """How many bytes a read at `offset` could give; stops counting at `enough`."""
        size = 0
        for batch in self._batches_from(offset, isolation_level):
            size += len(batch.data)
            if size >= enough:
                break
        return size

    def _batches_from(self, offset: int, isolation_level: int) -> Iterator[StoredBatch]:
        """The batch that holds `offset` and those after it, as far as they may be read."""
        limit = self.last_stable_offset if isolation_level == READ_COMMITTED else self.next_offset
        if offset >= limit:
            return
        for index in range(max(bisect_right(self._base_offsets, offset) - 1, 0), len(self.batches)):
            batch = self.batches[index]
            if batch.header.base_offset >= limit:
                return
            yield batch

    def aborted_between(self, first: int, last: int) -> list[AbortedTransaction]:
        """Aborted transactions that overlap the offsets `first` to `last`."""
        return [a for a in self.aborted if a.last_offset >= first and a.first_offset <= last]

    def offset_for_timestamp(self, timestamp: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record that is not older than `timestamp`, if there is one."""
        for batch in self.batches:
            header = batch.header
            if header.max_timestamp < timestamp or header.is_control:
                continue
            if header.has_log_append_time:
                return header.base_offset, header.max_timestamp
            for index, record in enumerate(read_records(batch.data, header)):
                at = header.base_timestamp + record.timestamp_delta
                if at >= timestamp:
                    return header.base_offset + index, at
        return None

    def max_timestamp(self) -> tuple[int, int]:
        """(offset, timestamp) of the latest record by time stamp; (-1, -1) for an empty log (KIP-734)."""
        latest = max((b.header.max_timestamp for b in self.batches if not b.header.is_control), default=-1)
        found = self.offset_for_timestamp(latest) if latest >= 0 else None
        return found if found is not None else (-1, -1)
