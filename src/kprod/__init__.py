"""A Kafka producer for Python with a Cython core."""

from kprod._core.bulk_future import BulkDeliveryFuture, DeliveryReports
from kprod._core.future import DeliveryFuture, RecordMetadata
from kprod._version import __version__
from kprod.errors import KafkaError
from kprod.producer import KafkaProducer
from kprod.records import OffsetAndMetadata, TopicPartition
from kprod.transactions.prepared import PreparedTxnState

__all__ = [
    "BulkDeliveryFuture",
    "DeliveryFuture",
    "DeliveryReports",
    "KafkaError",
    "KafkaProducer",
    "OffsetAndMetadata",
    "PreparedTxnState",
    "RecordMetadata",
    "TopicPartition",
    "__version__",
]
