"""The clients that are compared, each behind the same methods."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.workload import BLOCK, Workload


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


@dataclass(frozen=True)
class ClientSpec:
    """How a client is run and shown.

    Attributes:
        description: for people.
        module: of :mod:`bench.clients`, with a class ``Client``; empty for those that are programs.
        tool: what must be on PATH.
        arguments: of that class, besides bootstrap, topic and workload.
        package: what must be installed.
        method: the method of ``kprod.KafkaProducer`` that must exist.
        reports: whether every record has a delivery report.
        share: the part of the records that it gets, so that each takes about as long: figures are per record.
        block: how many records one call of the client takes, or come from one list.
    """

    description: str
    module: str = ""
    tool: str = ""
    arguments: dict[str, object] = field(default_factory=dict)
    package: str = ""
    method: str = ""
    reports: bool = True
    share: float = 1.0
    block: int = BLOCK


# Lists and columns are handed over in thousands.
_BULK = 1024


def _kprod(way: str, description: str, method: str, **more: Any) -> ClientSpec:
    return ClientSpec(
        description,
        "bench.clients.kprod_client",
        arguments={"way": way},
        package="kprod",
        method=method,
        **{"share": 2.0, **more},
    )


def _confluent(way: str, description: str, **more: Any) -> ClientSpec:
    return ClientSpec(
        description,
        "bench.clients.confluent_client",
        arguments={"mode": way},
        package="confluent_kafka",
        **more,
    )


SPECS: dict[str, ClientSpec] = {
    "kprod": _kprod("callback", "kprod, `send(on_delivery=)`", "send"),
    "kprod-future": _kprod("future", "kprod, `send()`, futures kept", "send", reports=False),
    "kprod-dropped": _kprod("dropped", "kprod, `send()`, futures dropped", "send", reports=False),
    "kprod-nowait": _kprod("nowait", "kprod, `send_nowait()`", "send_nowait", reports=False),
    "kprod-many": _kprod("many", "kprod, `send_many()`", "send_many", share=4.0, block=_BULK),
    "kprod-columns": _kprod("columns", "kprod, `send_columns()`", "send_columns", share=8.0, block=_BULK),
    "confluent": _confluent("report", "confluent-kafka, `produce(on_delivery=)` + `poll(0)`"),
    "confluent-noreport": _confluent(
        "noreport", "confluent-kafka, `produce()` + `poll(0)`, no callback", reports=False
    ),
    "confluent-batch": _confluent("batch", "confluent-kafka, `produce_batch(on_delivery=)`", block=_BULK),
    "confluent-o3": _confluent("report", "confluent-kafka at -O3, `produce(on_delivery=)` + `poll(0)`"),
    "confluent-o3-batch": _confluent(
        "batch", "confluent-kafka at -O3, `produce_batch(on_delivery=)`", block=_BULK
    ),
    "librdkafka": ClientSpec(
        "librdkafka in C, `rd_kafka_produce()` + `rd_kafka_poll(0)`", package="confluent_kafka"
    ),
    "kafka-python": ClientSpec(
        "kafka-python, `send().add_callback()`",
        "bench.clients.kafka_python_client",
        package="kafka",
        share=0.125,
    ),
    "aiokafka": ClientSpec(
        "aiokafka, `await send()` + `add_done_callback()`",
        "bench.clients.aiokafka_client",
        package="aiokafka",
        share=0.25,
    ),
    "franz-go": ClientSpec("franz-go, `Produce(ctx, record, promise)`", tool="go"),
    "java": ClientSpec("Java client, `send(record, callback)`", tool="java"),
    "java-perf": ClientSpec("Java client, `kafka-producer-perf-test`", tool="java"),
}
CLIENTS = tuple(SPECS)
JAVA_CLIENTS = ("java", "java-perf")
PROGRAM_CLIENTS = ("librdkafka", "franz-go")
REBUILT_CLIENTS = ("confluent-o3", "confluent-o3-batch")
BASELINE = "confluent"


def missing(name: str) -> str | None:
    """What a client lacks to be run here, None if nothing."""
    spec = SPECS[name]
    if spec.tool and shutil.which(spec.tool) is None:
        return f"no `{spec.tool}` on PATH"
    if spec.package and importlib.util.find_spec(spec.package) is None:
        return f"no package {spec.package}"
    if spec.method and not hasattr(importlib.import_module("kprod").KafkaProducer, spec.method):
        return f"this kprod has no {spec.method}()"
    return None


def make_client(name: str, bootstrap: str, topic: str, workload: Workload) -> BenchClient:
    """A Python client of this name."""
    spec = SPECS[name]
    module = importlib.import_module(spec.module)
    client: BenchClient = module.Client(bootstrap, topic, workload, **spec.arguments)
    return client
