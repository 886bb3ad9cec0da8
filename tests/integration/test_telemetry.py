"""Client telemetry on real Kafka (KIP-714): brokers with a receiver that writes every push to a file."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from kprod import errors
from kprod.metric_names import GROUPS, telemetry_name
from kprod.protocol import (
    GET_TELEMETRY_SUBSCRIPTIONS,
    ZERO_UUID,
    decode_response,
    encode_request,
)
from tests.integration.conftest import MakeProducer
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.distribution import KafkaUnavailable, ensure_distribution
from tests.kafka.readers import read_confluent
from tests.telemetry import read_payload, total

RECEIVER = Path(__file__).resolve().parents[1] / "kafka" / "java" / "FileTelemetry.java"
INTERVAL_MS = 200
SENT = ("producer.record.send.total",)


class Push(NamedTuple):
    """What a broker received."""

    client_instance_id: uuid.UUID
    terminating: bool
    metrics: bytes


class Receiver:
    """A cluster that receives clients' metrics."""

    def __init__(self, cluster: KafkaCluster, folder: Path) -> None:
        self.cluster = cluster
        self._folder = folder

    def pushes(self, client_id: str) -> list[Push]:
        """What a client pushed, in its order."""
        found = []
        for path in sorted(self._folder.glob(f"[0-9]*,{client_id},*")):
            _, _, assigned, terminating = path.name.split(",")
            found.append(Push(uuid.UUID(assigned), terminating == "true", path.read_bytes()))
        return found

    def sums(self, client_id: str, *key: str) -> float:
        """A total, from the differences that a client pushed."""
        return total((push.metrics for push in self.pushes(client_id)), *key)

    def subscribe(self, metrics: str) -> None:
        """Ask all clients for metrics, and wait until the broker does."""
        admin = KafkaAdminClient(bootstrap_servers=self.cluster.bootstrap_servers)
        try:
            config = {"metrics": metrics, "interval.ms": str(INTERVAL_MS)}
            admin.alter_configs([ConfigResource(ConfigResourceType.CLIENT_METRICS, "all", config)])
        finally:
            admin.close()
        wait_until(lambda: self._asked() == metrics.split(","), f"the broker to ask for {metrics}")

    def _asked(self) -> list[str]:
        host, port = self.cluster.address().split(":")
        request = encode_request(
            GET_TELEMETRY_SUBSCRIPTIONS, 0, 7, "asking", {"client_instance_id": ZERO_UUID}
        )
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as stream:
                frame = stream.read(int.from_bytes(stream.read(4), "big"))
        _, body = decode_response(GET_TELEMETRY_SUBSCRIPTIONS, 0, frame)
        return sorted(body["requested_metrics"])


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A cluster that asks for all metrics."""
    pushes, classes = tmp_path_factory.mktemp("pushes"), tmp_path_factory.mktemp("classes")
    try:
        distribution = ensure_distribution().with_plugin(RECEIVER, classes)
    except KafkaUnavailable as error:
        if os.environ.get("KPROD_REQUIRE_KAFKA") == "1":
            pytest.fail(f"KPROD_REQUIRE_KAFKA=1, but {error}", pytrace=False)
        pytest.skip(f"real Kafka: {error}")
    with KafkaCluster(
        distribution=distribution,
        jvm_options=[f"-Dkprod.telemetry.folder={pushes}"],
        metric_reporters="FileTelemetry",
    ) as cluster:
        cluster.create_topic("t", partitions=2)
        receiver = Receiver(cluster, pushes)
        receiver.subscribe("*")
        yield receiver


def test_the_broker_gets_what_was_sent(receiver: Receiver, make_producer: MakeProducer) -> None:
    producer = make_producer(receiver.cluster, client_id="counted", compression_type="lz4")
    producer.send_many("t", [b"v%d" % number for number in range(100)]).get(30)
    wait_until(lambda: receiver.sums("counted", *SENT) == 100, "all records in the metrics")
    for number in range(50):
        producer.send("t", b"w%d" % number)
    assigned = producer.client_instance_id(30)
    producer.close()
    pushes = receiver.pushes("counted")
    # close() has waited for the last one.
    assert [push.terminating for push in pushes] == [False] * (len(pushes) - 1) + [True]
    assert {push.client_instance_id for push in pushes} == {assigned}
    assert receiver.sums("counted", *SENT) == 150
    assert receiver.sums("counted", "producer.topic.record.send.total", "topic", "t") == 150
    assert receiver.sums("counted", "producer.record.error.total") == 0
    last = read_payload(pushes[-1].metrics)
    assert last.resource == {}
    assert last.values["producer.connection.count",].value >= 1
    assert last.values["producer.node.request.latency.max", "node_id", "node-1"].value > 0
    # What was told is what is there.
    assert len(read_confluent(receiver.cluster.bootstrap_servers, "t", expect=150)) == 150


def test_subscriptions_that_change(receiver: Receiver, make_producer: MakeProducer) -> None:
    producer = make_producer(receiver.cluster, client_id="changing", transactional_id="payments-7")
    producer.init_transactions()
    with producer.transaction():
        producer.send("t", b"v")
    wait_until(lambda: receiver.sums("changing", *SENT) == 1, "the record in the metrics")
    everything = receiver.pushes("changing")[-1]
    assert read_payload(everything.metrics).resource == {"transactional_id": "payments-7"}
    prefix = "org.apache.kafka.producer.record.send."
    try:
        receiver.subscribe(prefix)
        # The broker answers UNKNOWN_SUBSCRIPTION_ID, and is asked again.
        names = {"producer.record.send.rate", "producer.record.send.total"}
        wait_until(
            lambda: (
                {name for name, *_ in read_payload(receiver.pushes("changing")[-1].metrics).values} == names
            ),
            "a push of what is wanted now",
        )
    finally:
        receiver.subscribe("*")
    producer.close()
    assert {push.client_instance_id for push in receiver.pushes("changing")} == {
        everything.client_instance_id
    }
    assert receiver.sums("changing", *SENT) == 1


def test_names_and_labels_are_those_of_the_java_producer(
    receiver: Receiver, make_producer: MakeProducer
) -> None:
    command = receiver.cluster.distribution.tool(
        "org.apache.kafka.tools.ProducerPerformance", "--topic", "t", "--num-records", "30",
        "--record-size", "10", "--throughput", "30", "--producer-props", "client.id=java",
        f"bootstrap.servers={receiver.cluster.bootstrap_servers}",
    )  # fmt: skip
    # Java does not wait for its last push: on a slow machine it may have ended before the first.
    for _ in range(3):
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert said.returncode == 0, said.stdout + said.stderr
        if receiver.sums("java", *SENT):
            break
    producer = make_producer(receiver.cluster, client_id="python")
    producer.send_many("t", [b"v"] * 30).get(30)
    wait_until(lambda: receiver.sums("python", *SENT) == 30, "the records in the metrics")
    producer.close()

    def series(client_id: str) -> dict[tuple[str, ...], str]:
        """Name and labels, without the values of labels that differ: sum or gauge."""
        found: dict[tuple[str, ...], str] = {}
        for push in receiver.pushes(client_id):
            for (name, *labels), value in read_payload(push.metrics).values.items():
                key = (name, *labels[::2])
                found[key] = value.temporality
        return found

    java, python = series("java"), series("python")
    assert receiver.sums("java", *SENT) > 0
    print(
        sorted(set(python) - set(java)),
        sorted(set(java) - set(python)),
        {k: (python[k], java[k]) for k in python.keys() & java.keys() if python[k] != java[k]},
    )
    assert {name for name, *_ in python} == {
        telemetry_name(group, metric.name).removeprefix("org.apache.kafka.")
        for group, metrics in GROUPS.items()
        for metric in metrics
    }


def test_brokers_without_a_receiver(kafka: KafkaCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(kafka)
    with pytest.raises(errors.UnsupportedVersionError, match="no client telemetry"):
        producer.client_instance_id(30)
