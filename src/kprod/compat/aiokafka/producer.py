"""AIOKafkaProducer: aiokafka's producer class on kprod's engine."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from kprod._core.aio import Settlement, channel_for
from kprod._core.future import RecordMetadata as Delivered
from kprod.aio import AsyncKafkaProducer
from kprod.cluster.metadata import ClusterSnapshot
from kprod.compat.aiokafka.batch import BatchBuilder
from kprod.compat.aiokafka.client import ClientView
from kprod.compat.aiokafka.errors import IllegalOperation, translated
from kprod.compat.aiokafka.structs import RecordMetadata, TopicPartition
from kprod.errors import KafkaError
from kprod.option_types import INT64_MAX
from kprod.records import OffsetAndMetadata

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

_missing: Any = object()
_numbers = itertools.count(1)

_FOREVER_S: Final = 365 * 86400.0
"""aiokafka waits without a limit for the ends of transactions."""

_DELIVERY_TIMEOUT_MS: Final = 120_000
"""aiokafka repeats idempotent batches for ever, which is no way to end: Java's limit."""


class TransactionContext:
    """What ``async with producer.transaction():`` uses."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer

    async def __aenter__(self) -> Self:
        await self._producer.begin_transaction()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await self._producer.commit_transaction()
        elif not self._producer._has_ended():
            await self._producer.abort_transaction()


class AIOKafkaProducer:
    """aiokafka's producer: its arguments, methods, results and exceptions, with kprod behind them.

    Differences, see docs/compatibility.md: records without a key stay on a partition until its batch is
    full instead of changing at random, unless there is a ``partitioner``; an idempotent record fails after
    120 s instead of never; ``send()`` on a producer that was not started is an error instead of a wait; it
    can be made outside of a loop; ``RecordMetadata.log_start_offset`` is None.

    Args:
        loop: without effect, as the producer works in any loop; deprecated in aiokafka as well.
        bootstrap_servers: ``'host:port'``, or a list of such.
        client_id: its name for the brokers; None: ``aiokafka-producer-N``.
        metadata_max_age_ms, request_timeout_ms, retry_backoff_ms, connections_max_idle_ms: ms.
            ``request_timeout_ms`` also bounds how long ``send()`` waits, and how long a record is tried
            that is not idempotent.
        api_version: without effect; deprecated in aiokafka as well.
        acks: 0, 1, -1 or 'all'; 1 unless idempotent.
        key_serializer, value_serializer: ``f(obj)`` gives bytes; called for None as well.
        compression_type: None, 'gzip', 'snappy', 'lz4' or 'zstd'.
        max_batch_size, max_request_size: bytes.
        partitioner: ``f(key_bytes, all_partitions, available_partitions)``.
        linger_ms: ms.
        security_protocol, ssl_context, sasl_*: as kprod's options of these names.
        enable_idempotence: each record is written once and in order.
        transactional_id, transaction_timeout_ms: for transactions.

    Raises:
        ValueError: an argument is not accepted.
    """

    _closed: bool | None = None  # None: __init__() has not been called

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        bootstrap_servers: str | list[str] = "localhost",
        client_id: str | None = None,
        metadata_max_age_ms: int = 300000,
        request_timeout_ms: int = 40000,
        api_version: Any = None,
        acks: Any = _missing,
        key_serializer: Callable[[Any], Any] | None = None,
        value_serializer: Callable[[Any], Any] | None = None,
        compression_type: str | None = None,
        max_batch_size: int = 16384,
        partitioner: Any = None,
        max_request_size: int = 1048576,
        linger_ms: int = 0,
        retry_backoff_ms: int = 100,
        security_protocol: str = "PLAINTEXT",
        ssl_context: ssl.SSLContext | None = None,
        connections_max_idle_ms: int | None = 540000,
        enable_idempotence: bool = False,
        transactional_id: str | None = None,
        transaction_timeout_ms: int = 60000,
        sasl_mechanism: str = "PLAIN",
        sasl_plain_password: str | None = None,
        sasl_plain_username: str | None = None,
        sasl_kerberos_service_name: str = "kafka",
        sasl_kerberos_domain_name: str | None = None,
        sasl_oauth_token_provider: Any = None,
    ) -> None:
        for name, given in (("loop", loop), ("api_version", api_version)):
            if given is not None:
                warnings.warn(f"{name} has no effect and is deprecated", DeprecationWarning, stacklevel=2)
        if acks not in (0, 1, -1, "all", _missing):
            raise ValueError(f"Invalid ACKS parameter: acks={acks!r}, accepted are 0, 1, -1 and 'all'")
        if compression_type not in ("gzip", "snappy", "lz4", "zstd", None):
            raise ValueError(
                f"Invalid compression type! compression_type={compression_type!r}, accepted are 'gzip', "
                "'snappy', 'lz4', 'zstd' and None"
            )
        idempotent = enable_idempotence or transactional_id is not None
        if idempotent and acks not in (-1, "all", _missing):
            raise ValueError(f"acks={acks} not supported if enable_idempotence=True")
        if security_protocol not in ("SSL", "PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL"):
            raise ValueError(
                f"`security_protocol` should be SSL or PLAINTEXT, SASL_SSL or SASL_PLAINTEXT, not "
                f"{security_protocol!r}"
            )
        if security_protocol.endswith("SSL") and ssl_context is None:
            raise ValueError(f"`ssl_context` is mandatory if security_protocol=={security_protocol!r}")
        if acks is _missing:
            acks = -1 if idempotent else 1
        name = f"aiokafka-producer-{next(_numbers)}" if client_id is None else client_id
        lasts_ms = request_timeout_ms + linger_ms
        options: dict[str, Any] = {
            "bootstrap_servers": bootstrap_servers,
            "client_id": name,
            "metadata_max_age_ms": metadata_max_age_ms,
            "request_timeout_ms": request_timeout_ms,
            "max_block_ms": request_timeout_ms,
            "delivery_timeout_ms": max(lasts_ms, _DELIVERY_TIMEOUT_MS) if idempotent else lasts_ms,
            "acks": acks,
            "enable_idempotence": idempotent,
            "compression_type": compression_type,
            "batch_size": max_batch_size,
            "partitioner": None if _is_default(partitioner) else partitioner,
            "max_request_size": max_request_size,
            "linger_ms": linger_ms,
            "retry_backoff_ms": retry_backoff_ms,
            "security_protocol": security_protocol,
            "connections_max_idle_ms": (
                INT64_MAX if connections_max_idle_ms is None else connections_max_idle_ms
            ),
        }
        if not idempotent:
            # aiokafka has one request in flight, so that retries do not change the order.
            options["max_in_flight_requests_per_connection"] = 1
        if transactional_id is not None:
            options |= {
                "transactional_id": transactional_id,
                "transaction_timeout_ms": transaction_timeout_ms,
            }
        if security_protocol.endswith("SSL"):
            options["ssl_context"] = ssl_context
        if security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": sasl_mechanism,
                "sasl_plain_username": sasl_plain_username,
                "sasl_plain_password": sasl_plain_password,
                "sasl_kerberos_service_name": sasl_kerberos_service_name,
                "sasl_kerberos_domain_name": sasl_kerberos_domain_name,
                "sasl_oauth_token_provider": sasl_oauth_token_provider,
            }
        self._key_serializer = key_serializer
        self._value_serializer = value_serializer
        self._partitioner = partitioner
        self._max_batch_size = max_batch_size
        self._transactional = transactional_id is not None
        self._convert = _nothing if acks == 0 else _to_metadata
        self._loop = loop
        self._async = AsyncKafkaProducer(**options)
        client_options: dict[str, Any] = {
            "bootstrap_servers": bootstrap_servers,
            "client_id": name,
            "request_timeout_ms": request_timeout_ms,
            "security_protocol": security_protocol,
            "ssl_context": ssl_context,
            "sasl_mechanism": sasl_mechanism,
            "sasl_plain_username": sasl_plain_username,
            "sasl_plain_password": sasl_plain_password,
            "sasl_kerberos_service_name": sasl_kerberos_service_name,
            "sasl_kerberos_domain_name": sasl_kerberos_domain_name,
            "sasl_oauth_token_provider": sasl_oauth_token_provider,
        }
        self.client = ClientView(self, client_options)
        self._closed = False

    def __del__(self) -> None:
        if self._closed is not False:
            return
        self._closed = True
        warnings.warn(f"Unclosed AIOKafkaProducer {self!r}", ResourceWarning, source=self, stacklevel=1)
        loop = self._loop
        self._async.abandon()
        if loop is not None and not loop.is_closed():
            loop.call_exception_handler({"producer": self, "message": "Unclosed AIOKafkaProducer"})

    # -- the life of it

    async def start(self) -> None:
        """Connect to the cluster, and with a ``transactional_id`` fence older producers that have it.

        Raises:
            KafkaConnectionError: no bootstrap server could be reached; the message says why for each.
            IllegalOperation: it was started before.
        """
        self._loop = asyncio.get_running_loop()
        with _Translation():
            await self._async.start()
            if self._transactional:
                try:
                    await self._async.init_transactions(_FOREVER_S)
                except BaseException:
                    self._closed = True
                    await self._async.stop(0)
                    raise

    async def stop(self) -> None:
        """Deliver what was sent, then disconnect."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.client.close()
        finally:
            await self._async.stop()

    async def flush(self) -> None:
        """Wait until everything sent so far is delivered or failed; sends it at once."""
        with _Translation():
            await self._async.flush()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # -- records

    async def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[tuple[str, bytes | None]] | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """Send a record; waits for metadata and room only. Await what it returns for the RecordMetadata.

        Args and errors are those of :meth:`kprod.aio.AsyncKafkaProducer.send`, in aiokafka's order.

        Returns:
            A future of the running loop; None is its result with ``acks=0``. Cancelling it does not stop the
            record.
        """
        if value is None and key is None:
            raise AssertionError("Need at least one: key or value")
        if self._key_serializer is not None:
            key = self._key_serializer(key)
        if self._value_serializer is not None:
            value = self._value_serializer(value)
        if timestamp_ms is not None and type(timestamp_ms) is not int:
            timestamp_ms = int(timestamp_ms)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[RecordMetadata] = loop.create_future()
        settlement = Settlement(future, channel_for(loop), self._convert)
        try:
            await self._async.send_reporting(
                topic, value, key, headers or None, partition, timestamp_ms, settlement
            )
        except KafkaError as error:
            raise translated(error) from error
        except ValueError as error:
            _check_partition_error(error, partition)
            raise
        return future

    async def send_and_wait(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[tuple[str, bytes | None]] | None = None,
    ) -> RecordMetadata:
        """Send a record and wait until it is delivered."""
        return await (await self.send(topic, value, key, partition, timestamp_ms, headers))

    def create_batch(self) -> BatchBuilder:
        """An empty batch of up to ``max_batch_size`` bytes, to be filled and given to :meth:`send_batch`."""
        return BatchBuilder(
            self._max_batch_size,
            key_serializer=self._key_serializer,
            value_serializer=self._value_serializer,
        )

    async def send_batch(
        self, batch: BatchBuilder, topic: str, *, partition: int | None
    ) -> asyncio.Future[RecordMetadata]:
        """Send the records of a batch to a partition, one after the other.

        They may share a batch on the wire with other records.

        Returns:
            A future that is done when all are: the metadata of the first one, with timestamp -1 if that is
            the records' own; or the error of the first that failed. None for an empty batch.
        """
        batch.close()
        loop = asyncio.get_running_loop()
        partitions = sorted(await self.partitions_for(topic))
        if self._transactional and not self._in_transaction():
            raise IllegalOperation("Can't send messages while not in transaction")
        if partition is None:
            partition = random.choice(partitions)
        elif partition not in partitions:
            raise AssertionError(f"Unrecognized partition {partition} of topic {topic!r}")
        future: asyncio.Future[Any] = loop.create_future()
        if not batch.records:
            future.set_result(None)
            return future
        settlement = Settlement(
            future, channel_for(loop), _nothing if self._convert is _nothing else _of_batch
        )
        report = _BatchReport(settlement, len(batch.records))
        for record in batch.records:
            try:
                await self._async.send_reporting(
                    topic,
                    record.value,
                    record.key,
                    record.headers or None,
                    partition,
                    record.timestamp,
                    report,
                )
            except KafkaError as error:
                raise translated(error) from error
        return future

    async def partitions_for(self, topic: str) -> set[int]:
        """Numbers of a topic's partitions."""
        with _Translation():
            return await self._async.partitions_for(topic)

    def _partition(
        self,
        topic: str,
        partition: int | None,
        key: Any,
        value: Any,
        serialized_key: bytes | None,
        serialized_value: bytes | None,
    ) -> int | None:
        """For frameworks and tracing tools; None: the producer decides when it sends."""
        if partition is not None:
            return partition
        every = sorted(self._cluster().partitions_for_topic(topic) or ())
        if not every:
            return None
        if _is_default(self._partitioner):
            from kprod.partitioner import murmur2

            return (
                None if serialized_key is None else every[(murmur2(serialized_key) & 0x7FFFFFFF) % len(every)]
            )
        available = sorted(self._cluster().available_partitions_for_topic(topic) or ())
        chosen: int = self._partitioner(serialized_key, every, available)
        return chosen

    # -- transactions

    async def begin_transaction(self) -> None:
        """Begin a transaction.

        Raises:
            IllegalOperation: there is no ``transactional_id``, or a transaction is open.
        """
        self._ensure_transactional()
        with _Translation():
            await self._async.begin_transaction()

    async def commit_transaction(self) -> None:
        """Commit it; cancelling the await does not stop that."""
        self._ensure_transactional()
        with _Translation():
            await self._async.commit_transaction(_FOREVER_S)

    async def abort_transaction(self) -> None:
        """Abort it; cancelling the await does not stop that."""
        self._ensure_transactional()
        with _Translation():
            await self._async.abort_transaction(_FOREVER_S)

    def transaction(self) -> TransactionContext:
        """``async with producer.transaction():`` commits at its end, or aborts if an exception leaves it."""
        return TransactionContext(self)

    async def send_offsets_to_transaction(self, offsets: Mapping[Any, Any], group_id: str) -> None:
        """Commit a consumer group's offsets with the transaction.

        Args:
            offsets: ``{TopicPartition: int, (int, str) or OffsetAndMetadata}``.
            group_id: the group.

        Raises:
            IllegalOperation: no transaction is open.
            ValueError, TypeError: the arguments have another form.
        """
        self._ensure_transactional()
        if not self._in_transaction():
            raise IllegalOperation("Not in the middle of a transaction")
        if not group_id or not isinstance(group_id, str):
            raise ValueError(f"group_id must be a text that is not empty, not {group_id!r}")
        if not offsets or not isinstance(offsets, Mapping):
            raise ValueError(f"offsets must be a mapping that is not empty, not {offsets!r}")
        with _Translation():
            await self._async.send_offsets_to_transaction(_plain(offsets), group_id, _FOREVER_S)

    def _ensure_transactional(self) -> None:
        if not self._transactional:
            raise IllegalOperation("You need to configure transaction_id to use transactions")

    def _transaction_state(self) -> str | None:
        return self._async.transaction_state

    def _in_transaction(self) -> bool:
        return (self._transaction_state() or "").startswith("in a transaction")

    def _has_ended(self) -> bool:
        return (self._transaction_state() or "").startswith("ended")

    def _cluster(self) -> ClusterSnapshot:
        return self._async.cluster

    def _refresh(self) -> None:
        self._async.request_refresh()


