"""The clients that are compared, each behind the same methods."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, Protocol

from bench.workload import Workload


class BenchClient(Protocol):
    """A producer under measurement.

    ``send`` hands over blocks of values (of value and key if the workload has keys) and returns when the
    client has taken them; ``idle`` passes the seconds until the next block as users of the client do;
    ``drain`` returns when all is acknowledged. ``acked`` and ``failed`` count delivery reports where the
    client is asked for them; ``latencies`` holds the seconds from handing over to report of the first record
    of each block.
    """

    acked: int
    failed: list[str]
    latencies: list[float]

    def send(self, blocks: Iterator[Any]) -> None: ...

    def idle(self, seconds: float) -> None: ...

    def drain(self) -> None: ...

    def close(self) -> None: ...


# name -> module, class, constructor's extra arguments, whether every record has a delivery report
_PYTHON_CLIENTS: dict[str, tuple[str, dict[str, object], bool]] = {
    "kprod": ("bench.clients.kprod_client", {"reports": True}, True),
    "kprod-noreport": ("bench.clients.kprod_client", {"reports": False}, False),
    "confluent": ("bench.clients.confluent_client", {"mode": "report"}, True),
    "confluent-noreport": ("bench.clients.confluent_client", {"mode": "noreport"}, False),
    "confluent-batch": ("bench.clients.confluent_client", {"mode": "batch"}, True),
    "kafka-python": ("bench.clients.kafka_python_client", {}, True),
    "aiokafka": ("bench.clients.aiokafka_client", {}, True),
}
JAVA_CLIENTS = ("java", "java-perf")
CLIENTS = (*_PYTHON_CLIENTS, *JAVA_CLIENTS)
BASELINE = "confluent"

# These take many times as long; by default they get a part of the records (figures are per record).
SLOW = {"kafka-python": 8, "aiokafka": 4}

DESCRIPTION = {
    "kprod": "kprod, `send(on_delivery=)`",
    "kprod-noreport": "kprod, `send()`, futures dropped",
    "confluent": "confluent-kafka, `produce(on_delivery=)` + `poll(0)`",
    "confluent-noreport": "confluent-kafka, `produce()` + `poll(0)`, no callback",
    "confluent-batch": "confluent-kafka, `produce_batch(on_delivery=)`",
    "kafka-python": "kafka-python, `send().add_callback()`",
    "aiokafka": "aiokafka, `await send()` + `add_done_callback()`",
    "java": "Java client, `send(record, callback)`",
    "java-perf": "Java client, `kafka-producer-perf-test`",
}


def counts_reports(name: str) -> bool:
    """Whether this client is asked for a delivery report of each record."""
    return name in JAVA_CLIENTS or _PYTHON_CLIENTS[name][2]


def make_client(name: str, bootstrap: str, topic: str, workload: Workload) -> BenchClient:
    """A Python client of this name, connected to nothing yet or to ``bootstrap``."""
    module, arguments, _ = _PYTHON_CLIENTS[name]
    client: BenchClient = importlib.import_module(module).Client(bootstrap, topic, workload, **arguments)
    return client
