"""The secure cluster of the harness: its listeners, as another client finds them."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from tests.conftest import TopicFactory
from tests.kafka.cluster import SECURE_LISTENERS, USERS, KafkaCluster
from tests.kafka.readers import read_confluent


def _settings(cluster: KafkaCluster, listener: str, mechanism: str) -> dict[str, str]:
    settings = {
        "security.protocol": SECURE_LISTENERS[listener],
        "ssl.ca.location": str(cluster.certificates.file),
    }
    if listener == "MTLS":
        settings["ssl.certificate.location"] = str(cluster.client_certificate.certificate)
        settings["ssl.key.location"] = str(cluster.client_certificate.key)
    if listener.startswith("SASL"):
        settings["sasl.mechanism"] = mechanism
        settings["sasl.username"] = "admin"
        settings["sasl.password"] = USERS["admin"]
    return settings


@pytest.mark.parametrize(
    ("listener", "mechanism"),
    [
        ("SSL", ""),
        ("MTLS", ""),
        ("SASL_PLAINTEXT", "PLAIN"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
        ("SASL_SSL", "SCRAM-SHA-512"),
    ],
)
def test_another_client_gets_through(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, listener: str, mechanism: str
) -> None:
    name = secure_topic()
    servers = kafka_secure.servers(listener)
    settings = _settings(kafka_secure, listener, mechanism)
    producer = Producer({"bootstrap.servers": servers, **settings})
    producer.produce(name, b"v")
    assert producer.flush(20) == 0
    assert [record.value for record in read_confluent(servers, name, settings=settings)] == [b"v"]
