"""kafka-python: ``send()`` and a callback on its future."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter, sleep
from typing import Any

from kafka import KafkaProducer

from bench.workload import Workload


class Client:
    """See :class:`bench.clients.BenchClient`."""

    def __init__(self, bootstrap: str, topic: str, workload: Workload) -> None:
        self.acked = 0
        self.failed: list[str] = []
        self.latencies: list[float] = []
        self._topic = topic
        self._workload = workload
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=workload.linger_ms,
            batch_size=workload.batch_size,
            compression_type=None if workload.codec == "none" else workload.codec,
        )

    def _delivered(self, metadata: Any) -> None:
        self.acked += 1

    def _delivered_timed(self, since: float, metadata: Any) -> None:
        self.latencies.append(perf_counter() - since)
        self.acked += 1

    def _lost(self, error: BaseException) -> None:
        self.failed.append(str(error))

    def send(self, blocks: Iterator[Any]) -> None:
        send, topic = self._producer.send, self._topic
        keyed = bool(self._workload.keys)
        for block in blocks:
            report: Callable[[Any], None] = partial(self._delivered_timed, perf_counter())
            for record in block:
                future = send(topic, *record) if keyed else send(topic, record)
                future.add_callback(report).add_errback(self._lost)
                report = self._delivered

    def idle(self, seconds: float) -> None:
        sleep(seconds)

    def drain(self) -> None:
        self._producer.flush()

    def close(self) -> None:
        self._producer.close()
