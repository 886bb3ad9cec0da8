"""Interceptors: code that sees, and may change, every record on its way in, and hears of its end.

The form is that of the Java producer's ``org.apache.kafka.clients.producer.ProducerInterceptor`` (KIP-42).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from kprod import errors
from kprod._core import bulk
from kprod._core.bulk_future import BulkDeliveryFuture
from kprod.records import OnDelivery, TopicPartition

if TYPE_CHECKING:
    from kprod._core.future import RecordMetadata
    from kprod._core.producer import ProducerCore
    from kprod.errors import KafkaError
    from kprod.records import BulkHeaders, Headers, Integers

logger = logging.getLogger("kprod.interceptors")

ManyArguments: TypeAlias = tuple[Any, Any, Any, Any, Any, Any, Any]
"""Those of ``send_many()``, in order."""


class ProducerRecord(NamedTuple):
    """A record as interceptors see it: the arguments of ``send()``, before serialization.

    ``record._replace(headers=[...])`` makes a changed one.
    """

    topic: str
    value: Any = None
    key: Any = None
    headers: Any = ()
    """A list of (str, bytes) pairs, whatever form they were given in."""
    partition: int | None = None
    """None: the partitioner will choose."""
    timestamp_ms: int | None = None
    """ms since 1970; None: the present."""


class RefusedRecordMetadata(NamedTuple):
    """The metadata of a record that ``send()`` refused: like RecordMetadata, as far as there is
    anything to say.
    """

    topic: str
    partition: int
    """-1: it had none yet."""
    headers: Headers | None = None
    offset: int = -1
    timestamp: int = -1
    serialized_key_size: int = -1
    serialized_value_size: int = -1

    @property
    def topic_partition(self) -> TopicPartition:
        """Both in one."""
        return TopicPartition(self.topic, self.partition)


class ProducerInterceptor:
    """Base class of interceptors; any object with these methods will do, and need not have all of them.

    What a method raises is logged (``kprod.interceptors``) and changes nothing: the record goes on as
    it was, and the next interceptor is called.
    """

    def configure(self, options: Mapping[str, Any]) -> None:
        """The producer is being made.

        Called once for each producer, before any other method. What it raises ends the constructor.

        Args:
            options: all options of the producer, by name.
        """

    def on_send(self, record: ProducerRecord) -> ProducerRecord:
        """A record was given to ``send()``, ``send_nowait()``, ``send_many()`` or the like.

        Called in the thread that sends, before serialization and partitioning, so it should be quick.

        Returns:
            The record to send, changed or not.
        """
        return record

    def on_acknowledgement(
        self, metadata: RecordMetadata | RefusedRecordMetadata, exception: KafkaError | BaseException | None
    ) -> None:
        """A record was acknowledged or failed: exactly one call for each record that ``on_send()`` returned.

        Called before the record's ``on_delivery``, on the delivery thread; for a record that
        ``send()`` refused
        in the thread that sends. An interceptor whose method takes a third argument, ``headers``, gets the
        record's headers as they were sent (KIP-512).

        Args:
            metadata: where it is; for a failed one the offset is -1.
            exception: why it failed; None: it was acknowledged.
        """

    def close(self) -> None:
        """The producer was closed, and every record is decided."""


def make_interceptors(given: Sequence[Any], options: Mapping[str, Any]) -> Interceptors:
    """The chain for the option ``interceptor_classes``.

    Args:
        given: objects, classes, or the dotted names of classes.
        options: what ``configure()`` gets.

    Raises:
        KafkaConfigurationError: a class cannot be found or made.
    """
    chain = []
    for entry in given:
        interceptor = entry
        try:
            if isinstance(entry, str):
                interceptor = _class_of(entry)()
            elif isinstance(entry, type):
                interceptor = entry()
            configure = getattr(interceptor, "configure", None)
            if configure is not None:
                configure(options)
        except Exception as error:
            raise errors.KafkaConfigurationError(
                f"the interceptor {entry!r} could not be made and configured: {type(error).__name__}: {error}"
            ) from error
        chain.append(interceptor)
    return Interceptors(chain)


def _class_of(name: str) -> Any:
    from importlib import import_module

    module, _, attribute = name.rpartition(".")
    if not module:
        raise ImportError(f"{name!r} has no module: give it as package.module.Class")
    return getattr(import_module(module), attribute)


class Interceptors:
    """All interceptors of a producer, called one after the other.

    Args:
        chain: the interceptors, in the order in which they are called.
    """

    def __init__(self, chain: Sequence[Any]) -> None:
        self._chain = tuple(chain)
        self._on_send = [i.on_send for i in chain if hasattr(i, "on_send")]
        self._on_acknowledgement = [
            (i.on_acknowledgement, _takes_headers(i.on_acknowledgement))
            for i in chain
            if hasattr(i, "on_acknowledgement")
        ]

    @property
    def wants_headers(self) -> bool:
        """Whether an interceptor is told of a record's headers at its end."""
        return any(wants for _, wants in self._on_acknowledgement)

    def on_send(
        self, topic: Any, value: Any, key: Any, headers: Any, partition: Any, timestamp_ms: Any
    ) -> ProducerRecord:
        """What the interceptors make of a record."""
        record = ProducerRecord(topic, value, key, _as_list(headers), partition, timestamp_ms)
        for on_send in self._on_send:
            try:
                changed = on_send(record)
                if not isinstance(changed, ProducerRecord):
                    raise TypeError(
                        f"on_send() must return a ProducerRecord, not {type(changed).__name__}: {changed!r}"
                    )
            except Exception:
                logger.exception("interceptor %r failed in on_send(); the record goes on as it was", on_send)
            else:
                record = changed
        return record

    def callback(self, on_delivery: Any, attended: bool) -> OnDelivery:
        """The callback that a record gets instead of its own.

        Args:
            on_delivery: its own; None: it has none.
            attended: whether somebody has its future; the failure of others is logged.

        Raises:
            TypeError: it is not callable.
        """
        if on_delivery is None:
            return self._acknowledged if attended else self._acknowledged_to_nobody
        if not callable(on_delivery):
            raise TypeError(
                f"on_delivery must be callable as f(error, metadata), got {type(on_delivery).__name__}"
            )

        def acknowledged(error: KafkaError | None, metadata: RecordMetadata) -> Any:
            self._acknowledged(error, metadata)
            return on_delivery(error, metadata)

        return acknowledged

    def _acknowledged(self, error: BaseException | None, metadata: Any) -> None:
        for on_acknowledgement, wants_headers in self._on_acknowledgement:
            try:
                if wants_headers:
                    headers = metadata.headers
                    on_acknowledgement(metadata, error, [] if headers is None else headers)
                else:
                    on_acknowledgement(metadata, error)
            except Exception:
                logger.exception("interceptor %r failed in on_acknowledgement()", on_acknowledgement)

    def _acknowledged_to_nobody(self, error: KafkaError | None, metadata: RecordMetadata) -> None:
        self._acknowledged(error, metadata)
        if error is not None and not isinstance(error, (errors.PurgedError, errors.TransactionAbortedError)):
            logger.error("a record sent with send_nowait() failed: %s", error)

    def on_refused(self, record: ProducerRecord, error: BaseException) -> None:
        """``send()`` refuses a record, after interceptors have seen it."""
        partition = record.partition if isinstance(record.partition, int) else -1
        self._acknowledged(error, RefusedRecordMetadata(record.topic, partition, record.headers))

    def close(self) -> None:
        """Tell all of them that there will be no more records."""
        for interceptor in self._chain:
            close = getattr(interceptor, "close", None)
            if close is None or isinstance(interceptor, type):
                continue
            try:
                close()
            except Exception:
                logger.exception("interceptor %r failed in close()", interceptor)

    # -- many records at once

    def send_many(self, core: ProducerCore, *arguments: Any, serialize: bool = True) -> BulkDeliveryFuture:
        """``send_many()`` of what the interceptors make of each record; the arguments are those of
        :meth:`on_send_many`.
        """
        records, changed = self.on_send_many(*arguments)
        try:
            return bulk.send_many(core, *changed, serialize=serialize)
        except BaseException as error:
            self.on_refused_many(records, error, getattr(error, "future", None))
            raise

    def on_send_many(
        self,
        topic: Any,
        values: Iterable[Any],
        keys: Iterable[Any] | None,
        headers: BulkHeaders | None,
        timestamps: Integers | None,
        partitions: Integers | None,
        on_delivery: OnDelivery | None,
    ) -> tuple[list[ProducerRecord], ManyArguments]:
        """What the interceptors make of the arguments of ``send_many()``: the records, and new arguments.

        An interceptor cannot move a record of such a call to another topic: that is logged, and the record
        keeps its topic.
        """
        values = bulk.as_sequence("values", values)
        count = len(values)
        keys = (None,) * count if keys is None else bulk.as_sequence("keys", keys)
        if len(keys) != count:
            raise ValueError(f"keys has {len(keys)} items, and there are {count} records")
        given, by_record = bulk.split_headers(headers, count)
        header_of: Any = given if by_record else (given,) * count
        timestamp_of = bulk.read_integers("timestamps", timestamps, count)
        partition_of = bulk.read_integers("partitions", partitions, count)
        callback = self.callback(on_delivery, True)
        records = []
        for i in range(count):
            record = self.on_send(topic, values[i], keys[i], header_of[i], partition_of[i], timestamp_of[i])
            if record.topic != topic:
                logger.error(
                    "an interceptor changed the topic of a record of send_many() from %s to %s; it stays",
                    topic,
                    record.topic,
                )
                record = record._replace(topic=topic)
            records.append(record)
        return records, (
            topic,
            [record.value for record in records],
            [record.key for record in records],
            [record.headers for record in records],
            [record.timestamp_ms for record in records],
            [record.partition for record in records],
            callback,
        )

    def on_refused_many(
        self, records: list[ProducerRecord], error: BaseException, future: BulkDeliveryFuture | None
    ) -> None:
        """Some records of a ``send_many()`` were not appended.

        Args:
            records: all of the call.
            error: why.
            future: that of those that were, if there are any.
        """
        # Records that were appended are acknowledged like others; where those are has -1 for the rest.
        partitions = future.partitions() if future is not None else [-1] * len(records)
        for record, partition in zip(records, partitions, strict=True):
            if partition < 0:
                self.on_refused(record, error)


def _as_list(headers: Any) -> Any:
    try:
        return [] if headers is None else list(headers.items() if isinstance(headers, Mapping) else headers)
    except TypeError:
        return headers  # send() says what is wrong with them


def _takes_headers(on_acknowledgement: Callable[..., Any]) -> bool:
    """Whether it has the form of KIP-512, with the headers as a third argument."""
    try:
        inspect.signature(on_acknowledgement).bind(None, None, None)
    except (TypeError, ValueError):
        return False
    return True
