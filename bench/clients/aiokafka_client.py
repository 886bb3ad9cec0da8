"""aiokafka: ``await send()`` and a callback on the future that it gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

from aiokafka import AIOKafkaProducer

from bench.workload import Workload


class Client:
    """See :class:`bench.clients.BenchClient`."""

    def __init__(self, bootstrap: str, topic: str, workload: Workload) -> None:
        self.acked = 0
        self.failed: list[str] = []
        self.latencies: list[float] = []
        self._topic = topic
        self._workload = workload
        self._loop = asyncio.new_event_loop()
        self._producer = self._loop.run_until_complete(self._start(bootstrap))

    async def _start(self, bootstrap: str) -> Any:
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=self._workload.linger_ms,
            max_batch_size=self._workload.batch_size,
            compression_type=None if self._workload.codec == "none" else self._workload.codec,
        )
        await producer.start()
        return producer

    def _delivered(self, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if error is None:
            self.acked += 1
        else:
            self.failed.append(str(error))

    def _delivered_timed(self, since: float, future: asyncio.Future[Any]) -> None:
        self.latencies.append(perf_counter() - since)
        self._delivered(future)

    def send(self, blocks: Iterator[Any]) -> None:
        self._loop.run_until_complete(self._send(blocks))

    async def _send(self, blocks: Iterator[Any]) -> None:
        send, topic = self._producer.send, self._topic
        keyed = bool(self._workload.keys)
        for block in blocks:
            report: Callable[[asyncio.Future[Any]], None] = partial(self._delivered_timed, perf_counter())
            for record in block:
                future = await (send(topic, *record) if keyed else send(topic, record))
                future.add_done_callback(report)
                report = self._delivered

    def idle(self, seconds: float) -> None:
        self._loop.run_until_complete(asyncio.sleep(seconds))

    def drain(self) -> None:
        self._loop.run_until_complete(self._producer.flush())
        # flush() returns when the futures are done; their callbacks run in the loop's next turn.
        self._loop.run_until_complete(asyncio.sleep(0))

    def close(self) -> None:
        self._loop.run_until_complete(self._producer.stop())
        self._loop.close()
