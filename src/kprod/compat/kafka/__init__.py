"""kafka-python's producer on kprod's engine: ``from kprod.compat.kafka import KafkaProducer``.

``kprod.KafkaProducer`` has the same methods and options and costs less for each record: this module is for
code that depends on kafka-python's exception classes, result types and defaults.
``kprod.compat.kafka.errors`` and ``.partitioner`` stand in for ``kafka.errors`` and ``kafka.partitioner``.
"""

from kprod.compat.kafka import errors, partitioner
from kprod.compat.kafka.future import FutureRecordMetadata, RecordMetadata
from kprod.compat.kafka.producer import KafkaProducer
from kprod.records import OffsetAndMetadata, TopicPartition

__all__ = [
    "FutureRecordMetadata",
    "KafkaProducer",
    "OffsetAndMetadata",
    "RecordMetadata",
    "TopicPartition",
    "errors",
    "partitioner",
]
