"""The fixtures that come with kprod, for blocks that are tests; also where kprod is not installed."""

from kprod.testing.plugin import (
    kafka_bootstrap_servers,
    kafka_mock,
    kafka_mock_options,
    kafka_producer,
    kafka_topic,
)

__all__ = ["kafka_bootstrap_servers", "kafka_mock", "kafka_mock_options", "kafka_producer", "kafka_topic"]
