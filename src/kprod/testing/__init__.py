"""Testing code that produces to Kafka, without Kafka.

:class:`MockCluster` is a Kafka cluster on loopback that any client can talk to; :class:`MockProducer` stands
in for the producer itself, without a network. The pytest plugin in :mod:`kprod.testing.plugin` has fixtures.
"""

from __future__ import annotations

from kprod.testing.broker.record_batch import BatchHeader
from kprod.testing.broker.server import MockRequest
from kprod.testing.broker.telemetry import MockTelemetryPush
from kprod.testing.mock_bulk import MockBulkDeliveryFuture, MockDeliveryReports
from kprod.testing.mock_cluster import Fault, MockBatch, MockCluster, MockRecord
from kprod.testing.mock_producer import (
    MockDeliveryFuture,
    MockProducer,
    MockProducerRecord,
    MockRecordMetadata,
)

__all__ = [
    "BatchHeader",
    "Fault",
    "MockBatch",
    "MockBulkDeliveryFuture",
    "MockCluster",
    "MockDeliveryFuture",
    "MockDeliveryReports",
    "MockProducer",
    "MockProducerRecord",
    "MockRecord",
    "MockRecordMetadata",
    "MockRequest",
    "MockTelemetryPush",
]
