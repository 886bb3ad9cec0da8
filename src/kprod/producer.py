"""KafkaProducer: what applications use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kprod import errors
from kprod._core import bulk
from kprod._core.arrow import ArrowTable
from kprod._core.bulk_future import BulkDeliveryFuture
from kprod._core.producer import ProducerCore
from kprod.config import DEFAULT_CONFIG, ProducerConfig
from kprod.partitioner import ResolvedPartitioner, resolve_partitioner
from kprod.serializers import as_callable, as_unary

if TYPE_CHECKING:
    import uuid

    from typing_extensions import Self

    from kprod.engine import Engine
    from kprod.health import Health
    from kprod.interceptors import Interceptors
    from kprod.records import ArrowArray, BulkHeaders, Column, Integers, OnDelivery
    from kprod.transactions.prepared import PreparedTxnState


class KafkaProducer(ProducerCore):
    """Sends records to Apache Kafka, with the guarantees of the Java producer.

    One producer can be shared by any number of threads. ``send()`` puts a record into a batch and returns a
    future; threads of the producer send the batches, retry them in order, and run callbacks. By default it is
    idempotent: every record is written once and in order, whatever the network does.

    >>> producer = KafkaProducer(bootstrap_servers="localhost:9092")    # doctest: +SKIP
    >>> future = producer.send("events", b"value", key=b"key")          # doctest: +SKIP
    >>> future.get(timeout=10).offset                                   # doctest: +SKIP
    0
    >>> producer.close()                                                # doctest: +SKIP

    Args:
        options: a mapping of options with the names of the Java producer (``{"bootstrap.servers": ...}``) or
            with underscores; numbers and booleans may be text there. Or options that were checked before.
        **kwargs: options with underscores. See docs/options.md; the names of kafka-python are the same.

    Raises:
        KafkaConfigurationError: an option is unknown, out of range, or contradicts another.
        NoBrokersAvailable: no bootstrap server could be reached; the message says why for each.
    """

    DEFAULT_CONFIG = DEFAULT_CONFIG
    """Every option's default, by name (tracing tools read it)."""

    _engine_started: Engine | None = None
    _closed = False
    _interceptors_of_option: Interceptors | None = None

    def __init__(
        self, options: Mapping[str, object] | ProducerConfig | None = None, /, **kwargs: object
    ) -> None:
        config = (
            options if isinstance(options, ProducerConfig) else ProducerConfig.from_options(options, kwargs)
        )
        try:
            partitioner = resolve_partitioner(config.partitioner)
            functions: dict[str, Any] = {
                "key_unary": as_unary(config.key_serializer, "key"),
                "value_unary": as_unary(config.value_serializer, "value"),
                "key_full": as_callable(config.key_serializer, "key"),
                "value_full": as_callable(config.value_serializer, "value"),
            }
        except (TypeError, ValueError) as error:
            raise errors.KafkaConfigurationError(str(error)) from error
        self.config: dict[str, Any] = config.as_dict()
        self._options = config
        self._partitioner: ResolvedPartitioner = partitioner
        interceptors = None
        if config.interceptor_classes:
            from kprod.interceptors import make_interceptors

            interceptors = make_interceptors(config.interceptor_classes, self.config)
        self._interceptors_of_option = interceptors
        # Half of what there is to import: a process that makes no producer (it forks workers) does without.
        from kprod.engine import Engine

        engine = Engine(config, keep_headers=interceptors is not None and interceptors.wants_headers)
        self._engine_started = engine
        native = partitioner.native
        self._bind(
            engine,
            engine.accumulator,
            choose=None if native in ("default", "round_robin") else partitioner.choose,
            on_delivery=config.on_delivery,
            max_block_s=config.max_block_ms / 1000,
            max_request_size=config.max_request_size,
            round_robin=native == "round_robin",
            ignore_keys=config.partitioner_ignore_keys,
            interceptors=interceptors,
            **functions,
        )
        # Like kafka-python: who gives api_version does not want to wait for the network.
        if config.bootstrap_timeout_ms > 0 and "api_version" not in config.without_effect:
            try:
                engine.wait_bootstrapped(config.bootstrap_timeout_ms / 1000)
            except BaseException:
                self._closed = True
                engine.close(0)
                raise

    # -- many records at once

    def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        keys: Iterable[Any] | None = None,
        headers: BulkHeaders | None = None,
        timestamps: Integers | None = None,
        partitions: Integers | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> BulkDeliveryFuture:
        """Send many records; the same as one ``send()`` for each, at a fraction of its cost.

        Every argument is checked before the first record is appended: what is wrong with one of them, or
        what a serializer or partitioner raises, leaves nothing half-sent. Records of a partition are
        appended in their order. See docs/bulk.md.

        Args:
            topic: the topic of all records.
            values: for each record what ``value_serializer`` takes; without one bytes, a bytes-like object,
                or None (a tombstone).
            keys: as many of the same for ``key_serializer``; None: no record has a key.
            headers: a list of (str, bytes | None) pairs, or a mapping, for all records; or a sequence with
                one such, or None, for each.
            timestamps: ms since 1970: an int for all records, or an int or None for each (a sequence, a
                buffer of integers, an Arrow array); None takes the present.
            partitions: the same; None lets the partitioner choose.
            on_delivery: ``f(error, metadata)``, called for each record on the delivery thread, as in
                ``send()``.

        Returns:
            The future of all records.

        Raises:
            TypeError, ValueError: an argument has the wrong type or length, or an item is wrong; the message
                names it, such as ``values[3]``. Nothing was sent.
            MessageSizeTooLargeError: a record, which the message names, is larger than ``max_request_size``.
                Nothing was sent.
            BufferExhaustedError: ``buffer_memory`` stayed full for ``max_block_ms`` before the next record
                could be appended. Like every KafkaError that comes after the first record, it has
                ``appended``, the number of records that were, and ``future``, theirs.
            KafkaTimeoutError, ProducerClosedError, ForkedProcessError, KafkaError: as ``send()``.
        """
        if self._interceptors_of_option is not None:
            return self._interceptors_of_option.send_many(
                self, topic, values, keys, headers, timestamps, partitions, on_delivery
            )
        return bulk.send_many(self, topic, values, keys, headers, timestamps, partitions, on_delivery)

    def send_columns(
        self,
        topic: str,
        values: Column,
        keys: Column | None = None,
        headers: BulkHeaders | None = None,
        timestamps: Integers | None = None,
        partitions: Integers | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> BulkDeliveryFuture:
        """Send many records from Arrow arrays or buffers, without a Python object for each and without the
        GIL.

        Otherwise like ``send_many()``. Serializers are not applied: columns hold bytes. (A partitioner of
        your own is, and costs what it costs.)

        Args:
            topic: the topic of all records.
            values: an Arrow array, chunked array, or series (an object with ``__arrow_c_array__()`` or
                ``__arrow_c_stream__()``: pyarrow, polars, pandas, ...) of binary or string values, large
                ones, views, or fixed-size binary; nulls are tombstones. Or two buffers ``(data, offsets)``:
                value ``i`` is ``data[offsets[i]:offsets[i + 1]]``, offsets being int32 or int64, one more
                than there are values.
            keys: as many in the same forms; a null is no key.
            headers: as in ``send_many()``.
            timestamps: as in ``send_many()``; an Arrow array may be of int64 (ms since 1970) or of
                timestamps in s, ms, us or ns, which are rounded down to ms.
            partitions: as in ``send_many()``; nulls let the partitioner choose.
            on_delivery: as in ``send_many()``.

        Returns:
            The future of all records.

        Raises:
            TypeError, ValueError: an argument has the wrong type or length, an array contradicts its format,
                or offsets lead out of their data. Nothing was sent.
            KafkaError: as ``send_many()``.
        """
        if self._interceptors_of_option is not None:
            # They want Python objects.
            value_list = bulk.read_column("values", values)
            key_list = None if keys is None else bulk.read_column("keys", keys)
            return self._interceptors_of_option.send_many(
                self,
                topic,
                value_list,
                key_list,
                headers,
                timestamps,
                partitions,
                on_delivery,
                serialize=False,
            )
        return bulk.send_columns(self, topic, values, keys, headers, timestamps, partitions, on_delivery)

    def send_table(
        self,
        topic: str,
        table: ArrowArray,
        values: str,
        keys: str | None = None,
        headers: BulkHeaders | None = None,
        timestamps: str | Integers | None = None,
        partitions: str | Integers | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> BulkDeliveryFuture:
        """Send the rows of an Arrow table, record batch, data frame, or relation: ``send_columns()`` by
        column name.

        Args:
            topic: the topic of all records.
            table: an object with ``__arrow_c_stream__()`` or ``__arrow_c_array__()``: of pyarrow, polars,
                pandas, DuckDB, ... A stream is read to its end before the first record is appended.
            values: name of the column of values.
            keys: name of the column of keys.
            headers: as in ``send_many()``.
            timestamps: name of a column, or as in ``send_columns()``.
            partitions: name of a column, or as in ``send_columns()``.
            on_delivery: as in ``send_many()``.

        Returns:
            The future of all records.

        Raises:
            ValueError: there is no such column.
            TypeError, ValueError, KafkaError: as ``send_columns()``.
        """
        if self._interceptors_of_option is not None:
            source = ArrowTable(table)
            value_list = source.column("values", values).to_list()
            key_list = None if keys is None else source.column("keys", keys).to_list()
            count = len(value_list)
            timestamps, partitions = (
                source.integers(name, given, count).to_list(count) if isinstance(given, str) else given
                for name, given in (("timestamps", timestamps), ("partitions", partitions))
            )
            return self._interceptors_of_option.send_many(
                self,
                topic,
                value_list,
                key_list,
                headers,
                timestamps,
                partitions,
                on_delivery,
                serialize=False,
            )
        return bulk.send_table(self, topic, table, values, keys, headers, timestamps, partitions, on_delivery)

    def flush(self, timeout: float | None = None) -> None:
        """Send everything at once and wait until it is decided and its callbacks have run.

        Errors of single records are on their futures and callbacks, not raised here.

        Args:
            timeout: seconds; None: as long as it takes, which ``delivery_timeout_ms`` bounds.

        Raises:
            KafkaTimeoutError: the timeout ran out; the records stay under way.
            IllegalStateError: called inside a delivery callback.
        """
        engine = self._engine_started
        if engine is not None and not self._closed:
            engine.flush(seconds_or_none(timeout))

    def close(self, timeout: float | None = None) -> None:
        """Refuse new records, deliver what was accepted, stop the threads.

        A second call only waits for a first one that another thread, or a callback, made.

        Args:
            timeout: seconds to wait for records under way; None: as long as it takes. What is left then fails
                with ProducerClosedError on its future and callback. 0 fails everything at once.

        Raises:
            ValueError: the timeout is negative.
        """
        seconds = seconds_or_none(timeout)
        engine = self._engine_started
        if engine is None:
            return
        if self._closed:
            engine.close(seconds)
            return
        self._closed = True
        engine.close(seconds)
        for owner in (self._options.key_serializer, self._options.value_serializer, self._partitioner.source):
            closer = getattr(owner, "close", None)
            if callable(closer) and not isinstance(owner, type):
                closer()
        if self._interceptors_of_option is not None:
            self._interceptors_of_option.close()

    def purge(self, in_queue: bool = True, in_flight: bool = True) -> None:
        """Drop records that are not acknowledged; each fails with PurgedError.

        Args:
            in_queue: those that wait to be sent (first or again).
            in_flight: those that were sent and not answered; they may be written all the same.
        """
        if self._engine_started is not None and not self._closed:
            self._engine_started.purge(in_queue, in_flight)

    @property
    def engine(self) -> Engine:
        """What the producer runs on; for the package's own modules.

        Raises:
            RuntimeError: ``__init__()`` has not been called.
        """
        engine = self._engine_started
        if engine is None:
            raise RuntimeError("KafkaProducer.__init__() has not been called")
        return engine

    # -- transactions

    def init_transactions(self, timeout: float | None = None, *, keep_prepared_txn: bool = False) -> None:
        """Get the producer id of ``transactional_id`` and fence older producers that have it.

        Called once, before the rest. Waits for transactions that such a producer left open to be over.

        Args:
            timeout: seconds; None: ``max_block_ms``.
            keep_prepared_txn: do not abort a transaction that such a producer left open, but keep it as
                prepared: end it with complete_transaction() (KIP-939). Needs
                ``transaction_two_phase_commit_enable=True``.

        Raises:
            KafkaTimeoutError: the timeout ran out; call it again to go on waiting.
            IllegalStateError: there is no ``transactional_id``, or it was called before.
            TransactionalIdAuthorizationFailedError: not allowed; it may be called again once it is.
            UnsupportedVersionError: the brokers have no two-phase commit, or cannot keep what is prepared.
        """
        self._running().init_transactions(keep_prepared_txn, self._blocking(timeout))

    def begin_transaction(self) -> None:
        """Begin a transaction: what is sent until its end becomes visible as a whole, or not at all.

        Raises:
            IllegalStateError: not initialised, or a transaction is open.
            ProducerFencedError, KafkaError: the producer has ended; close it.
        """
        self._running().begin_transaction()

    def send_offsets_to_transaction(
        self, offsets: Any, group_metadata: Any, timeout: float | None = None
    ) -> None:
        """Commit a consumer group's offsets with the transaction, for consume-transform-produce (KIP-447).

        Args:
            offsets: ``{TopicPartition: OffsetAndMetadata or int}``, the next offset to read; or
                confluent-kafka's list of TopicPartition with offsets.
            group_metadata: the consumer's: ``consumer.group_metadata()`` of kafka-python,
                ``consumer.consumer_group_metadata()`` of confluent-kafka, or the group id alone, which does
                not fence consumers that have left the group.
            timeout: seconds; None: ``max_block_ms``.

        Raises:
            CommitFailedError: the group has given the partitions to another member: abort.
            GroupAuthorizationFailedError: offsets of this group may not be committed: abort.
            TransactionAbortableError, KafkaTimeoutError, IllegalStateError: as commit_transaction().
        """
        self._running().send_offsets(offsets, group_metadata, self._blocking(timeout))

    def prepare_transaction(self, timeout: float | None = None) -> PreparedTxnState:
        """Prepare the transaction for a two-phase commit (KIP-939): after it, either end is still possible.

        Waits until every record and offset of the transaction is written. From then on nothing can be sent in
        it, it never expires, and close() leaves it open. It needs
        ``transaction_two_phase_commit_enable=True``.

        Args:
            timeout: seconds; None: ``max_block_ms``.

        Returns:
            What names the transaction: keep it where the other side of the two-phase commit is decided.

        Raises:
            TransactionAbortableError, ...: as commit_transaction(): call abort_transaction().
            ProducerFencedError: another producer has this ``transactional_id`` now; close this one.
            KafkaTimeoutError: the timeout ran out; call it again, or abort_transaction().
            IllegalStateError: no transaction is open, it is prepared already, or the option is not set.
        """
        return self._running().prepare_transaction(self._blocking(timeout))

    def complete_transaction(
        self, prepared_state: PreparedTxnState | str, timeout: float | None = None
    ) -> None:
        """End a prepared transaction: commit it if ``prepared_state`` names it, else abort it (KIP-939).

        Args:
            prepared_state: what prepare_transaction() returned for the last transaction that the other side
                has committed, or its text; ``""``: it has committed none.
            timeout: seconds; None: ``max_block_ms``.

        Raises:
            ValueError: it is not the text of a state.
            ProducerFencedError, KafkaTimeoutError: as commit_transaction().
            IllegalStateError: no transaction is prepared.
        """
        self._running().complete_transaction(prepared_state, self._blocking(timeout))

    def commit_transaction(self, timeout: float | None = None) -> None:
        """Wait until every record of the transaction is acknowledged, then commit it.

        Args:
            timeout: seconds; None: ``max_block_ms``.

        Raises:
            TransactionAbortableError: it cannot be committed: call abort_transaction().
            TopicAuthorizationFailedError, ...: likewise, because a permission is missing.
            ProducerFencedError: another producer has this ``transactional_id`` now; close this one.
            KafkaTimeoutError: the timeout ran out; call it again to go on waiting.
            IllegalStateError: no transaction is open.
        """
        self._running().commit_transaction(self._blocking(timeout))

    def abort_transaction(self, timeout: float | None = None) -> None:
        """Abort the transaction: none of its records becomes visible to readers of committed records.

        Records that were not sent fail with TransactionAbortedError.

        Args:
            timeout: seconds; None: ``max_block_ms``.

        Raises:
            ProducerFencedError, KafkaTimeoutError, IllegalStateError: as commit_transaction().
        """
        self._running().abort_transaction(self._blocking(timeout))

    @contextmanager
    def transaction(self) -> Iterator[Self]:
        """``with producer.transaction():`` commits at the end, or aborts when an exception leaves the block.

        Raises:
            KafkaError: what commit_transaction() raises; after an error that can be aborted it has been
                aborted.
        """
        self.begin_transaction()
        try:
            yield self
            self.commit_transaction()
        except BaseException as error:
            if not isinstance(error, errors.KafkaTimeoutError) or not self._committing():
                self._abort_after(error)
            raise

    def _committing(self) -> bool:
        engine = self._engine_started
        return engine is not None and engine.transaction_state == "committing"

    def _abort_after(self, error: BaseException) -> None:
        """Abort without hiding the error that is the reason."""
        try:
            self.abort_transaction()
        except errors.KafkaError as second:
            from kprod.loggers import logger

            logger("kprod.producer").warning(
                "%r: the transaction could not be aborted after %r: %s", self, error, second
            )

    def _blocking(self, timeout: float | None) -> float:
        seconds = seconds_or_none(timeout)
        return self._options.max_block_ms / 1000 if seconds is None else seconds

    # -- the cluster

    def partitions_for(self, topic: str) -> set[int]:
        """Numbers of a topic's partitions.

        Raises:
            KafkaTimeoutError: no metadata within ``max_block_ms``.
            TopicAuthorizationFailedError, InvalidTopicError: the brokers refuse the topic.
        """
        return self._running().partitions_for(topic, self._options.max_block_ms / 1000)

    def bootstrap_connected(self) -> bool:
        """Whether there is a connection to a broker of the cluster now."""
        engine = self._engine_started
        return engine is not None and not self._closed and engine.bootstrap_connected()

    def set_sasl_credentials(
        self, username: str | Callable[[], str], password: str | Callable[[], str]
    ) -> None:
        """Authenticate with another user name and password from now on (PLAIN, SCRAM).

        Connections there are keep their session; new ones, and those whose session ends (KIP-368), use these.

        Args:
            username: the name, or a callable that is asked at each authentication.
            password: the password, or a callable likewise.

        Raises:
            TypeError: one of them is neither a str nor a callable, or is empty.
            IllegalStateError: the producer does not authenticate with a name and a password.
        """
        for what, value in (("username", username), ("password", password)):
            if not value or not (isinstance(value, str) or callable(value)):
                raise TypeError(
                    f"{what} must be a str that is not empty, or a callable, not {type(value).__name__}"
                )
        self._running().set_sasl_credentials(username, password)

    def metrics(self, raw: bool = False) -> dict[str, dict[str, Any]] | None:
        """Figures by group and name, with the names of the Java producer; see docs/metrics.md.

        Args:
            raw: the counters themselves instead of rates and averages.

        Returns:
            ``{"producer-metrics": {"record-send-rate": ...}, ...}``; None when ``metrics_enabled`` is off.
        """
        engine = self._engine_started
        if engine is None or not self._options.metrics_enabled:
            return None
        counters = engine.counters()
        return counters if raw else engine.metrics.snapshot(counters)

    def client_instance_id(self, timeout: float | None = None) -> uuid.UUID:
        """The id under which brokers keep the metrics that this producer pushes to them (KIP-714).

        A broker assigns it; it stays for the life of the producer. Metrics of brokers and logs that have it
        can be found by it.

        Args:
            timeout: seconds to wait for a broker to assign it; None: ``max_block_ms``.

        Raises:
            IllegalStateError: metrics are not pushed, because of ``enable_metrics_push=False`` or
                ``metrics_enabled=False``, or because a broker refused them.
            UnsupportedVersionError: the brokers have no client telemetry.
            KafkaTimeoutError: no broker assigned one in time.
            ProducerClosedError: the producer is closed.
        """
        return self._running().client_instance_id(self._blocking(timeout))

    def healthy(self, max_record_age: float | None = None, max_buffer_share: float = 0.9) -> Health:
        """Whether records leave, and if not, why; for the health check of a service. See docs/health.md.

        Args:
            max_record_age: seconds that a record may be under way; None: half of ``delivery_timeout_ms``.
            max_buffer_share: share of ``buffer_memory`` that may be taken.

        Returns:
            Health: false if something is wrong; then ``reasons`` says what.

        Raises:
            RuntimeError: ``__init__()`` has not been called.
        """
        return self.engine.health(max_record_age, max_buffer_share)

    def _running(self) -> Engine:
        engine = self._engine_started
        if engine is None:
            raise RuntimeError("KafkaProducer.__init__() has not been called")
        if self._closed:
            raise errors.ProducerClosedError("the KafkaProducer is closed")
        return engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        options = getattr(self, "_options", None)
        if options is None:
            return "<KafkaProducer not initialised>"
        servers = ",".join(f"{host}:{port}" for host, port in options.bootstrap_servers)
        state = "closed" if self._closed else "open"
        return f"<KafkaProducer client_id={options.client_id} bootstrap_servers={servers} {state}>"

    def __del__(self) -> None:
        engine = self._engine_started
        if engine is None or self._closed:
            return
        self._closed = True
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)
        # What was accepted is still delivered; nothing waits for it.
        engine.close_in_background()


def seconds_or_none(timeout: float | None) -> float | None:
    """Check a timeout in seconds.

    Raises:
        TypeError, ValueError: it is not a number, or negative.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be seconds or None, got {type(timeout).__name__}: {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be >= 0 seconds, got {timeout!r}")
    return float(timeout)
