"""AsyncKafkaProducer: the producer for asyncio, on the same core and threads as KafkaProducer."""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
import weakref
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, SupportsIndex

from kprod import errors
from kprod._core import bulk
from kprod._core.aio import AsyncProducerCore
from kprod._core.bulk_future import BulkDeliveryFuture
from kprod._core.future import DeliveryFuture, RecordMetadata
from kprod.aio.waiting import Queue, Shared, in_thread
from kprod.cluster.metadata import ClusterSnapshot
from kprod.config import ProducerConfig
from kprod.errors import BufferExhaustedError, KafkaTimeoutError
from kprod.interceptors import Interceptors
from kprod.producer import KafkaProducer, seconds_or_none
from kprod.records import BulkHeaders, Headers, Integers, OnDelivery

if TYPE_CHECKING:
    import uuid

    from typing_extensions import Self

    from kprod.health import Health
    from kprod.transactions.prepared import PreparedTxnState

logger = logging.getLogger("kprod.aio")

_LEADER_POLL_S: Final = 0.02
"""How often it is looked whether a leader came back whose records may not take more memory."""

_SLICE: Final = 10_000
"""How many records are appended before the loop gets another turn: about a millisecond's work."""


class TryingProducer(KafkaProducer):
    """A KafkaProducer whose ``send()`` never waits: it raises KafkaTimeoutError where it would have to."""

    def _bind(self, *args: Any, **functions: Any) -> None:
        # Interceptors see a record once, however often it is tried to send it: AsyncKafkaProducer calls them.
        super()._bind(*args, **{**functions, "max_block_s": 0.0, "interceptors": None})

    @property
    def interceptors(self) -> Interceptors | None:
        """Those of the option; None: there are none."""
        return self._interceptors_of_option

    def abandon(self) -> None:
        """Close in the background and give no ResourceWarning."""
        self._closed = True
        self.engine.close_in_background()


class _LoopState:
    """What a producer has for each event loop it is used in."""

    def __init__(self) -> None:
        self.memory = Queue()
        self.metadata = Shared()
        self.flushes = Shared()


