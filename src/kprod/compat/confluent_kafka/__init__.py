"""confluent-kafka's producer on kprod's engine: ``from kprod.compat.confluent_kafka import Producer``.

The configuration is librdkafka's, callbacks run in ``poll()``, errors are ``KafkaError`` values inside of a
``KafkaException``. docs/compatibility.md says what differs.
"""

from kprod._core.murmur2 import partition_for_key
from kprod._version import __version__
from kprod.compat.confluent_kafka.error import KafkaError, KafkaException
from kprod.compat.confluent_kafka.message import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    OFFSET_STORED,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    Message,
    ThrottleEvent,
    TopicPartition,
)
from kprod.compat.confluent_kafka.producer import Producer
from kprod.compat.confluent_kafka.serializing_producer import SerializingProducer
from kprod.partitioner import crc32_partition
from kprod.partitioner import fnv1a as _fnv1a_hash

__all__ = [
    "OFFSET_BEGINNING",
    "OFFSET_END",
    "OFFSET_INVALID",
    "OFFSET_STORED",
    "TIMESTAMP_CREATE_TIME",
    "TIMESTAMP_LOG_APPEND_TIME",
    "TIMESTAMP_NOT_AVAILABLE",
    "KafkaError",
    "KafkaException",
    "Message",
    "Producer",
    "SerializingProducer",
    "ThrottleEvent",
    "TopicPartition",
    "consistent",
    "fnv1a",
    "libversion",
    "murmur2",
    "version",
]


def murmur2(key: bytes, partition_count: int) -> int:
    """The partition that Java's default partitioner, and librdkafka's ``murmur2``, gives a key."""
    return partition_for_key(key, _count(partition_count))


def consistent(key: bytes, partition_count: int) -> int:
    """The partition that librdkafka's ``consistent`` gives a key: its CRC-32."""
    return crc32_partition(key, _count(partition_count))


def fnv1a(key: bytes, partition_count: int) -> int:
    """The partition that librdkafka's ``fnv1a`` gives a key."""
    return _fnv1a_hash(key) % _count(partition_count)


def _count(partition_count: int) -> int:
    if not isinstance(partition_count, int):
        raise TypeError(f"partition_count must be an int, not {type(partition_count).__name__}")
    if partition_count <= 0:
        raise ValueError(f"partition_count must be > 0, not {partition_count}")
    return partition_count


def version() -> str:
    """The version of kprod."""
    return __version__


def libversion() -> tuple[str, int]:
    """The version of kprod, as text and as a number: major << 24 | minor << 16 | patch << 8."""
    numbers = [int("".join(c for c in part if c.isdigit()) or 0) for part in __version__.split(".")[:3]]
    numbers += [0] * (3 - len(numbers))
    return __version__, numbers[0] << 24 | numbers[1] << 16 | numbers[2] << 8
