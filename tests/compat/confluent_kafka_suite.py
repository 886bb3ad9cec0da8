"""confluent-kafka's producer tests."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.compat.suite import Suite
else:
    try:
        from tests.compat.suite import Suite
    except ImportError:  # in the process that runs the tests
        from suite import Suite


def swap() -> None:
    """Every way by which the tests get at the producer and its values leads to kprod's."""
    import confluent_kafka
    import confluent_kafka.aio
    import confluent_kafka.error
    import confluent_kafka.serializing_producer

    from kprod.compat import confluent_kafka as own
    from kprod.compat.confluent_kafka import aio, error

    for name in own.__all__:
        if name != "TopicPartition":  # the consumers and the admin client take their own only
            setattr(confluent_kafka, name, getattr(own, name))
    for name in (
        "KafkaError",
        "KafkaException",
        "ProduceError",
        "KeySerializationError",
        "ValueSerializationError",
    ):
        setattr(confluent_kafka.error, name, getattr(error, name))
    confluent_kafka.serializing_producer.SerializingProducer = own.SerializingProducer
    confluent_kafka.aio.AIOProducer = aio.AIOProducer
    # The checkout's tests must meet the installed package.
    assert "site-packages" in str(sys.modules["confluent_kafka"].__file__), confluent_kafka.__file__


_OTHER_LOGS = (
    "logging_consumer",
    "logging_avro_consumer",
    "consumer_logger_logging_in_given_format",
    "admin_logger_logging_in_given_format_when_provided_in_conf",
    "admin_logger_logging_in_given_format_when_provided_as_admin_client_argument",
)
_CONSUMER_WAKES = (
    "consumer_wakeable_poll_utility_functions_interaction",
    "consumer_wakeable_poll_interruptibility_and_messages",
    "consumer_wakeable_poll_edge_cases",
    "consumer_wakeable_consume_interruptibility_and_messages",
    "consumer_wakeable_consume_edge_cases",
)
_CONSUMER_PARAMETERS = (
    ("calculate_chunk_timeout_utility_function", ""),
    ("check_signals_between_chunks_utility_function", ""),
    ("utilities_interaction", ""),
    ("can_be_interrupted", "-poll"),
    ("can_be_interrupted", "-consume"),
    ("short_timeout_not_chunked", "-poll"),
    ("short_timeout_not_chunked", "-consume"),
)

SUITE = Suite(
    client="confluent_kafka",
    distribution="confluent-kafka",
    repository="confluentinc/confluent-kafka-python",
    release="2.15.0",
    files=(
        "tests/test_Producer.py",
        "tests/test_kafka_error.py",
        "tests/test_error.py",
        "tests/test_serializer_error.py",
        "tests/test_misc.py",
        "tests/test_message.py",
        "tests/test_enums.py",
        "tests/test_partitioners.py",
        "tests/test_log.py",
        "tests/test_threads.py",
        "tests/test_Wakeable.py",
        "tests/test_AIOProducer.py",
        "tests/integration/producer/test_producer_wakeable_poll_flush.py",
        "tests/integration/producer/test_transactions.py",
    ),
    broker_options={"num.partitions": 1},
    swap=swap,
    plugins=("confluent_kafka_fixtures",),
    arguments=("--noconftest",),
    elsewhere=frozenset(
        [f"test_log.py::test_{name}" for name in _OTHER_LOGS]
        + [
            f"test_Wakeable.py::test_{name}"
            for name in (
                *_CONSUMER_WAKES,
                *(f"{name}[consumer{rest}]" for name, rest in _CONSUMER_PARAMETERS),
            )
        ]
    ),
    private={
        "test_misc.py::test_unordered_dict": "needs a plug-in of librdkafka, which is not installed with it",
        "test_AIOProducer.py::*": "puts mocks into confluent-kafka's own modules",
    },
    differs={
        "test_Producer.py::test_produce_batch_scalability_and_limits": (
            "expects `NotImplementedError` for timestamps in `produce_batch()`: they are written here"
        ),
        "test_kafka_error.py::test_kafkaError_unknown_error": (
            "raises a `KafkaError`; here it is a value only, and `KafkaException` is raised"
        ),
        "test_Wakeable.py::test_can_be_interrupted[producer-flush]": (
            "expects that `flush()` still waits after 100 ms for a message whose `message.timeout.ms` is 10"
        ),
    },
)