class AsyncKafkaProducer(AsyncProducerCore):
    """Sends records to Apache Kafka from asyncio, with the guarantees of the Java producer.

    It runs on the threads of :class:`kprod.KafkaProducer`; the loop only appends records and is told of
    outcomes, so a loop that is busy or blocked does not slow the network. One producer can be used by several
    loops in several threads at once; it need not be made in any of them.

    >>> async def main() -> None:
    ...     async with AsyncKafkaProducer(bootstrap_servers="localhost:9092") as producer:
    ...         first = await producer.send("events", b"one")
    ...         second = await producer.send("events", b"two")
    ...         print((await first).offset, (await second).offset)

    Args:
        options: as for KafkaProducer.
        **kwargs: options with underscores, see docs/options.md. ``on_delivery`` callbacks run on the
            delivery thread, not in the loop.

    Raises:
        KafkaConfigurationError: an option is unknown, out of range, or contradicts another.
    """

    def __init__(self, options: Mapping[str, object] | None = None, /, **kwargs: object) -> None:
        self._options = ProducerConfig.from_options(options, kwargs)
        self.config: dict[str, Any] = self._options.as_dict()
        self._producer: TryingProducer | None = None
        self._phase = "new"
        self._lock = threading.Lock()
        self._states: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = (
            weakref.WeakKeyDictionary()
        )

    # -- the life of it

    async def start(self) -> None:
        """Connect to the cluster.

        Raises:
            NoBrokersAvailable: no bootstrap server could be reached within ``bootstrap_timeout_ms``; it may
                be called again.
            IllegalStateError: it was started before.
            ProducerClosedError: it was stopped.
        """
        with self._lock:
            if self._phase == "stopped":
                raise errors.ProducerClosedError("the AsyncKafkaProducer was stopped; make a new one")
            if self._phase != "new":
                raise errors.IllegalStateError("the AsyncKafkaProducer was started already")
            self._phase = "starting"
        wanted = True

        def connect() -> TryingProducer | None:
            producer = TryingProducer(self._options)
            with self._lock:
                if wanted and self._phase == "starting":
                    self._producer = producer
                    # With interceptors every record takes the slow way, _send_intercepted().
                    if producer.interceptors is None:
                        self._attach(producer, KafkaTimeoutError)
                    self._phase = "running"
                    return producer
            producer.close(0)
            return None

        try:
            await self._in_thread("start", connect)
        except BaseException:
            with self._lock:
                wanted = False
                left, self._producer = self._producer, None
                self._attach(None, KafkaTimeoutError)
                self._phase = "new"
            if left is not None:
                left.close(0)
            raise

    async def stop(self, timeout: float | None = None) -> None:
        """Refuse new records, deliver what was accepted, disconnect. A second call does no harm.

        Cancelling it does not stop the stopping.

        Args:
            timeout: seconds to wait for records under way; None: as long as it takes, which
                ``delivery_timeout_ms`` bounds. What is left then fails with ProducerClosedError.
        """
        seconds = seconds_or_none(timeout)
        with self._lock:
            producer = self._producer
            self._phase = "stopped"
        if producer is not None:
            await self._in_thread("stop", producer.close, seconds)

    async def close(self, timeout: float | None = None) -> None:
        """The same as :meth:`stop`."""
        await self.stop(timeout)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # -- records

    async def send_and_wait(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: SupportsIndex | None = None,
        timestamp_ms: SupportsIndex | None = None,
    ) -> RecordMetadata:
        """Send one record and wait until it is acknowledged. Takes and raises what :meth:`send` does.

        Records still travel in batches: with ``linger_ms=0`` nothing waits for more records to come.

        Raises:
            KafkaError: the record failed; ``persisted`` says whether it may have been written.
        """
        return await (await self.send(topic, value, key, headers, partition, timestamp_ms))

    async def send_many(
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

        It waits only for metadata and for room in ``buffer_memory``, and the loop goes on meanwhile; between
        some thousands of records the loop gets a turn too. Every argument is checked before the first record
        is appended, serializers included, which takes the loop for as long as it takes. Records of a
        partition are appended in their order; what other tasks send may come between them.

        Cancelling the await leaves out the records that were not appended yet; those that were are delivered
        (``on_delivery`` tells of them). Cancelling the await of the future that it returns changes nothing.

        >>> async def main(producer: AsyncKafkaProducer) -> None:
        ...     future = await producer.send_many("events", [b"one", b"two"])
        ...     print((await future).offsets())

        Args:
            topic: the topic of all records.
            values: for each record what ``value_serializer`` takes; without one bytes, a bytes-like object,
                or None (a tombstone).
            keys: as many of the same for ``key_serializer``; None: no record has a key.
            headers: a list of (str, bytes | None) pairs, or a mapping, for all records; or a sequence with
                one such, or None, for each.
            timestamps: ms since 1970: an int for all records, or an int or None for each; None takes the
                present.
            partitions: the same; None lets the partitioner choose.
            on_delivery: ``f(error, metadata)``, called for each record on the delivery thread, not in the
                loop.

        Returns:
            The future of all records: await it for their DeliveryReports, with one wake-up of the loop.

        Raises:
            TypeError, ValueError, MessageSizeTooLargeError: an argument is wrong; nothing was sent.
            BufferExhaustedError: ``buffer_memory`` stayed full for ``max_block_ms`` before the next record
                could be appended. Like every KafkaError that comes after the first record, it has
                ``appended``, the number of records that were, and ``future``, theirs.
            KafkaTimeoutError, ProducerClosedError, ForkedProcessError, KafkaError: as ``send()``.
        """
        producer = self._running()
        arguments = (topic, values, keys, headers, timestamps, partitions, on_delivery)
        interceptors = producer.interceptors
        if interceptors is None:
            return await self._append_prepared(producer, arguments, [])
        records, changed = interceptors.on_send_many(*arguments)
        futures: list[BulkDeliveryFuture] = []
        try:
            return await self._append_prepared(producer, changed, futures)
        except BaseException as error:
            interceptors.on_refused_many(records, error, futures[0] if futures else None)
            raise

    async def _append_prepared(
        self, producer: TryingProducer, arguments: tuple[Any, ...], futures: list[BulkDeliveryFuture]
    ) -> BulkDeliveryFuture:
        """Read the arguments of send_many() and append the records.

        The future is put into `futures`, whatever happens then.
        """
        try:
            sending = bulk.prepare_many(producer, *arguments)
        except KafkaTimeoutError:
            # The topic is looked up first: nothing was read from an iterator yet.
            loop = get_running_loop()
            deadline = loop.time() + self._options.max_block_ms / 1000
            await self._learn(self._state(loop), arguments[0], deadline)
            sending = bulk.prepare_many(producer, *arguments)
        error: BaseException | None = None
        try:
            await self._append_many(producer, sending)
        except BaseException as raised:
            error = raised
            raise
        finally:
            future = sending.end(error)
            futures.append(future)
        return future

    async def _append_many(self, producer: TryingProducer, sending: bulk.Bulk) -> None:
        """Append all records, waiting for memory in turn with others."""
        loop = get_running_loop()
        max_block_s = self._options.max_block_ms / 1000
        enough = self._options.batch_size + 2048
        size, appended, since = enough, 0, loop.time()
        full: BufferExhaustedError | None = None
        while True:
            done = False
            in_turn = full is not None or self._waiting > 0
            memory = self._state(loop).memory
            if in_turn:
                if not await memory.enter(since + max_block_s):
                    raise self._exhausted(loop.time() - since, full) from full
                self._count_waiting(1)
            try:
                if full is not None:
                    asked = loop.time()
                    left = since + max_block_s - asked
                    wait = producer.engine.accumulator.wait_for_memory
                    await self._in_thread("memory", wait, size, max(0.0, left))
                    if size > enough and loop.time() - asked < _LEADER_POLL_S / 10:
                        # There is memory, but not for records to a leader that is away.
                        await asyncio.sleep(min(_LEADER_POLL_S, max(left, 0.0)))
                full = None
                try:
                    done = sending.append(_SLICE)
                except BufferExhaustedError as error:
                    full = error
            finally:
                if in_turn:
                    self._count_waiting(-1)
                    memory.leave()
            if done:
                return
            if sending.appended > appended:
                size, appended, since = enough, sending.appended, loop.time()
            elif full is not None and loop.time() >= since + max_block_s:
                raise self._exhausted(loop.time() - since, full) from full
            else:
                size = min(size * 2, self._options.buffer_memory)
            if full is None:
                await asyncio.sleep(0)

    async def send_reporting(self, *arguments: Any) -> DeliveryFuture:
        """``KafkaProducer.send()`` with all its arguments by position, ``on_delivery`` as the last one.

        It waits in the loop, as :meth:`send` does. For stand-ins of other clients.
        """
        interceptors = self._running().interceptors
        if interceptors is None:
            return await self._send_patiently(arguments)
        on_delivery = arguments[6] if len(arguments) > 6 else None
        callback = interceptors.callback(on_delivery or self._options.on_delivery, True)
        record = interceptors.on_send(*arguments[:6])
        try:
            return await self._send_patiently((*record, callback))
        except BaseException as error:
            interceptors.on_refused(record, error)
            raise

    async def _send_intercepted(self, *arguments: Any) -> DeliveryFuture:
        """What send() does when it has no producer whose send() it may call as it is."""
        return await self.send_reporting(*arguments)

    async def _send_patiently(self, arguments: tuple[Any, ...]) -> DeliveryFuture:
        producer = self._running()
        error: KafkaTimeoutError | None = None
        if not self._waiting:
            try:
                return producer.send(*arguments)
            except KafkaTimeoutError as first:
                error = first
        return await self._send_waiting(error, arguments)

    async def _send_waiting(
        self, error: KafkaTimeoutError | None, arguments: tuple[Any, ...]
    ) -> DeliveryFuture:
        """The slow way: wait for metadata, then for memory, in turn; ``error`` is what the first try said."""
        loop = get_running_loop()
        state = self._state(loop)
        producer = self._running()
        started = loop.time()
        deadline = started + self._options.max_block_ms / 1000
        if error is not None and not isinstance(error, BufferExhaustedError):
            await self._learn(state, arguments[0], deadline)
            try:
                return producer.send(*arguments)
            except BufferExhaustedError as again:
                error = again
        if not await state.memory.enter(deadline):
            raise self._exhausted(loop.time() - started, error) from error
        self._count_waiting(1)
        try:
            # A batch with what belongs to it; more if that turns out not to be enough.
            size = self._options.batch_size + 2048
            while True:
                try:
                    return producer.send(*arguments)
                except BufferExhaustedError as again:
                    error = again
                asked = loop.time()
                if asked >= deadline:
                    raise self._exhausted(asked - started, error) from error
                await self._in_thread(
                    "memory", producer.engine.accumulator.wait_for_memory, size, deadline - asked
                )
                size = min(size * 2, self._options.buffer_memory)
                if loop.time() - asked < _LEADER_POLL_S / 10:
                    # There is memory, but not for records to a leader that is away.
                    await asyncio.sleep(min(_LEADER_POLL_S, max(deadline - loop.time(), 0.0)))
        finally:
            self._count_waiting(-1)
            state.memory.leave()

    def _count_waiting(self, change: int) -> None:
        with self._lock:
            self._waiting += change

    async def _learn(self, state: _LoopState, topic: object, deadline: float) -> None:
        """Wait for the metadata of a topic, once for all who ask."""
        engine = self._running().engine
        left = deadline - get_running_loop().time()
        asking = state.metadata.get(topic)
        if asking is None:
            asking = state.metadata.start(
                topic, f"{self._options.client_id}-metadata", engine.topic_for_send, topic, left
            )
        await asyncio.wait([asking])
        error = asking.exception()
        if error is not None:
            # Each with a traceback of its own.
            raise copy.copy(error) from error.__cause__

    def _exhausted(self, waited_s: float, error: Exception | None) -> BufferExhaustedError:
        detail = error.args[0] if error is not None and error.args else "others were waiting for it before"
        return BufferExhaustedError(
            f"no room in buffer_memory ({self._options.buffer_memory} bytes) for {waited_s * 1000:.0f} ms, "
            f"max_block_ms is {self._options.max_block_ms:g}; at the last try: {detail}",
            topic=getattr(error, "topic", None),
            partition=getattr(error, "partition", None),
            persisted="no",
        )

    async def flush(self, timeout: float | None = None) -> None:
        """Send everything at once and wait until all that was sent so far is decided.

        Errors of single records are on their futures, not raised here.

        Args:
            timeout: seconds; None: as long as it takes, which ``delivery_timeout_ms`` bounds.

        Raises:
            KafkaTimeoutError: the timeout ran out; the records stay under way.
        """
        seconds = seconds_or_none(timeout)
        loop = get_running_loop()
        state = self._state(loop)
        producer = self._running()
        if not producer.engine.accumulator.flush(0):
            # Also what the delivery thread queued for this loop has run when this returns.
            await asyncio.sleep(0)
            return
        deadline = None if seconds is None else loop.time() + seconds
        # One that is under way does not cover the latest records: wait for it, then share the next one.
        for _ in range(2):
            others = state.flushes.get("flush")
            flushing = others or state.flushes.start(
                "flush", f"{self._options.client_id}-flush", producer.engine.flush, None
            )
            left = None if deadline is None else max(0.0, deadline - loop.time())
            done, _pending = await asyncio.wait([flushing], timeout=left)
            if not done:
                producer.engine.flush(0)
                return
            flushing.result()
            if others is None:
                return

    # -- transactions

    async def init_transactions(
        self, timeout: float | None = None, *, keep_prepared_txn: bool = False
    ) -> None:
        """Get the producer id of ``transactional_id`` and fence older producers that have it.

        Called once, before the rest.

        Args:
            timeout: seconds; None: ``max_block_ms``.
            keep_prepared_txn: keep a transaction that such a producer left open, as prepared (KIP-939).

        Raises:
            KafkaTimeoutError: the timeout ran out; call it again to go on waiting.
            IllegalStateError: there is no ``transactional_id``, or it was called before.
            UnsupportedVersionError: the brokers have no two-phase commit, or cannot keep what is prepared.
        """
        init = partial(self._running().init_transactions, keep_prepared_txn=keep_prepared_txn)
        await self._in_thread("transactions", init, timeout)

    async def begin_transaction(self) -> None:
        """Begin a transaction: what is sent until its end becomes visible as a whole, or not at all.

        Raises:
            IllegalStateError: not initialised, or a transaction is open.
            ProducerFencedError, KafkaError: the producer has ended; stop it.
        """
        self._running().begin_transaction()

    async def send_offsets_to_transaction(
        self, offsets: Any, group_metadata: Any, timeout: float | None = None
    ) -> None:
        """Commit a consumer group's offsets with the transaction (KIP-447).

        Args and errors: those of :meth:`kprod.KafkaProducer.send_offsets_to_transaction`. For a consumer of
        aiokafka, ``group_metadata`` is the group id.
        """
        await self._in_thread(
            "transactions", self._running().send_offsets_to_transaction, offsets, group_metadata, timeout
        )

    async def prepare_transaction(self, timeout: float | None = None) -> PreparedTxnState:
        """Prepare the transaction for a two-phase commit (KIP-939): after it, either end is still possible.

        Args, result and errors: those of :meth:`kprod.KafkaProducer.prepare_transaction`.
        """
        seconds = seconds_or_none(timeout)
        prepare = self._running().prepare_transaction
        try:
            # As for the end of a transaction: no record can slip in.
            return prepare(0)
        except KafkaTimeoutError:
            prepared: PreparedTxnState = await self._in_thread("transactions", prepare, seconds)
            return prepared

    async def complete_transaction(
        self, prepared_state: PreparedTxnState | str, timeout: float | None = None
    ) -> None:
        """End a prepared transaction: commit it if ``prepared_state`` names it, else abort it (KIP-939).

        Args and errors: those of :meth:`kprod.KafkaProducer.complete_transaction`.
        """
        await self._end_transaction(partial(self._running().complete_transaction, prepared_state), timeout)

    async def commit_transaction(self, timeout: float | None = None) -> None:
        """Wait until every record of the transaction is acknowledged, then commit it.

        Cancelling the await does not stop the commit: call it again to learn how it ended.

        Args:
            timeout: seconds; None: ``max_block_ms``.

        Raises:
            TransactionAbortableError: it cannot be committed: call abort_transaction().
            ProducerFencedError: another producer has this ``transactional_id`` now; stop this one.
            KafkaTimeoutError: the timeout ran out; call it again to go on waiting.
            IllegalStateError: no transaction is open.
        """
        await self._end_transaction(self._running().commit_transaction, timeout)

    async def abort_transaction(self, timeout: float | None = None) -> None:
        """Abort the transaction: none of its records becomes visible to readers of committed records.

        Cancelling the await does not stop the abort.

        Args:
            timeout: seconds; None: ``max_block_ms``.

        Raises:
            ProducerFencedError, KafkaTimeoutError, IllegalStateError: as commit_transaction().
        """
        await self._end_transaction(self._running().abort_transaction, timeout)

    async def _end_transaction(self, end: Callable[[float | None], None], timeout: float | None) -> None:
        seconds = seconds_or_none(timeout)
        try:
            # Begins it at once, so that no record can slip in before the thread runs; waits for nothing.
            end(0)
        except KafkaTimeoutError:
            await self._in_thread("transactions", end, seconds)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        """``async with producer.transaction():`` commits at the end, or aborts if an exception leaves it.

        A task that is cancelled in the block aborts; one that is cancelled while it commits does not: the
        commit goes on by itself.

        Raises:
            KafkaError: what commit_transaction() raises; after an error that can be aborted it has been
                aborted.
        """
        await self.begin_transaction()
        committing = False
        try:
            yield self
            committing = True
            await self.commit_transaction()
        except BaseException as error:
            # A cancelled commit goes on in its thread, whether that has begun to or not.
            goes_on = committing and isinstance(error, asyncio.CancelledError)
            if not goes_on and self._running().engine.transaction_state != "committing":
                try:
                    await self.abort_transaction()
                except errors.KafkaError as second:
                    logger.warning(
                        "%s: the transaction could not be aborted after %r: %s",
                        self._options.client_id, error, second,
                    )  # fmt: skip
            raise

    # -- the cluster

    async def partitions_for(self, topic: str) -> set[int]:
        """Numbers of a topic's partitions.

        Raises:
            KafkaTimeoutError: no metadata within ``max_block_ms``.
            TopicAuthorizationFailedError, InvalidTopicError: the brokers refuse the topic.
        """
        loop = get_running_loop()
        engine = self._running().engine
        try:
            return engine.partitions_for(topic, 0.0)
        except KafkaTimeoutError:
            await self._learn(self._state(loop), topic, loop.time() + self._options.max_block_ms / 1000)
        return engine.partitions_for(topic, 0.0)

    def bootstrap_connected(self) -> bool:
        """Whether there is a connection to a broker of the cluster now."""
        return self._producer is not None and self._producer.bootstrap_connected()

    def metrics(self, raw: bool = False) -> dict[str, dict[str, Any]] | None:
        """Figures by group and name, with Java's names, as :meth:`kprod.KafkaProducer.metrics`."""
        return self._running().metrics(raw)

    async def client_instance_id(self, timeout: float | None = None) -> uuid.UUID:
        """The id under which brokers keep the metrics that this producer pushes to them (KIP-714).

        Args and errors: those of :meth:`kprod.KafkaProducer.client_instance_id`; also IllegalStateError where
        the producer is not running.
        """
        ask = self._running().client_instance_id
        assigned: uuid.UUID = await self._in_thread("telemetry", ask, timeout)
        return assigned

    def healthy(self, max_record_age: float | None = None, max_buffer_share: float = 0.9) -> Health:
        """Whether records leave, and if not, why; for the health check of a service. See docs/health.md.

        Args:
            max_record_age: seconds that a record may be under way; None: half of ``delivery_timeout_ms``.
            max_buffer_share: share of ``buffer_memory`` that may be taken.

        Returns:
            Health: false if something is wrong; then ``reasons`` says what.

        Raises:
            IllegalStateError: it was not started.
        """
        return self._running().healthy(max_record_age, max_buffer_share)

    # -- for stand-ins of other clients

    @property
    def cluster(self) -> ClusterSnapshot:
        """Brokers, topics and leaders as they are known now."""
        return self._running().engine.cluster

    @property
    def transaction_state(self) -> str | None:
        """The transaction's state in words; None: not a transactional producer, or not started."""
        return self._producer.engine.transaction_state if self._producer is not None else None

    def request_refresh(self) -> None:
        """Ask for new metadata soon."""
        self._running().engine.request_refresh()

    def abandon(self) -> None:
        """Close in the background without a warning: the owner gave its own. What was sent is delivered."""
        producer = self._producer
        if producer is not None and self._phase != "stopped":
            self._phase = "stopped"
            producer.abandon()

    # -- the rest

    def _state(self, loop: asyncio.AbstractEventLoop) -> _LoopState:
        with self._lock:
            state = self._states.get(loop)
            if state is None:
                state = self._states[loop] = _LoopState()
        return state

    def _running(self) -> TryingProducer:
        producer = self._producer
        if producer is None:
            raise self._not_running()
        return producer

    def _not_running(self) -> errors.IllegalStateError:
        if self._phase == "stopped":
            return errors.ProducerClosedError("the AsyncKafkaProducer is closed")
        return errors.IllegalStateError(
            "the AsyncKafkaProducer was not started: `await producer.start()`, or use it in `async with`"
        )

    async def _in_thread(self, what: str, function: Any, *args: object) -> Any:
        return await in_thread(f"{self._options.client_id}-{what}", function, *args)

    def __repr__(self) -> str:
        servers = ",".join(f"{host}:{port}" for host, port in self._options.bootstrap_servers)
        name = self._options.client_id
        return f"<AsyncKafkaProducer client_id={name} bootstrap_servers={servers} {self._phase}>"
