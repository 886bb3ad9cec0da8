"""confluent-kafka's ``AIOProducer``: for asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kprod.compat.confluent_kafka.error import KafkaError, KafkaException
from kprod.compat.confluent_kafka.message import ClusterMetadata, Message
from kprod.compat.confluent_kafka.producer import DeliveryCallback, Producer

if TYPE_CHECKING:
    from typing_extensions import Self

_FULL_PAUSE_S = 0.005


class AIOProducer:
    """``await producer.produce(...)`` gives a future; awaiting that gives the delivered :class:`Message`.

    Args:
        producer_conf: librdkafka's configuration.
        max_workers: threads for the calls that block (transactions, flush), if there is no executor.
        executor: threads for them.
        batch_size, buffer_timeout: taken and without effect: records are batched by ``linger.ms`` and
            ``batch.size``, and nothing waits in Python.
    """

    def __init__(
        self,
        producer_conf: Mapping[str, Any],
        *,
        max_workers: int = 4,
        executor: concurrent.futures.Executor | None = None,
        batch_size: int = 1000,
        buffer_timeout: float = 1.0,
    ) -> None:
        self._producer = Producer(producer_conf)
        self._own_executor = executor is None
        self._executor = executor or concurrent.futures.ThreadPoolExecutor(max_workers)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def produce(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int = -1,
        on_delivery: DeliveryCallback | None = None,
        timestamp: int = 0,
        headers: Any = None,
    ) -> asyncio.Future[Message]:
        """Send a message; waits only while the queue is full.

        Args:
            topic, value, key, partition, timestamp, headers: as :meth:`Producer.produce`.
            on_delivery: called in the loop as well.

        Returns:
            A future with the Message; it raises KafkaException when the message was not delivered.
        """
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[Message] = loop.create_future()

        def decided(error: KafkaError | None, message: Message) -> None:
            if on_delivery is not None:
                on_delivery(error, message)
            if delivered.done():
                return
            if error is None:
                delivered.set_result(message)
            else:
                delivered.set_exception(KafkaException(error))

        self._serve_reports(loop)
        while True:
            try:
                self._producer.produce(topic, value, key, partition, decided, None, timestamp, headers)
                return delivered
            except BufferError:
                await asyncio.sleep(_FULL_PAUSE_S)

    def _serve_reports(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let reports reach the loop: one wake-up serves all that have come."""
        if self._loop is loop:
            return
        self._loop = loop
        reports = self._producer._reports
        reports.on_arrival = functools.partial(_wake, loop, reports.serve)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, functools.partial(function, *arguments)
        )

    async def flush(self, timeout: float = -1) -> int:
        """Send everything now and wait for it; returns how many messages are left."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout < 0 else loop.time() + timeout
        while left := len(self._producer):
            if deadline is not None and loop.time() >= deadline:
                return left
            self._producer._kick()
            self._producer._reports.serve()
            await asyncio.sleep(_FULL_PAUSE_S)
        return 0

    async def poll(self, timeout: float = 0) -> int:
        """Run the callbacks that are due; they run by themselves, too."""
        return self._producer._reports.serve()

    async def purge(self, in_queue: bool = True, in_flight: bool = True, blocking: bool = True) -> None:
        """As :meth:`Producer.purge`."""
        self._producer.purge(in_queue, in_flight, blocking)

    async def list_topics(self, topic: str | None = None, timeout: float = -1) -> ClusterMetadata:
        """As :meth:`Producer.list_topics`."""
        described: ClusterMetadata = await self._in_thread(self._producer.list_topics, topic, timeout)
        return described

    async def init_transactions(self, timeout: float = -1) -> None:
        """As :meth:`Producer.init_transactions`."""
        await self._in_thread(self._producer.init_transactions, timeout)

    async def begin_transaction(self) -> None:
        """As :meth:`Producer.begin_transaction`."""
        self._producer.begin_transaction()

    async def send_offsets_to_transaction(
        self, positions: Any, group_metadata: Any, timeout: float = -1
    ) -> None:
        """As :meth:`Producer.send_offsets_to_transaction`."""
        await self.flush(timeout)
        await self._in_thread(self._producer.send_offsets_to_transaction, positions, group_metadata, timeout)

    async def commit_transaction(self, timeout: float = -1) -> None:
        """As :meth:`Producer.commit_transaction`."""
        await self.flush(timeout)
        await self._in_thread(self._producer.commit_transaction, timeout)

    async def abort_transaction(self, timeout: float = -1) -> None:
        """As :meth:`Producer.abort_transaction`."""
        await self._in_thread(self._producer.abort_transaction, timeout)

    async def set_sasl_credentials(self, username: str, password: str) -> None:
        """As :meth:`Producer.set_sasl_credentials`."""
        self._producer.set_sasl_credentials(username, password)

    async def close(self) -> None:
        """Deliver what was accepted and stop."""
        await self.flush()
        await self._in_thread(self._producer.close)
        if self._own_executor:
            self._executor.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __len__(self) -> int:
        return len(self._producer)


def _wake(loop: asyncio.AbstractEventLoop, serve: Callable[[], int]) -> None:
    try:
        loop.call_soon_threadsafe(serve)
    except RuntimeError:  # the loop was closed: nobody waits for the reports any more
        pass
