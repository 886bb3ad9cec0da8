"""What confluent-kafka's conftest gives its tests, with a broker that is there instead of one it installs."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.compat.suite import BOOTSTRAP_VARIABLE
else:
    from suite import BOOTSTRAP_VARIABLE


class Cluster:
    """The methods of confluent-kafka's ``KafkaClusterFixture`` that its producer tests call."""

    def client_conf(self, conf: dict[str, Any] | None = None) -> dict[str, Any]:
        """A client's configuration."""
        return {"bootstrap.servers": os.environ[BOOTSTRAP_VARIABLE], **(conf or {})}

    def cimpl_producer(self, conf: dict[str, Any] | None = None) -> Any:
        """A Producer: the one that was put in."""
        import confluent_kafka

        return confluent_kafka.Producer(self.client_conf(conf))

    def producer(self, conf: dict[str, Any] | None = None) -> Any:
        """A SerializingProducer: the one that was put in."""
        import confluent_kafka

        return confluent_kafka.SerializingProducer(self.client_conf(conf))

    def create_topic_and_wait_propogation(self, prefix: str) -> str:
        """A new topic with one partition; returns its name."""
        from confluent_kafka.admin import AdminClient, NewTopic

        name = f"{prefix}-{uuid.uuid4()}"
        admin = AdminClient(self.client_conf())
        admin.create_topics([NewTopic(name, 1, 1)])[name].result()
        while admin.list_topics(name, timeout=10).topics[name].error is not None:
            pass
        return name

    def seed_topic(self, topic: str) -> None:
        """A hundred messages."""
        producer = self.cimpl_producer()
        for number in range(100):
            producer.produce(topic, f"test-data{number}")
        assert producer.flush(30) == 0


@pytest.fixture(scope="session")
def kafka_cluster() -> Cluster:
    """The cluster."""
    return Cluster()
