"""confluent-kafka: ``produce()`` with ``poll(0)`` after each record as documented, or in batches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import perf_counter
from typing import Any

from confluent_kafka import Producer

from bench.workload import Workload

_QUEUE_FULL_POLL_S = 0.1


def properties(bootstrap: str, workload: Workload) -> dict[str, str | int | bool]:
    """librdkafka's, also for the loop in C."""
    return {
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": workload.linger_ms,
        "batch.size": workload.batch_size,
        "compression.type": workload.codec,
        # Of a record with its overhead; the default is 1,000,000.
        "message.max.bytes": max(1_000_000, workload.size + 4096),
        **({"queue.buffering.max.kbytes": workload.buffer_memory >> 10} if workload.buffer_memory else {}),
    }


class Client:
    """See :class:`bench.clients.BenchClient`."""

    def __init__(self, bootstrap: str, topic: str, workload: Workload, *, mode: str) -> None:
        self.acked = 0
        self.failed: list[str] = []
        self.latencies: list[float] = []
        self._topic = topic
        self._workload = workload
        self._mode = mode
        self._producer = Producer(properties(bootstrap, workload))

    def _delivered(self, error: Any, message: Any) -> None:
        if error is None:
            self.acked += 1
        else:
            self.failed.append(str(error))

    def _delivered_timed(self, since: float, error: Any, message: Any) -> None:
        self.latencies.append(perf_counter() - since)
        self._delivered(error, message)

    def send(self, blocks: Iterator[Any]) -> None:
        if self._mode == "batch":
            self._send_batches(blocks)
        elif self._mode == "noreport":
            self._send_without_reports(blocks)
        elif self._workload.keys:
            self._send_keyed(blocks)
        else:
            self._send_values(blocks)

    def _produce(self, value: bytes, key: bytes | None, **report: Any) -> None:
        """``produce()`` of one record, waiting while the client's queue is full."""
        while True:
            try:
                self._producer.produce(self._topic, value, key, **report)
                return
            except BufferError:
                self._producer.poll(_QUEUE_FULL_POLL_S)

    def _send_values(self, blocks: Iterator[Any]) -> None:
        produce, poll, topic, delivered = (
            self._producer.produce,
            self._producer.poll,
            self._topic,
            self._delivered,
        )
        for values in blocks:
            self._produce(values[0], None, on_delivery=partial(self._delivered_timed, perf_counter()))
            for value in values[1:]:
                try:
                    produce(topic, value, on_delivery=delivered)
                except BufferError:
                    self._produce(value, None, on_delivery=delivered)
                poll(0)

    def _send_keyed(self, blocks: Iterator[Any]) -> None:
        produce, poll, topic, delivered = (
            self._producer.produce,
            self._producer.poll,
            self._topic,
            self._delivered,
        )
        for pairs in blocks:
            value, key = pairs[0]
            self._produce(value, key, on_delivery=partial(self._delivered_timed, perf_counter()))
            for value, key in pairs[1:]:
                try:
                    produce(topic, value, key, on_delivery=delivered)
                except BufferError:
                    self._produce(value, key, on_delivery=delivered)
                poll(0)

    def _send_without_reports(self, blocks: Iterator[Any]) -> None:
        produce, poll, topic = self._producer.produce, self._producer.poll, self._topic
        if self._workload.keys:
            for pairs in blocks:
                for value, key in pairs:
                    try:
                        produce(topic, value, key)
                    except BufferError:
                        self._produce(value, key)
                    poll(0)
        else:
            for values in blocks:
                for value in values:
                    try:
                        produce(topic, value)
                    except BufferError:
                        self._produce(value, None)
                    poll(0)

    def _send_batches(self, blocks: Iterator[Any]) -> None:
        for block in blocks:
            messages: list[dict[str, Any]]
            if self._workload.keys:
                messages = [{"value": value, "key": key} for value, key in block]
            else:
                messages = [{"value": value} for value in block]
            messages[0]["callback"] = partial(self._delivered_timed, perf_counter())
            self._produce_batch(messages)
            self._producer.poll(0)

    def _produce_batch(self, messages: list[dict[str, Any]]) -> None:
        """``produce_batch()`` of one block; what the full queue refused is offered again."""
        while True:
            taken = self._producer.produce_batch(self._topic, messages, on_delivery=self._delivered)
            if taken == len(messages):
                return
            messages = [m for m in messages if m.pop("_error", None) is not None]
            self._producer.poll(_QUEUE_FULL_POLL_S)

    def idle(self, seconds: float) -> None:
        end = perf_counter() + seconds
        while (left := end - perf_counter()) > 0:
            self._producer.poll(left)

    def drain(self) -> None:
        left = self._producer.flush()
        if left:
            self.failed.append(f"flush() left {left} records")

    def close(self) -> None:
        self._producer.flush()
