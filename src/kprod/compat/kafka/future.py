"""kafka-python's future of a record."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from kprod import errors as own
from kprod._core.future import DeliveryFuture
from kprod.compat.kafka.errors import translated
from kprod.records import TopicPartition

if TYPE_CHECKING:
    from typing_extensions import Self


class RecordMetadata(NamedTuple):
    """Where a record was written."""

    topic: str
    partition: int
    topic_partition: TopicPartition
    offset: int
    """-1: not known (acks=0)."""
    timestamp: int
    """ms since 1970."""
    checksum: None
    serialized_key_size: int
    """bytes; -1: null."""
    serialized_value_size: int
    serialized_header_size: int
    """bytes of names and values; -1: none."""


class FutureRecordMetadata:
    """What ``send()`` returns: kafka-python's methods and attributes; it can also be awaited in asyncio.

    Args:
        future: kprod's own; None: the record was refused.
        error: why it was.
    """

    __slots__ = ("_error", "_future")

    def __init__(self, future: DeliveryFuture | None, error: BaseException | None = None) -> None:
        self._future = future
        self._error = error

    @property
    def is_done(self) -> bool:
        """Whether the record was delivered or has failed."""
        return self._future is None or self._future.is_done

    def done(self) -> bool:
        """The same as :attr:`is_done`."""
        return self.is_done

    def succeeded(self) -> bool:
        """Whether it was delivered."""
        return self._future is not None and self._future.succeeded()

    def failed(self) -> bool:
        """Whether it has failed."""
        return self._future is None or self._future.failed()

    @property
    def exception(self) -> BaseException | None:
        """Why it failed; None: it did not, or not yet."""
        if self._error is None and self._future is not None:
            error = self._future.exception
            self._error = translated(error) if isinstance(error, own.KafkaError) else error
        return self._error

    @property
    def value(self) -> RecordMetadata | None:
        """The metadata; None: it was not delivered, or not yet."""
        if self._future is not None and self._future.succeeded():
            return record_metadata(self._future.get(0))
        return None

    def retriable(self) -> bool:
        """Whether sending it again may help."""
        return bool(getattr(self.exception, "retriable", False))

    def get(self, timeout: float | None = None) -> RecordMetadata:
        """Wait for it.

        Args:
            timeout: seconds; None: as long as it takes, which ``delivery_timeout_ms`` bounds.

        Raises:
            KafkaTimeoutError: the timeout ran out; the record is still under way.
            KafkaError: it was not delivered.
        """
        if self._future is None:
            assert self._error is not None
            raise self._error
        try:
            return record_metadata(self._future.get(timeout))
        except own.KafkaError as error:
            raise (self.exception if self._future.failed() else None) or translated(error) from None

    result = get

    def add_callback(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call ``f(*args, metadata, **kwargs)`` when it was delivered; at once, if it was already."""
        if self._future is not None:
            call = functools.partial(f, *args, **kwargs)
            self._future.add_callback(lambda metadata: call(record_metadata(metadata)))
        return self

    def add_errback(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call ``f(*args, exception, **kwargs)`` when it failed; at once, if it has already."""
        call = functools.partial(f, *args, **kwargs)
        if self._future is None:
            call(self._error)
        else:
            self._future.add_errback(lambda error: call(self.exception))
        return self

    def add_both(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Both :meth:`add_callback` and :meth:`add_errback`."""
        return self.add_callback(f, *args, **kwargs).add_errback(f, *args, **kwargs)

    def __await__(self) -> Generator[Any, None, RecordMetadata]:
        if self._future is None:
            assert self._error is not None
            raise self._error
        try:
            metadata = yield from self._future.__await__()
        except own.KafkaError as error:
            raise translated(error) from None
        return record_metadata(metadata)


def record_metadata(metadata: Any) -> RecordMetadata:
    """kafka-python's tuple of it."""
    return RecordMetadata(
        metadata.topic,
        metadata.partition,
        metadata.topic_partition,
        metadata.offset,
        metadata.timestamp,
        None,
        metadata.serialized_key_size,
        metadata.serialized_value_size,
        metadata.serialized_header_size,
    )
