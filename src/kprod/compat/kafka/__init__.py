"""kafka-python's producer on kprod's engine: ``from kprod.compat.kafka import KafkaProducer``.

``kprod.KafkaProducer`` has the same methods and options and costs less for each record: this module is for
code that depends on kafka-python's exception classes, result types and defaults.
``kprod.compat.kafka.errors`` stands in for ``kafka.errors``.
"""

from kprod.compat.kafka import errors
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
]
