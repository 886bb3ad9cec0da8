"""Client telemetry against the mock cluster (KIP-714), and the mock cluster against librdkafka."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

import kprod
from kprod import errors
from kprod.aio import AsyncKafkaProducer
from kprod.testing import MockCluster, MockTelemetryPush
from tests.mock.conftest import Eventually, MakeCluster, MakeProducer
from tests.telemetry import read_payload, total

SENT = ("producer.record.send.total",)

INTERVAL_MS = 100
"""Kafka's least."""


@pytest.fixture
def asking(make_cluster: MakeCluster) -> MockCluster:
    """A cluster that asks for all metrics, as often as can be."""
    cluster = make_cluster()
    cluster.create_topic("t")
    cluster.subscribe_to_metrics(push_interval_ms=INTERVAL_MS)
    return cluster


def sums(pushes: list[MockTelemetryPush], *key: str) -> float:
    return total((push.metrics for push in pushes), *key)


def test_metrics_are_pushed_until_the_end(
    asking: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(asking, client_id="pushing", client_rack="r1")
    for _ in range(7):
        producer.send("t", b"v")
    producer.flush()
    eventually(lambda: sums(asking.telemetry_pushes, *SENT) == 7)
    assigned = producer.client_instance_id(10)
    assert isinstance(assigned, uuid.UUID) and assigned.int
    pushes = asking.telemetry_pushes
    eventually(lambda: len(asking.telemetry_pushes) > len(pushes))
    for _ in range(3):
        producer.send("t", b"v")
    producer.close()
    pushes = asking.telemetry_pushes
    assert [push.terminating for push in pushes] == [False] * (len(pushes) - 1) + [True]
    # The last push is after the last record.
    assert sums(pushes, *SENT) == 10
    assert sums(pushes, "producer.topic.record.send.total", "topic", "t") == 10
    assert {(push.client_id, push.client_instance_id) for push in pushes} == {("pushing", assigned)}
    assert {push.compression for push in pushes} == {"zstd"}
    last = read_payload(pushes[-1].metrics)
    # KIP-714: the broker knows the client id by itself.
    assert last.resource == {"client_rack": "r1"}
    names = {name for name, *_ in last.values}
    assert {"producer.record.queue.time.avg", "producer.node.request.latency.max"} <= names
    assert ("producer.node.request.total", "node_id", "node-1") in last.values
    assert last.values["producer.connection.creation.total",].temporality == "delta"
    assert last.values["producer.record.send.rate",].temporality == ""
    # The broker that was asked is the one that is told, and subscriptions are asked for once.
    assert len(asking.requests_of("GetTelemetrySubscriptions")) == 1
    refused = [r for r in asking.requests_of("PushTelemetry") if r.body["metrics"] == 0]
    assert refused == [] and len(asking.requests_of("PushTelemetry")) == len(pushes)
    intervals = [r.time for r in asking.requests_of("PushTelemetry")[:-1]]
    assert all(b - a >= 0.9 * INTERVAL_MS / 1000 for a, b in itertools.pairwise(intervals))


def test_what_brokers_ask_for(
    asking: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    asking.subscribe_to_metrics(
        ["org.apache.kafka.producer.record.send."],
        push_interval_ms=INTERVAL_MS,
        compression=["gzip"],
        delta_temporality=False,
    )
    producer = make_producer(asking, transactional_id="payments-1")
    producer.init_transactions()
    with producer.transaction():
        producer.send("t", b"v")
    eventually(lambda: any(read_payload(p.metrics).values[SENT].value == 1 for p in asking.telemetry_pushes))
    push = asking.telemetry_pushes[-1]
    payload = read_payload(push.metrics)
    assert push.compression == "gzip"
    assert payload.resource == {"transactional_id": "payments-1"}
    assert {name for name, *_ in payload.values} == {
        "producer.record.send.rate",
        "producer.record.send.total",
    }
    assert payload.values[SENT].temporality == "cumulative"
    # A new subscription reaches clients that have one; the next payload begins anew.
    asking.subscribe_to_metrics([""], push_interval_ms=INTERVAL_MS, compression=[])
    eventually(lambda: asking.telemetry_pushes[-1].subscription_id != push.subscription_id)
    latest = next(p for p in asking.telemetry_pushes if p.subscription_id != push.subscription_id)
    assert latest.compression == "none"
    assert latest.client_instance_id == push.client_instance_id
    assert read_payload(latest.metrics).values[SENT][:2] == (1, "delta")
    asking.subscribe_to_metrics([], push_interval_ms=INTERVAL_MS)
    before = len(asking.requests_of("GetTelemetrySubscriptions"))
    eventually(lambda: len(asking.requests_of("GetTelemetrySubscriptions")) >= before + 3)
    assert producer.client_instance_id(10) == push.client_instance_id


def test_brokers_without_a_receiver_cost_nothing(
    cluster: MockCluster, make_producer: MakeProducer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "kprod.engine"):
        producer = make_producer()
        producer.send("t", b"v").get(10)
        with pytest.raises(errors.UnsupportedVersionError, match=r"3\.7 or newer with a reporter in"):
            producer.client_instance_id(30)
        cluster.disconnect_clients()
        producer.send("t", b"v").get(10)
        producer.close()
    assert {r.api for r in cluster.requests} <= {"ApiVersions", "Metadata", "InitProducerId", "Produce"}
    assert sum("no client telemetry" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("option", ["enable_metrics_push", "metrics_enabled"])
def test_switched_off(asking: MockCluster, make_producer: MakeProducer, option: str) -> None:
    producer = make_producer(asking, **{option: False})
    producer.send("t", b"v").get(10)
    with pytest.raises(errors.IllegalStateError, match=f"needs {option}=True"):
        producer.client_instance_id(30)
    producer.close()
    assert not asking.requests_of("GetTelemetrySubscriptions")


def test_client_instance_id_that_does_not_come(asking: MockCluster, make_producer: MakeProducer) -> None:
    with pytest.raises(ValueError, match="timeout must be >= 0"):
        make_producer(asking).client_instance_id(-1)
    fault = asking.inject("GetTelemetrySubscriptions", error="THROTTLING_QUOTA_EXCEEDED", times=None)
    producer = make_producer(asking)
    with pytest.raises(errors.KafkaTimeoutError, match=r"no broker assigned .* within 0\.05 s"):
        producer.client_instance_id(0.05)
    fault.remove()
    asking.inject("GetTelemetrySubscriptions", error="CLUSTER_AUTHORIZATION_FAILED", times=None)
    refused = make_producer(asking)
    with pytest.raises(errors.IllegalStateError, match="the broker answers CLUSTER_AUTHORIZATION_FAILED"):
        refused.client_instance_id(30)
    refused.send("t", b"v").get(10)
    refused.close()
    with pytest.raises(errors.ProducerClosedError):
        refused.client_instance_id(30)


@pytest.mark.parametrize("fault", [{"close_connection": "before"}, {"error": "UNKNOWN_SUBSCRIPTION_ID"}])
@pytest.mark.parametrize("api", ["GetTelemetrySubscriptions", "PushTelemetry"])
def test_it_goes_on_after_faults(
    asking: MockCluster, make_producer: MakeProducer, eventually: Eventually, api: str, fault: dict[str, Any]
) -> None:
    hit = asking.inject(api, times=2, **fault)
    producer = make_producer(asking)
    producer.send("t", b"v").get(10)
    eventually(lambda: hit.hits == 2 and asking.telemetry_pushes)
    producer.send("t", b"v").get(10)
    producer.close()
    assert asking.count("t") == 2
    assert asking.telemetry_pushes[-1].terminating


def test_another_broker_is_told_when_one_is_lost(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster = make_cluster(3)
    cluster.create_topic("t", 3, 3)
    cluster.subscribe_to_metrics(push_interval_ms=INTERVAL_MS)
    producer = make_producer(cluster)
    for number in range(3):
        producer.send("t", b"v", partition=number)
    producer.flush()
    eventually(lambda: len(cluster.telemetry_pushes) >= 2)
    assigned = producer.client_instance_id(10)
    told = cluster.telemetry_pushes[-1].node
    cluster.stop_broker(told)
    eventually(lambda: cluster.telemetry_pushes[-1].node != told)
    assert cluster.telemetry_pushes[-1].client_instance_id == assigned == producer.client_instance_id(0)


def test_a_producer_without_records_connects_again_to_push(
    asking: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    make_producer(asking)
    eventually(lambda: asking.telemetry_pushes)
    asking.disconnect_clients()
    before = len(asking.telemetry_pushes)
    eventually(lambda: len(asking.telemetry_pushes) >= before + 2)


def test_payloads_that_are_too_large(
    asking: MockCluster,
    make_producer: MakeProducer,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asking.subscribe_to_metrics(push_interval_ms=INTERVAL_MS, max_bytes=300, compression=[])
    with caplog.at_level(logging.DEBUG, "kprod.engine"):
        producer = make_producer(asking)
        eventually(lambda: "the metrics take more than the 300 bytes" in caplog.text)
    producer.send("t", b"v").get(10)
    # The broker says so as well, to whom does not know by itself.
    refused = asking.inject("PushTelemetry", error="TELEMETRY_TOO_LARGE")
    asking.subscribe_to_metrics(["org.apache.kafka.producer.record.send.total"], push_interval_ms=INTERVAL_MS)
    eventually(lambda: refused.hits and sums(asking.telemetry_pushes, *SENT) == 1)


@pytest.mark.parametrize("trouble", ["unreachable", "gone"])
def test_close_does_not_wait_long_for_the_last_push(
    asking: MockCluster, make_producer: MakeProducer, eventually: Eventually, trouble: str
) -> None:
    producer = make_producer(asking)
    producer.send("t", b"v").get(10)
    eventually(lambda: asking.telemetry_pushes)
    if trouble == "unreachable":
        asking.set_unreachable(1)
    else:
        asking.stop_broker(1)
        eventually(lambda: not producer.bootstrap_connected())
    began = time.monotonic()
    producer.close()
    # One second, and the time of a busy machine.
    assert time.monotonic() - began < 6
    asking.set_unreachable(1, False)


def test_close_at_once_pushes_nothing(
    asking: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(asking)
    eventually(lambda: asking.telemetry_pushes)
    producer.close(timeout=0)
    assert not any(request.body["terminating"] for request in asking.requests_of("PushTelemetry"))


def test_what_goes_wrong_inside_harms_no_record(
    asking: MockCluster,
    make_producer: MakeProducer,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("kprod.telemetry.collector.Collector.collect", fail)
    producer = make_producer(asking)
    eventually(lambda: "unexpected error in client telemetry" in caplog.text)
    producer.send("t", b"v").get(10)
    producer.close()
    assert caplog.text.count("unexpected error") == 1


def test_telemetry_that_cannot_begin_harms_no_record(
    asking: MockCluster,
    make_producer: MakeProducer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("kprod.engine.telemetry.Telemetry.__init__", fail)
    producer = make_producer(asking)
    producer.send("t", b"v").get(10)
    producer.close()
    assert "no client telemetry" in caplog.text


def test_secrets_are_not_pushed(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster = make_cluster(sasl_users={"alice-the-user": "s3cr3t-passw0rd"}, sasl_mechanisms=["PLAIN"])
    cluster.subscribe_to_metrics(push_interval_ms=INTERVAL_MS, compression=[])
    producer = make_producer(
        cluster,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_plain_username="alice-the-user",
        sasl_plain_password="s3cr3t-passw0rd",
    )
    producer.send("t", b"the value", key=b"the key").get(10)
    eventually(lambda: len(cluster.telemetry_pushes) >= 2)
    pushed = b"".join(push.metrics for push in cluster.telemetry_pushes)
    assert len(pushed) > 1000 and b"record.send.total" in pushed
    for secret in (b"alice-the-user", b"s3cr3t-passw0rd", b"the value", b"the key", b"127.0.0.1"):
        assert secret not in pushed


def test_asyncio(asking: MockCluster) -> None:
    async def run() -> uuid.UUID:
        async with AsyncKafkaProducer(bootstrap_servers=asking.bootstrap_servers) as producer:
            await producer.send_and_wait("t", b"v")
            return await producer.client_instance_id(10)

    assigned = asyncio.run(run())
    assert assigned.int


def test_options_of_other_clients(asking: MockCluster) -> None:
    from kprod.compat.confluent_kafka import Producer

    options = {"bootstrap.servers": asking.bootstrap_servers, "enable.metrics.push": False}
    producer = Producer(options)
    producer.produce("t", b"v")
    producer.flush(10)
    assert not asking.requests_of("GetTelemetrySubscriptions")
    assert kprod.KafkaProducer.DEFAULT_CONFIG["enable_metrics_push"] is True


def test_the_mock_cluster_takes_no_nonsense(asking: MockCluster) -> None:
    with pytest.raises(ValueError, match="push_interval_ms must be at least 100"):
        asking.subscribe_to_metrics(push_interval_ms=99)
    with pytest.raises(ValueError, match="compression may have zstd, lz4, gzip, snappy, not 'brotli'"):
        asking.subscribe_to_metrics(compression=["zstd", "brotli"])


@pytest.mark.parametrize("process", [False, True])
def test_librdkafka_pushes_to_the_mock_cluster(
    make_cluster: MakeCluster, eventually: Callable[[Callable[[], object]], None], process: bool
) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    cluster = make_cluster(process=process)
    cluster.create_topic("t")
    cluster.subscribe_to_metrics(push_interval_ms=INTERVAL_MS)
    problems: list[object] = []
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "client.id": "librdkafka",
            "error_cb": problems.append,
            "log_level": 0,
        }
    )
    producer.produce("t", json.dumps({"a": 1}))
    assert producer.flush(10) == 0
    eventually(lambda: len(cluster.telemetry_pushes) >= 2)
    # librdkafka makes no last push while one is under way. This answer comes after that one's.
    producer.produce("t", b"{}")
    assert producer.flush(10) == 0
    del producer
    eventually(lambda: cluster.telemetry_pushes[-1].terminating)
    pushes = cluster.telemetry_pushes
    assert {(push.client_id, push.compression) for push in pushes} <= {
        ("librdkafka", "zstd"),
        ("librdkafka", "none"),
    }
    assert len({push.client_instance_id for push in pushes}) == 1
    values = read_payload(pushes[-1].metrics).values
    assert values["producer.connection.creation.total",].temporality == "delta"
    assert ("producer.produce.throttle.time.max",) in values
    assert problems == []
