"""One record at a time with one client, in a process of its own: ``python -m bench.round_trips``.

Reads a JSON line (client, bootstrap, topic, count, seconds, busy, pause_s, cpus), prints a JSON line
(:class:`RoundTrips`). Each record is sent when the one before is acknowledged; linger 0, acks=1.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from time import perf_counter, sleep, time
from typing import Any

from bench.measure import Spinner
from bench.workload import Workload

_WARMUP = 300
_TIMEOUT_S = 30.0

CLIENTS = ("kprod", "confluent", "confluent-o3", "kafka-python", "aiokafka", "socket")
DESCRIPTION = {
    "kprod": "kprod, `send().get()`",
    "confluent": "confluent-kafka, `produce(on_delivery=)` + `poll()`",
    "confluent-o3": "confluent-kafka at -O3, the same",
    "kafka-python": "kafka-python, `send().get()`",
    "aiokafka": "aiokafka, `await send_and_wait()`",
    "socket": "bare socket: `sendall()`, `recv_into()`",
}

RoundTrip = Callable[[bytes], None]


@dataclass(frozen=True)
class RoundTrips:
    """What was measured.

    Attributes:
        latencies_us: from the call that sends to the one that has the acknowledgement, of each record.
        engine_us: the mean time from the opening of a record's batch to the broker's answer, by the clock of
            kprod's network thread; None for the others.
        cpu_us: CPU time per record, the spinning thread's left out.
    """

    latencies_us: list[float]
    engine_us: float | None
    cpu_us: float


@contextmanager
def _kprod(bootstrap: str, topic: str) -> Iterator[RoundTrip]:
    from kprod import KafkaProducer

    with KafkaProducer(bootstrap_servers=bootstrap, acks=1, linger_ms=0) as producer:

        def send(value: bytes) -> None:
            producer.send(topic, value).get(_TIMEOUT_S)

        send.metrics = producer.metrics  # type: ignore[attr-defined]
        yield send


@contextmanager
def _confluent(bootstrap: str, topic: str) -> Iterator[RoundTrip]:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "acks": 1, "linger.ms": 0})
    reports: list[Any] = []

    def delivered(error: Any, message: Any) -> None:
        reports.append(error)

    def send(value: bytes) -> None:
        producer.produce(topic, value, on_delivery=delivered)
        while not reports:
            producer.poll(_TIMEOUT_S)
        if reports.pop() is not None:
            raise RuntimeError("confluent-kafka could not deliver a record")

    yield send
    producer.flush()


@contextmanager
def _kafka_python(bootstrap: str, topic: str) -> Iterator[RoundTrip]:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap, acks=1, linger_ms=0, enable_idempotence=False)

    def send(value: bytes) -> None:
        producer.send(topic, value).get(_TIMEOUT_S)

    yield send
    producer.close()


@contextmanager
def _aiokafka(bootstrap: str, topic: str) -> Iterator[RoundTrip]:
    from aiokafka import AIOKafkaProducer

    loop = asyncio.new_event_loop()

    async def start() -> Any:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks=1, linger_ms=0)
        await producer.start()
        return producer

    producer = loop.run_until_complete(start())

    def send(value: bytes) -> None:
        loop.run_until_complete(producer.send_and_wait(topic, value))

    yield send
    loop.run_until_complete(producer.stop())
    loop.close()


@contextmanager
def _socket(bootstrap: str, topic: str) -> Iterator[RoundTrip]:
    """The least a Python program can do: the bytes of one request, made before, over a blocking socket."""
    host, port = bootstrap.split(",")[0].rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), _TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(None)
    made: dict[bytes, bytes] = {}
    buffer = memoryview(bytearray(4096))
    # Answer of version 7: length, correlation, 1 topic, its name, 1 partition, its index, the error code.
    error_at = 4 + 4 + 4 + 2 + len(topic) + 4 + 4

    def send(value: bytes) -> None:
        request = made.get(value)
        if request is None:
            request = made[value] = _produce_request(topic, value)
        connection.sendall(request)
        have = connection.recv_into(buffer)
        while have < 4 or have < 4 + int.from_bytes(buffer[:4], "big"):
            got = connection.recv_into(buffer[have:])
            if not got:
                raise RuntimeError("the broker closed the connection")
            have += got
        if buffer[error_at] or buffer[error_at + 1]:
            raise RuntimeError(f"the broker answered with error {buffer[error_at + 1]}")

    with connection:
        yield send


def _produce_request(topic: str, value: bytes) -> bytes:
    """Produce version 7, acks=1, one record for partition 0."""
    from kprod._core.record_batch import RecordBatchBuilder

    builder = RecordBatchBuilder(0, 0)
    builder.append(None, value, None, int(time() * 1000))
    batch = bytes(builder.build())
    name = topic.encode()
    body = struct.pack(">hhih6s", 0, 7, 1, 6, b"socket")
    body += struct.pack(">hhiih", -1, 1, 30_000, 1, len(name)) + name
    body += struct.pack(">iii", 1, 0, len(batch)) + batch
    return struct.pack(">i", len(body)) + body


_WAYS: dict[str, Callable[[str, str], AbstractContextManager[RoundTrip]]] = {
    "kprod": _kprod,
    "confluent": _confluent,
    "confluent-o3": _confluent,
    "kafka-python": _kafka_python,
    "aiokafka": _aiokafka,
    "socket": _socket,
}


def _engine_times(send: RoundTrip) -> tuple[int, int, int, int] | None:
    metrics = getattr(send, "metrics", None)
    if metrics is None:
        return None
    counters = metrics(raw=True)
    brokers = counters["brokers"].values()
    return (
        counters["loop"]["queue_time_us"],
        counters["loop"]["batches_sent"],
        sum(broker["latency_sum_us"] for broker in brokers),
        sum(broker["latency_count"] for broker in brokers),
    )


def measure(
    client: str, bootstrap: str, topic: str, count: int, seconds: float, size: int, busy: bool, pause_s: float
) -> RoundTrips:
    """Send up to ``count`` records for up to ``seconds``, while a thread spins if ``busy``, with pauses."""
    values = Workload(records=1, warmup=1, size=size).values[0]
    latencies = []
    with _WAYS[client](bootstrap, topic) as send:
        for i in range(_WARMUP):
            send(values[i % len(values)])
        spinner = Spinner() if busy else None
        engine_before, cpu_before = _engine_times(send), _cpu_seconds(spinner)
        end = perf_counter() + seconds
        for i in range(count):
            value = values[i % len(values)]
            start = perf_counter()
            send(value)
            now = perf_counter()
            latencies.append(now - start)
            if now > end:
                break
            if pause_s:
                sleep(pause_s)
        cpu_after, engine_after = _cpu_seconds(spinner), _engine_times(send)
        if spinner is not None:
            spinner.stop()
    engine = None
    if engine_before is not None and engine_after is not None:
        queue, batches, waited, answers = (b - a for a, b in zip(engine_before, engine_after, strict=True))
        engine = queue / batches + waited / answers
    return RoundTrips(
        [round(seconds * 1e6, 1) for seconds in latencies],
        engine,
        (cpu_after - cpu_before) / len(latencies) * 1e6,
    )


def _cpu_seconds(spinner: Spinner | None) -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime - (spinner.cpu_seconds if spinner else 0.0)


if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    cpus = asked.pop("cpus")
    if cpus:
        os.sched_setaffinity(0, cpus)
    print(json.dumps(asdict(measure(**asked))))
