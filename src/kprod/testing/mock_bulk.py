"""The future of many records of a MockProducer, like :class:`kprod.BulkDeliveryFuture`."""

from __future__ import annotations

import asyncio
import threading
import time
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, overload

from kprod import errors
from kprod.errors import KafkaError

if TYPE_CHECKING:
    from kprod.testing.mock_producer import MockDeliveryFuture, MockRecordMetadata


class MockDeliveryReports(Sequence["MockRecordMetadata"]):
    """The delivery reports of all records of a call, like :class:`kprod.DeliveryReports`."""

    def __init__(self, future: MockBulkDeliveryFuture) -> None:
        self._future = future

    def offsets(self) -> array[int]:
        """The records' offsets."""
        return self._future.offsets()

    def partitions(self) -> array[int]:
        """The records' partitions."""
        return self._future.partitions()

    def __len__(self) -> int:
        return len(self._future)

    @overload
    def __getitem__(self, index: int) -> MockRecordMetadata: ...
    @overload
    def __getitem__(self, index: slice) -> list[MockRecordMetadata]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return self._future[index].get(0)


class MockBulkDeliveryFuture:
    """The future of the records of one ``send_many()``, ``send_columns()`` or ``send_table()``."""

    def __init__(self, futures: list[MockDeliveryFuture]) -> None:
        self._futures = futures
        self._lock = threading.Lock()
        self._undecided = len(futures)
        self._callbacks: list[Callable[[MockBulkDeliveryFuture], object]] = []
        for future in futures:
            future.add_done_callback(self._one_is_done)

    def _one_is_done(self, _: MockDeliveryFuture) -> None:
        with self._lock:
            self._undecided -= 1
            if self._undecided:
                return
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def get(self, timeout: float | None = None) -> MockDeliveryReports:
        """Wait until every record is decided.

        Args:
            timeout: seconds; ``None`` waits for ever.

        Raises:
            KafkaTimeoutError: not all are decided within `timeout`.
            KafkaError: the error of the first record, by index, that failed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for future in self._futures:
            try:
                future.get(None if deadline is None else max(0, deadline - time.monotonic()))
            except errors.KafkaTimeoutError:
                if not future.done():
                    raise
            except KafkaError:
                pass  # when all are decided
        for _, error in self.failures():
            raise error
        return MockDeliveryReports(self)

    result = get

    def done(self) -> bool:
        """Whether every record is decided."""
        return all(future.done() for future in self._futures)

    @property
    def is_done(self) -> bool:
        """Whether every record is decided."""
        return self.done()

    def succeeded(self) -> bool:
        """Whether every record was completed."""
        return all(future.succeeded() for future in self._futures)

    def failed(self) -> bool:
        """Whether every record is decided and at least one failed."""
        return self.done() and self.failed_count > 0

    @property
    def value(self) -> MockDeliveryReports | None:
        """The reports when every record was completed, else ``None``."""
        return MockDeliveryReports(self) if self.succeeded() else None

    @property
    def exception(self) -> KafkaError | None:
        """The error of the first record that failed, once every record is decided."""
        return next((error for _, error in self.failures()), None) if self.done() else None

    def failures(self) -> Iterator[tuple[int, KafkaError]]:
        """The records that have failed: (index, error), by index."""
        for index, future in enumerate(self._futures):
            error = future.exception
            if error is not None:
                yield index, error

    def retriable(self) -> bool:
        """Whether any record failed and every one that did failed with an error that a retry may overcome."""
        return self.failed() and all(error.retriable for _, error in self.failures())

    def cancel(self) -> Literal[False]:
        """``False``: records that were accepted cannot be called back."""
        return False

    def cancelled(self) -> Literal[False]:
        """``False``, always."""
        return False

    @property
    def appended(self) -> int:
        """All records: the buffer of a MockProducer is never full."""
        return len(self._futures)

    @property
    def acked_count(self) -> int:
        """Records that were completed up to now."""
        return sum(future.succeeded() for future in self._futures)

    @property
    def failed_count(self) -> int:
        """Records that have failed up to now."""
        return sum(future.failed() for future in self._futures)

    def offsets(self) -> array[int]:
        """The records' offsets by index; -1: not known."""
        found = [future.value for future in self._futures]
        return array("q", [-1 if metadata is None else metadata.offset for metadata in found])

    def partitions(self) -> array[int]:
        """The records' partitions by index."""
        return array("i", [future.partition for future in self._futures])

    def _when_done(self, run: Callable[[MockBulkDeliveryFuture], object]) -> None:
        with self._lock:
            if self._undecided:
                self._callbacks.append(run)
                return
        run(self)

    def add_callback(
        self, callback: Callable[..., object], *args: object, **kwargs: object
    ) -> MockBulkDeliveryFuture:
        """Call ``callback(*args, reports, **kwargs)`` when every record is completed."""
        return self._add(callback, args, kwargs, on_success=True, on_error=False)

    def add_errback(
        self, callback: Callable[..., object], *args: object, **kwargs: object
    ) -> MockBulkDeliveryFuture:
        """Call ``callback(*args, error, **kwargs)`` when every record is decided and any failed."""
        return self._add(callback, args, kwargs, on_success=False, on_error=True)

    def add_both(
        self, callback: Callable[..., object], *args: object, **kwargs: object
    ) -> MockBulkDeliveryFuture:
        """Call ``callback(*args, reports_or_error, **kwargs)`` either way."""
        return self._add(callback, args, kwargs, on_success=True, on_error=True)

    def _add(
        self,
        callback: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        on_success: bool,
        on_error: bool,
    ) -> MockBulkDeliveryFuture:
        from kprod.testing.mock_producer import _run

        def decided(_: MockBulkDeliveryFuture) -> None:
            error = self.exception
            if on_error if error is not None else on_success:
                outcome = MockDeliveryReports(self) if error is None else error
                _run(lambda: callback(*args, outcome, **kwargs))

        if not callable(callback):
            raise TypeError(f"a callback must be callable, got {type(callback).__name__}: {callback!r}")
        self._when_done(decided)
        return self

    def add_done_callback(self, callback: Callable[[MockBulkDeliveryFuture], object]) -> None:
        """Call ``callback(future)`` when every record is decided."""
        from kprod.testing.mock_producer import _run

        self._when_done(lambda future: _run(callback, future))

    def __await__(self) -> Generator[Any, None, MockDeliveryReports]:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[MockDeliveryReports] = loop.create_future()

        def settle() -> None:
            if not waiter.done():
                error = self.exception
                if error is None:
                    waiter.set_result(MockDeliveryReports(self))
                else:
                    waiter.set_exception(error)

        self._when_done(lambda _: loop.call_soon_threadsafe(settle))
        return waiter.__await__()

    def __len__(self) -> int:
        return len(self._futures)

    def __bool__(self) -> Literal[True]:
        return True

    def __getitem__(self, index: SupportsIndex) -> MockDeliveryFuture:
        return self._futures[index.__index__()]

    def __iter__(self) -> Iterator[MockDeliveryFuture]:
        return iter(self._futures)

    def __repr__(self) -> str:
        acked, failed = self.acked_count, self.failed_count
        pending = len(self) - acked - failed
        counts = f"{acked} done, {failed} failed, {pending} pending"
        return f"<MockBulkDeliveryFuture {len(self)} records: {counts}>"
