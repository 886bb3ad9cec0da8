"""kprod: ``send()`` with a delivery callback that counts, or without."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import perf_counter, sleep
from typing import Any

from bench.workload import Workload
from kprod import KafkaProducer, RecordMetadata


class Client:
    """See :class:`bench.clients.BenchClient`."""

    def __init__(self, bootstrap: str, topic: str, workload: Workload, *, reports: bool) -> None:
        self.acked = 0
        self.failed: list[str] = []
        self.latencies: list[float] = []
        self._topic = topic
        self._workload = workload
        self._reports = reports
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=workload.linger_ms,
            batch_size=workload.batch_size,
            compression_type=workload.codec,
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

    def send(self, blocks: Iterator[Any]) -> None:
        if not self._reports:
            self._send_without_reports(blocks)
        elif self._workload.keys:
            self._send_keyed(blocks)
        else:
            self._send_values(blocks)

    def _send_values(self, blocks: Iterator[Any]) -> None:
        send, topic, delivered = self._producer.send, self._topic, self._delivered
        for values in blocks:
            send(topic, values[0], on_delivery=partial(self._delivered_timed, perf_counter()))
            for value in values[1:]:
                send(topic, value, on_delivery=delivered)

    def _send_keyed(self, blocks: Iterator[Any]) -> None:
        send, topic, delivered = self._producer.send, self._topic, self._delivered
        for pairs in blocks:
            value, key = pairs[0]
            send(topic, value, key, on_delivery=partial(self._delivered_timed, perf_counter()))
            for value, key in pairs[1:]:
                send(topic, value, key, on_delivery=delivered)

    def _send_without_reports(self, blocks: Iterator[Any]) -> None:
        send, topic = self._producer.send, self._topic
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

    def close(self) -> None:
        self._producer.close()
