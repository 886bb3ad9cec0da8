"""Testing code that produces to Kafka, without Kafka.

:class:`MockCluster` is a Kafka cluster on loopback that any client can talk to. The pytest plugin in
:mod:`kprod.testing.plugin` has fixtures for it.
"""

from __future__ import annotations

from kprod.testing.broker.record_batch import BatchHeader
from kprod.testing.broker.server import MockRequest
from kprod.testing.mock_cluster import Fault, MockBatch, MockCluster, MockRecord

__all__ = ["BatchHeader", "Fault", "MockBatch", "MockCluster", "MockRecord", "MockRequest"]
