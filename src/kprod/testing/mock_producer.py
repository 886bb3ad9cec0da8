"""MockProducer: a KafkaProducer without brokers or network, for unit tests (after Java's MockProducer)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kprod import errors
from kprod._core.arrow import ArrowTable
from kprod._core.bulk import as_sequence, read_column, read_integers, split_headers
from kprod._core.column import check_length
from kprod._core.future import PlainRecordMetadata
from kprod._core.headers import encode as encode_headers
from kprod._core.murmur2 import partition_for_key
from kprod.config import DEFAULT_CONFIG, ProducerConfig
from kprod.errors import KafkaError
from kprod.health import Health, judge
from kprod.partitioner import resolve_partitioner
from kprod.records import Headers, TopicPartition, check_topic_name
from kprod.serializers import as_callable
from kprod.testing.mock_bulk import MockBulkDeliveryFuture
from kprod.testing.mock_transactions import MockTransactions
from kprod.transactions.prepared import PreparedTxnState, prepared_state

if TYPE_CHECKING:
    from typing_extensions import Self

    from kprod.records import ArrowArray, BulkHeaders, Column, Integers

_log = logging.getLogger("kprod.testing")

Callback = Callable[..., object]

RECORD_OVERHEAD = 61 + 21
"""Bytes that a batch header and a record's own fields take at most, as Java's producer estimates."""


class MockRecordMetadata(PlainRecordMetadata):
    """Delivery report of a :class:`MockProducer`; has what :class:`kprod.RecordMetadata` has."""

    latency_ms: float = 0.0
    """ms from ``send()`` to the outcome."""
    attempts: int = 1
    """How often the record was sent."""
    persisted: str = "yes"
    """Whether the record was written."""
    timestamp_type: int = 0
    """0: CreateTime."""
    headers: Headers | None = None
    """The headers, with the option ``delivery_report_headers``."""


class MockProducerRecord(NamedTuple):
    """A record that was given to :meth:`MockProducer.send`.

    Attributes:
        topic: its topic.
        value: as it was given.
        key: as it was given.
        headers: as pairs.
        partition: the one that was given or chosen.
        timestamp_ms: the one that was given, else the time of ``send()``.
        serialized_key: after ``key_serializer``.
        serialized_value: after ``value_serializer``.
    """

    topic: str
    value: Any
    key: Any
    headers: list[tuple[str, bytes | None]]
    partition: int
    timestamp_ms: int
    serialized_key: bytes | None
    serialized_value: bytes | None


class MockDeliveryFuture:
    """The future of a record of a :class:`MockProducer`, like :class:`kprod.DeliveryFuture`."""

    def __init__(self, where: TopicPartition) -> None:
        self._where = where
        self._decided = threading.Condition()
        self._metadata: MockRecordMetadata | None = None
        self._error: KafkaError | None = None
        self._callbacks: list[Callable[[MockDeliveryFuture], object]] = []

    def _decide(self, metadata: MockRecordMetadata | None, error: KafkaError | None) -> None:
        with self._decided:
            self._metadata = metadata
            self._error = error
            callbacks, self._callbacks = self._callbacks, []
            self._decided.notify_all()
        for callback in callbacks:
            _run(callback, self)

    def get(self, timeout: float | None = None) -> MockRecordMetadata:
        """Wait for the outcome.

        Args:
            timeout: seconds; ``None`` waits for ever, so complete the record first, or in another thread.

        Raises:
            KafkaTimeoutError: not decided within `timeout`.
            KafkaError: the error of the record.
        """
        with self._decided:
            if not self._decided.wait_for(self.done, timeout):
                raise errors.KafkaTimeoutError(
                    f"the record is not decided after {timeout} s; complete_next() or error_next() decide it",
                    topic=self._where.topic,
                    partition=self._where.partition,
                )
        if self._error is not None:
            raise self._error
        assert self._metadata is not None
        return self._metadata

    result = get

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._metadata is not None or self._error is not None

    @property
    def is_done(self) -> bool:
        """Whether the outcome is known."""
        return self.done()

    @property
    def partition(self) -> int:
        """The partition that the record is for."""
        return self._where.partition

    def succeeded(self) -> bool:
        """Whether the record was completed."""
        return self._metadata is not None

    def failed(self) -> bool:
        """Whether the record failed."""
        return self._error is not None

    @property
    def value(self) -> MockRecordMetadata | None:
        """The metadata of a completed record, else ``None``."""
        return self._metadata

    @property
    def exception(self) -> KafkaError | None:
        """The error of a failed record, else ``None``."""
        return self._error

    def retriable(self) -> bool:
        """Whether the record failed with an error that sending it again may overcome."""
        return self._error is not None and self._error.retriable

    def cancel(self) -> Literal[False]:
        """``False``: a record that was accepted cannot be called back."""
        return False

    def cancelled(self) -> Literal[False]:
        """``False``, always."""
        return False

    def _add(self, callback: Callable[[MockDeliveryFuture], object], given: object) -> None:
        if not callable(given):
            raise TypeError(f"a callback must be callable, got {type(given).__name__}: {given!r}")
        with self._decided:
            if not self.done():
                self._callbacks.append(callback)
                return
        _run(callback, self)

    def add_callback(self, callback: Callback, *args: object, **kwargs: object) -> MockDeliveryFuture:
        """Call ``callback(*args, metadata, **kwargs)`` when the record is completed. Errors are logged."""
        self._add(lambda f: callback(*args, f.value, **kwargs) if f.succeeded() else None, callback)
        return self

    def add_errback(self, callback: Callback, *args: object, **kwargs: object) -> MockDeliveryFuture:
        """Call ``callback(*args, exception, **kwargs)`` when the record fails. One that raises is logged."""
        self._add(lambda f: callback(*args, f.exception, **kwargs) if f.failed() else None, callback)
        return self

    def add_both(self, callback: Callback, *args: object, **kwargs: object) -> MockDeliveryFuture:
        """Call ``callback(*args, metadata_or_exception, **kwargs)`` either way. One that raises is logged."""
        self._add(lambda f: callback(*args, f.value if f.succeeded() else f.exception, **kwargs), callback)
        return self

    def add_done_callback(self, callback: Callable[[MockDeliveryFuture], object]) -> None:
        """Call ``callback(future)`` when the outcome is known."""
        self._add(callback, callback)

    def __await__(self) -> Generator[Any, None, MockRecordMetadata]:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[MockRecordMetadata] = loop.create_future()

        def settle() -> None:
            if waiter.done():
                return
            if self._error is not None:
                waiter.set_exception(self._error)
            else:
                assert self._metadata is not None
                waiter.set_result(self._metadata)

        self.add_done_callback(lambda _: loop.call_soon_threadsafe(settle))
        return waiter.__await__()

    def __repr__(self) -> str:
        state = "pending"
        if self._error is not None:
            state = f"failed: {self._error}"
        elif self._metadata is not None:
            state = f"offset={self._metadata.offset}"
        return f"<MockDeliveryFuture {self._where.topic}-{self._where.partition} {state}>"


class _Pending(NamedTuple):
    record: MockProducerRecord
    future: MockDeliveryFuture
    on_delivery: Callback | None
    started: float


class MockProducer:
    """Stands in for :class:`kprod.KafkaProducer` in unit tests: same methods, no brokers.

    Records are checked, serialized and partitioned as by the real one, and kept for :meth:`history`. With
    `auto_complete` each is delivered at once; without, when the test says so with :meth:`complete_next` or
    :meth:`error_next`. Callbacks run in the thread that decides the record. Records without a key go to
    partition 0 unless a partitioner says otherwise.

    >>> producer = MockProducer(value_serializer=str.encode)
    >>> producer.send("events", "hello").get().offset
    0
    >>> [record.value for record in producer.history()]
    ['hello']

    Args:
        options: as for :class:`kprod.KafkaProducer`; checked by the same rules.
        auto_complete: deliver every record at once.
        partitions: number of partitions of every topic; or by topic, and then there are no other topics.
        **kwargs: options as for :class:`kprod.KafkaProducer`.

    Raises:
        KafkaConfigurationError: an option is not valid.
    """

    DEFAULT_CONFIG = DEFAULT_CONFIG
    """As KafkaProducer.DEFAULT_CONFIG."""

    def __init__(
        self,
        options: Mapping[str, object] | None = None,
        /,
        *,
        auto_complete: bool = True,
        partitions: int | Mapping[str, int] = 1,
        **kwargs: object,
    ) -> None:
        config = ProducerConfig.from_options(options, kwargs)
        try:
            self._partitioner = resolve_partitioner(config.partitioner)
            self._serialize_key = as_callable(config.key_serializer, "key")
            self._serialize_value = as_callable(config.value_serializer, "value")
        except (TypeError, ValueError) as error:
            raise errors.KafkaConfigurationError(str(error)) from error
        self.config: dict[str, Any] = config.as_dict()
        self.auto_complete = auto_complete
        self.send_error: Exception | None = None
        """Raised by every ``send()`` while it is set."""
        self.flush_error: Exception | None = None
        """Raised by every ``flush()`` while it is set."""
        self.close_error: Exception | None = None
        """Raised by ``close()`` while it is set."""
        self._on_delivery = config.on_delivery
        self._report_headers = config.delivery_report_headers
        self._max_request_size = config.max_request_size
        self._partition_counts = partitions
        self._lock = threading.RLock()
        self._transactional = config.transactional_id is not None
        self._transactions = MockTransactions(
            config.transactional_id, config.transaction_two_phase_commit_enable
        )
        self._visible: list[bool] = []
        self._began_at = 0
        self._history: list[MockProducerRecord] = []
        self._pending: deque[_Pending] = deque()
        self._next_offsets: dict[TopicPartition, int] = {}
        self._closed = False
        self._client_instance_id = uuid.uuid4()
        self._totals = {"record-send-total": 0.0, "record-error-total": 0.0}

    # --- for tests ----------------------------------------------------------------------------------------

    def history(self) -> list[MockProducerRecord]:
        """All records that were accepted, in the order of ``send()``, whatever became of them."""
        with self._lock:
            return list(self._history)

    def committed(self) -> list[MockProducerRecord]:
        """The records of committed transactions, which is what a reader of committed records sees."""
        with self._lock:
            return [record for record, visible in zip(self._history, self._visible, strict=True) if visible]

    def fence(self) -> None:
        """Let everything that follows fail as if another producer had taken over the transactional id."""
        self._transactions.fence()

    @property
    def commit_count(self) -> int:
        """Transactions that were committed."""
        return self._transactions.commits

    @property
    def committed_offsets(self) -> dict[str, dict[tuple[str, int], int]]:
        """Offsets of committed transactions by group id and (topic, partition)."""
        return self._transactions.committed_offsets

    def clear(self) -> None:
        """Forget history, offsets and undecided records; their futures stay undecided."""
        with self._lock:
            self._history.clear()
            self._visible.clear()
            self._began_at = 0
            self._pending.clear()
            self._next_offsets.clear()

    @property
    def pending_count(self) -> int:
        """Records that are not decided."""
        return len(self._pending)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def complete_next(self) -> bool:
        """Deliver the oldest undecided record; ``False`` when there is none."""
        return self._decide_next(None)

    def error_next(self, error: Exception) -> bool:
        """Fail the oldest undecided record; ``False`` when there is none.

        Args:
            error: what its future raises; an error that is no KafkaError is wrapped in one.
        """
        if not isinstance(error, KafkaError):
            wrapped = KafkaError(str(error))
            wrapped.__cause__ = error
            error = wrapped
        return self._decide_next(error)

    def _decide_next(self, error: KafkaError | None) -> bool:
        with self._lock:
            if not self._pending:
                return False
            pending = self._pending.popleft()
            record = pending.record
            where = TopicPartition(record.topic, record.partition)
            offset = -1
            if error is None:
                offset = self._next_offsets.get(where, 0)
                self._next_offsets[where] = offset + 1
            self._totals["record-send-total" if error is None else "record-error-total"] += 1
        metadata = MockRecordMetadata(
            record.topic,
            record.partition,
            where,
            offset,
            record.timestamp_ms,
            None,
            -1 if record.serialized_key is None else len(record.serialized_key),
            -1 if record.serialized_value is None else len(record.serialized_value),
            sum(len(k.encode()) + len(v or b"") for k, v in record.headers) if record.headers else -1,
        )
        metadata.latency_ms = (time.monotonic() - pending.started) * 1000
        metadata.headers = record.headers if self._report_headers else None
        if error is not None:
            metadata.persisted = "no"
        if pending.on_delivery is not None:
            _run(pending.on_delivery, error, metadata)
        pending.future._decide(metadata if error is None else None, error)
        return True

    # --- as KafkaProducer ---------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        on_delivery: Callback | None = None,
    ) -> MockDeliveryFuture:
        """Take one record; see :meth:`kprod.KafkaProducer.send` for arguments and errors."""
        self._begin(topic, on_delivery)
        return self._take([self._prepare(topic, value, key, headers, partition, timestamp_ms)], on_delivery)[
            0
        ]

    def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        keys: Iterable[Any] | None = None,
        headers: BulkHeaders | None = None,
        timestamps: Integers | None = None,
        partitions: Integers | None = None,
        on_delivery: Callback | None = None,
    ) -> MockBulkDeliveryFuture:
        """Take many records; see :meth:`kprod.KafkaProducer.send_many` for arguments and errors."""
        self._begin(topic, on_delivery)
        given = as_sequence("values", values)
        key_list = None if keys is None else as_sequence("keys", keys)
        return self._take_many(topic, given, key_list, headers, timestamps, partitions, on_delivery)

    def send_columns(
        self,
        topic: str,
        values: Column,
        keys: Column | None = None,
        headers: BulkHeaders | None = None,
        timestamps: Integers | None = None,
        partitions: Integers | None = None,
        on_delivery: Callback | None = None,
    ) -> MockBulkDeliveryFuture:
        """Take many records; see :meth:`kprod.KafkaProducer.send_columns` for arguments and errors."""
        self._begin(topic, on_delivery)
        given = read_column("values", values)
        key_list = None if keys is None else read_column("keys", keys)
        return self._take_many(
            topic, given, key_list, headers, timestamps, partitions, on_delivery, serialize=False
        )

    def send_table(
        self,
        topic: str,
        table: ArrowArray,
        values: str,
        keys: str | None = None,
        headers: BulkHeaders | None = None,
        timestamps: str | Integers | None = None,
        partitions: str | Integers | None = None,
        on_delivery: Callback | None = None,
    ) -> MockBulkDeliveryFuture:
        """Take the rows of a table; see :meth:`kprod.KafkaProducer.send_table` for arguments and errors."""
        self._begin(topic, on_delivery)
        source = ArrowTable(table)
        given = source.column("values", values).to_list()
        count = len(given)
        key_list = None if keys is None else source.column("keys", keys).to_list()
        times: Any = timestamps
        if isinstance(timestamps, str):
            times = source.integers("timestamps", timestamps, count).to_list(count)
        places: Any = partitions
        if isinstance(partitions, str):
            places = source.integers("partitions", partitions, count).to_list(count)
        return self._take_many(topic, given, key_list, headers, times, places, on_delivery, serialize=False)

    def _take_many(
        self,
        topic: str,
        values: Sequence[Any],
        keys: Sequence[Any] | None,
        headers: BulkHeaders | None,
        timestamps: Integers | None,
        partitions: Integers | None,
        on_delivery: Callback | None,
        serialize: bool = True,
    ) -> MockBulkDeliveryFuture:
        count = len(values)
        if keys is None:
            keys = [None] * count
        check_length("keys", len(keys), count)
        given, by_record = split_headers(headers, count)
        each: Any = given if by_record else [given] * count
        times = read_integers("timestamps", timestamps, count)
        places = read_integers("partitions", partitions, count)
        records = [
            self._prepare(topic, value, key, head, place, when, ahead=i, serialize=serialize)
            for i, (value, key, head, place, when) in enumerate(
                zip(values, keys, each, places, times, strict=True)
            )
        ]
        return MockBulkDeliveryFuture(self._take(records, on_delivery))

    def _begin(self, topic: str, on_delivery: Callback | None) -> None:
        """Refuse what ``send()`` refuses whatever the record is."""
        if self._closed:
            raise errors.ProducerClosedError("the KafkaProducer is closed")
        self._transactions.check_send()
        if self.send_error is not None:
            raise self.send_error
        check_topic_name(topic)
        self._count(topic)
        if on_delivery is not None and not callable(on_delivery):
            raise TypeError(
                f"on_delivery must be callable as f(error, metadata), got {type(on_delivery).__name__}"
            )

    def _prepare(
        self,
        topic: str,
        value: Any,
        key: Any,
        headers: Headers | None,
        partition: int | None,
        timestamp_ms: int | None,
        ahead: int = 0,
        serialize: bool = True,
    ) -> MockProducerRecord:
        """Serialize and check a record. ``ahead`` of it so many others of the same call are taken."""
        count = self._count(topic)
        pairs, headers_size = _header_pairs(headers)
        key_data = self._serialize_key(topic, headers, key) if serialize and self._serialize_key else key
        value_data = value
        if serialize and self._serialize_value:
            value_data = self._serialize_value(topic, headers, value)
        serialized_key, serialized_value = _to_bytes(key_data, "key"), _to_bytes(value_data, "value")
        if timestamp_ms is None:
            timestamp_ms = time.time_ns() // 1_000_000
        elif isinstance(timestamp_ms, bool) or not isinstance(timestamp_ms, int):
            raise TypeError(
                f"timestamp_ms must be int (ms since 1970) or None, got "
                f"{type(timestamp_ms).__name__}: {timestamp_ms!r}"
            )
        elif not 0 <= timestamp_ms < 1 << 63:
            raise ValueError(f"timestamp_ms must be in [0, 2^63 - 1] (ms since 1970), got {timestamp_ms}")
        size = RECORD_OVERHEAD + headers_size
        size += sum(len(data) for data in (serialized_key, serialized_value) if data is not None)
        if size > self._max_request_size:
            raise errors.MessageSizeTooLargeError(
                f"the record takes {size} bytes with its overhead, "
                f"max_request_size is {self._max_request_size}",
                topic=topic,
                persisted="no",
            )
        chosen = partition
        if chosen is None:
            chosen = self._choose(topic, key, value, serialized_key, serialized_value, count, ahead)
        _check_partition(topic, chosen, count)
        return MockProducerRecord(
            topic, value, key, pairs, chosen, timestamp_ms, serialized_key, serialized_value
        )

    def _take(
        self, records: list[MockProducerRecord], on_delivery: Callback | None
    ) -> list[MockDeliveryFuture]:
        futures = []
        for record in records:
            future = MockDeliveryFuture(TopicPartition(record.topic, record.partition))
            futures.append(future)
            with self._lock:
                self._history.append(record)
                self._visible.append(not self._transactional)
                self._pending.append(
                    _Pending(record, future, on_delivery or self._on_delivery, time.monotonic())
                )
            if self.auto_complete:
                self.complete_next()
        return futures

    def send_nowait(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """Take one record whose outcome nobody asks for; see :meth:`kprod.KafkaProducer.send_nowait`."""
        self.send(topic, value, key, headers, partition, timestamp_ms)

    def _count(self, topic: str) -> int:
        if isinstance(self._partition_counts, int):
            return self._partition_counts
        if topic not in self._partition_counts:
            raise errors.KafkaTimeoutError(
                f"topic {topic!r} does not exist in this MockProducer; partitions= has "
                f"{', '.join(sorted(self._partition_counts))}",
                topic=topic,
            )
        return self._partition_counts[topic]

    def _choose(
        self,
        topic: str,
        key: Any,
        value: Any,
        serialized_key: bytes | None,
        serialized_value: bytes | None,
        count: int,
        ahead: int,
    ) -> int:
        native = self._partitioner.native
        if native == "round_robin":
            with self._lock:
                return (ahead + sum(record.topic == topic for record in self._history)) % count
        if native == "default":
            return 0 if serialized_key is None else partition_for_key(serialized_key, count)
        cluster = _Cluster(topic, count)
        chosen = self._partitioner.choose(topic, key, value, serialized_key, serialized_value, cluster)
        return 0 if chosen is None else chosen

    # --- transactions, as KafkaProducer -------------------------------------------------------------------

    def init_transactions(self, timeout: float | None = None, *, keep_prepared_txn: bool = False) -> None:
        """Once, before the rest; ``keep_prepared_txn`` finds what :meth:`prepared_before` has left."""
        self._transactions.init(keep_prepared_txn)

    def prepared_before(self, state: PreparedTxnState | str) -> None:
        """Let init_transactions(keep_prepared_txn=True) find a transaction prepared by a predecessor."""
        self._transactions.kept = prepared_state(state)

    def prepare_transaction(self, timeout: float | None = None) -> PreparedTxnState:
        """Deliver all undecided records; what follows can only end the transaction (KIP-939)."""
        self._transactions.check_prepare()
        self.flush()
        return self._transactions.prepare()

    def complete_transaction(
        self, prepared_state: PreparedTxnState | str, timeout: float | None = None
    ) -> None:
        """Commit the prepared transaction if ``prepared_state`` names it, else abort it."""
        if self._transactions.commits_prepared(prepared_state):
            self.commit_transaction()
        else:
            self.abort_transaction()

    def begin_transaction(self) -> None:
        """What is sent from now on becomes visible by :meth:`commit_transaction`, or not at all."""
        self._transactions.begin()
        self._began_at = len(self._history)

    def send_offsets_to_transaction(
        self, offsets: Any, group_metadata: Any, timeout: float | None = None
    ) -> None:
        """Offsets for :attr:`committed_offsets`."""
        self._transactions.send_offsets(offsets, group_metadata)

    def commit_transaction(self, timeout: float | None = None) -> None:
        """Deliver all undecided records and make those of the transaction visible."""
        self.flush()
        self._transactions.end("commit_transaction()", commit=True)
        with self._lock:
            self._visible[self._began_at :] = [True] * (len(self._visible) - self._began_at)

    def abort_transaction(self, timeout: float | None = None) -> None:
        """Fail all undecided records; none of the transaction becomes visible."""
        self._transactions.end("abort_transaction()", commit=False)
        while self.error_next(errors.TransactionAbortedError("the transaction was aborted")):
            pass

    @contextmanager
    def transaction(self) -> Iterator[Self]:
        """Commits at the end of the block, or aborts when an exception leaves it."""
        self.begin_transaction()
        try:
            yield self
        except BaseException:
            self.abort_transaction()
            raise
        self.commit_transaction()

    def flush(self, timeout: float | None = None) -> None:
        """Deliver all undecided records."""
        if self.flush_error is not None:
            raise self.flush_error
        while self.complete_next():
            pass

    def close(self, timeout: float | None = None) -> None:
        """Deliver all undecided records, then refuse new ones; with timeout 0 undecided records fail."""
        if self._closed:
            return
        if self.close_error is not None:
            raise self.close_error
        self._closed = True
        error = errors.ProducerClosedError("the producer was closed before the record was acknowledged")
        while self._decide_next(error if timeout == 0 else None):
            pass

    def purge(self, in_queue: bool = True, in_flight: bool = True) -> None:
        """Fail all undecided records with PurgedError; they count as queued."""
        while in_queue and self.error_next(
            errors.PurgedError("purge() dropped the record while it was in the queue")
        ):
            pass

    def partitions_for(self, topic: str) -> set[int]:
        """Numbers of a topic's partitions.

        Raises:
            KafkaTimeoutError: the topic does not exist here.
        """
        return set(range(self._count(topic)))

    def bootstrap_connected(self) -> bool:
        """Whether the producer is open."""
        return not self._closed

    def set_sasl_credentials(
        self, username: str | Callable[[], str], password: str | Callable[[], str]
    ) -> None:
        """Accepted and without effect: there is no broker to authenticate with."""

    def metrics(self, raw: bool = False) -> dict[str, dict[str, Any]]:
        """How many records were delivered and how many failed, in the form of the real producer."""
        return {"producer-metrics": dict(self._totals)}

    def client_instance_id(self, timeout: float | None = None) -> uuid.UUID:
        """A random id, always the same one for this producer."""
        return self._client_instance_id

    def healthy(self, max_record_age: float | None = None, max_buffer_share: float = 0.9) -> Health:
        """Whether the producer is open; the rest is as if a broker had taken all records."""
        return judge(
            closed=self._closed,
            forked=False,
            fatal_error=None,
            connected=not self._closed,
            trouble=None,
            oldest_record_age=0.0,
            unacknowledged_batches=len(self._pending),
            buffer_share=0.0,
            waiting_threads=0,
            brokers_away=(),
            max_record_age=0.0 if max_record_age is None else max_record_age,
            max_buffer_share=max_buffer_share,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<MockProducer {len(self._history)} records, {len(self._pending)} undecided, {state}>"


class _Cluster:
    """What a custom partitioner can ask: one topic whose partitions all have a leader."""

    def __init__(self, topic: str, count: int) -> None:
        self._topic = topic
        self._count = count

    def topics(self) -> set[str]:
        return {self._topic}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self._count)) if topic == self._topic else None

    available_partitions_for_topic = partitions_for_topic

    def leader_for_partition(self, partition: TopicPartition) -> int:
        return 1

    def brokers(self) -> set[Any]:
        return set()

    def broker_metadata(self, broker_id: int) -> None:
        return None


def _run(callback: Callback, *args: object) -> None:
    try:
        callback(*args)
    except Exception:
        _log.exception("a delivery callback raised")


def _to_bytes(data: Any, which: str) -> bytes | None:
    if data is None:
        return None
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(
        f"{which} must be bytes, a contiguous bytes-like object or None after serialization, got "
        f"{type(data).__name__}: set {which}_serializer to something that turns it into bytes"
    )


def _header_pairs(headers: Headers | None) -> tuple[list[tuple[str, bytes | None]], int]:
    """Headers as pairs of str and bytes, and their size in a record."""
    if headers is None:
        return [], 0
    items: Any = headers.items() if isinstance(headers, Mapping) else headers
    pairs = list(items)
    # Encoding them is what checks them, with the errors of the real producer.
    size = len(encode_headers(pairs))
    return [(name, None if value is None else bytes(value)) for name, value in pairs], size


def _check_partition(topic: str, partition: Any, count: int) -> None:
    if isinstance(partition, bool) or not isinstance(partition, int):
        raise TypeError(f"partition must be int or None, got {type(partition).__name__}: {partition!r}")
    if partition < 0:
        raise ValueError(f"partition must be >= 0, got {partition}")
    if partition >= count:
        raise ValueError(
            f"partition {partition} of topic {topic!r} does not exist: the topic has {count} partitions "
            f"(0 to {count - 1})"
        )
