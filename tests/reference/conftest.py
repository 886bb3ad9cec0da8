"""The Java client's own classes, for tests that hold the core against them."""

from __future__ import annotations

import os

import pytest

from tests.kafka.distribution import KafkaUnavailable, ensure_distribution
from tests.reference.java_client import JavaClient


@pytest.fixture(scope="session")
def java_client() -> JavaClient:
    """Asks Kafka's Java classes; without Java the same rule as for the brokers."""
    try:
        return JavaClient(ensure_distribution())
    except KafkaUnavailable as error:
        if os.environ.get("KPROD_REQUIRE_KAFKA") == "1":
            pytest.fail(f"KPROD_REQUIRE_KAFKA=1, but {error}", pytrace=False)
        pytest.skip(f"Java classes of Kafka: {error}")
