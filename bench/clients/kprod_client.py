"""kprod: each way of handing records over."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from time import perf_counter, sleep
from typing import Any

from bench.workload import Workload
from kprod import BulkDeliveryFuture, DeliveryFuture, KafkaProducer, RecordMetadata


class Client:
    """See :class:`bench.clients.BenchClient`."""

    def __init__(self, bootstrap: str, topic: str, workload: Workload, *, way: str) -> None:
        self.acked = 0
        self.failed: list[str] = []
        self.latencies: list[float] = []
        self._topic = topic
        self._workload = workload
        self._made: dict[int, list[tuple[bytes, array[int]]]] = {}
        self._futures: list[DeliveryFuture] = []
        self.send = getattr(self, f"_{way}_keyed" if workload.keys else f"_{way}")
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=workload.linger_ms,
            batch_size=workload.batch_size,
            compression_type=workload.codec,
            **({"buffer_memory": workload.buffer_memory} if workload.buffer_memory else {}),
        )

    def _delivered(self, error: Exception | None, metadata: RecordMetadata | None) -> None:
        if error is None:
            self.acked += 1
        else:
            self.failed.append(str(error))

    def _delivered_timed(
        self, since: float, error: Exception | None, metadata: RecordMetadata | None
    ) -> None:
        self.latencies.append(perf_counter() - since)
        self._delivered(error, metadata)

    def _callback(self, blocks: Iterator[Any]) -> None:
        send, topic, delivered = self._producer.send, self._topic, self._delivered
        for values in blocks:
            send(topic, values[0], on_delivery=partial(self._delivered_timed, perf_counter()))
            for value in values[1:]:
                send(topic, value, on_delivery=delivered)

    def _callback_keyed(self, blocks: Iterator[Any]) -> None:
        send, topic, delivered = self._producer.send, self._topic, self._delivered
        for pairs in blocks:
            value, key = pairs[0]
            send(topic, value, key, on_delivery=partial(self._delivered_timed, perf_counter()))
            for value, key in pairs[1:]:
                send(topic, value, key, on_delivery=delivered)

    def _future(self, blocks: Iterator[Any]) -> None:
        send, topic = self._producer.send, self._topic
        for values in blocks:
            self._futures = [send(topic, value) for value in values]

    def _future_keyed(self, blocks: Iterator[Any]) -> None:
        send, topic = self._producer.send, self._topic
        for pairs in blocks:
            self._futures = [send(topic, value, key) for value, key in pairs]

    def _dropped(self, blocks: Iterator[Any]) -> None:
        self._drop(self._producer.send, blocks)

    _dropped_keyed = _dropped

    def _nowait(self, blocks: Iterator[Any]) -> None:
        self._drop(self._producer.send_nowait, blocks)

    _nowait_keyed = _nowait

    def _many(self, blocks: Iterator[Any]) -> None:
        send_many, topic = self._producer.send_many, self._topic
        for values in blocks:
            self._bulk(send_many(topic, values))

    def _many_keyed(self, blocks: Iterator[Any]) -> None:
        send_many, topic = self._producer.send_many, self._topic
        for pairs in blocks:
            self._bulk(send_many(topic, [value for value, _ in pairs], [key for _, key in pairs]))

    def _columns(self, blocks: Iterator[Any]) -> None:
        send_columns, topic = self._producer.send_columns, self._topic
        for values in blocks:
            self._bulk(send_columns(topic, *self._column_parts(values, 1)))

    def _columns_keyed(self, blocks: Iterator[Any]) -> None:
        send_columns, topic = self._producer.send_columns, self._topic
        for pairs in blocks:
            self._bulk(send_columns(topic, *self._column_parts(pairs, 2)))

    def _column_parts(self, block: list[Any], parts: int) -> list[tuple[bytes, array[int]]]:
        """A block as Arrow has it, bytes and offsets; made once, in the warm-up: this is how it comes."""
        made = self._made.get(id(block))
        if made is None:
            made = self._made[id(block)] = []
            for column in [block] if parts == 1 else zip(*block, strict=True):
                made.append((b"".join(column), array("i", accumulate(map(len, column), initial=0))))
        return made

    def _bulk(self, future: BulkDeliveryFuture) -> None:
        future.add_done_callback(partial(self._delivered_bulk, perf_counter()))

    def _delivered_bulk(self, since: float, future: BulkDeliveryFuture) -> None:
        self.latencies.append(perf_counter() - since)
        self.acked += future.acked_count
        if future.failed_count:
            self.failed.append(str(future.exception))

    def _drop(self, send: Callable[..., Any], blocks: Iterator[Any]) -> None:
        topic = self._topic
        if self._workload.keys:
            for pairs in blocks:
                for value, key in pairs:
                    send(topic, value, key)
        else:
            for values in blocks:
                for value in values:
                    send(topic, value)

    def idle(self, seconds: float) -> None:
        sleep(seconds)

    def drain(self) -> None:
        self._producer.flush()
        for future in self._futures:
            future.get(0)

    def close(self) -> None:
        self._producer.close()