class _Translation:
    """Turns kprod's errors into those that applications of aiokafka catch."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, KafkaError):
            raise translated(error) from error


class _BatchReport:
    """Counts the records of a batch as they are delivered; all calls come from the delivery thread."""

    def __init__(self, settlement: Settlement, count: int) -> None:
        self._settlement = settlement
        self._left = count
        self._first: Delivered | None = None
        self._error: KafkaError | None = None

    def __call__(self, error: KafkaError | None, metadata: Delivered) -> None:
        if self._first is None:
            self._first = metadata
        self._error = self._error or error
        self._left -= 1
        if self._left == 0:
            self._settlement(self._error, self._first)


@functools.lru_cache(maxsize=4096)
def _topic_partition(topic: str, partition: int) -> TopicPartition:
    return TopicPartition(topic, partition)


def _to_metadata(error: KafkaError | None, delivered: Delivered) -> RecordMetadata:
    if error is not None:
        _raise(error)
    topic, partition = delivered.topic, delivered.partition
    return RecordMetadata(
        topic,
        partition,
        _topic_partition(topic, partition),
        delivered.offset,
        delivered.timestamp,
        delivered.timestamp_type,
        None,
    )


def _of_batch(error: KafkaError | None, delivered: Delivered) -> RecordMetadata:
    found = _to_metadata(error, delivered)
    return found if found.timestamp_type else found._replace(timestamp=-1)


def _nothing(error: KafkaError | None, delivered: Delivered) -> None:
    if error is not None:
        _raise(error)


def _raise(error: KafkaError) -> NoReturn:
    # A new one for each record, so that tracebacks do not add up.
    raise translated(error)


def _check_partition_error(error: ValueError, partition: object) -> None:
    if partition is not None and not isinstance(error, KafkaError) and str(error).startswith("partition "):
        raise AssertionError(f"Unrecognized partition: {error}") from error


def _is_default(partitioner: Any) -> bool:
    """Whether it is None or aiokafka's own DefaultPartitioner, whose placement of keys is kprod's."""
    kind = type(partitioner)
    return partitioner is None or (
        kind.__name__ == "DefaultPartitioner" and kind.__module__.split(".")[0] in ("aiokafka", "kafka")
    )


def _plain(offsets: Mapping[Any, Any]) -> dict[Any, OffsetAndMetadata]:
    plain = {}
    for partition, given in offsets.items():
        if not (isinstance(partition, tuple) and len(partition) == 2):
            raise TypeError(f"keys of offsets must be TopicPartition, not {partition!r}")
        if isinstance(given, int):
            offset, metadata = given, ""
        else:
            try:
                offset, metadata = given[0], given[1]
            except (TypeError, IndexError) as error:
                raise ValueError(f"offsets: {partition!r} has {given!r}, not an offset") from error
            if not isinstance(metadata, str):
                raise TypeError(f"offsets: the metadata of {partition!r} must be str, not {metadata!r}")
        plain[partition] = OffsetAndMetadata(offset, metadata)
    return plain
