"""aiokafka's producer on kprod: ``from kprod.compat.aiokafka import AIOKafkaProducer``.

Constructor, methods, results and exceptions are aiokafka 0.14's. docs/compatibility.md lists what differs.
"""

from typing import Any

from kprod.compat.aiokafka import errors, structs
from kprod.compat.aiokafka.batch import BatchBuilder
from kprod.compat.aiokafka.errors import IllegalOperation
from kprod.compat.aiokafka.producer import AIOKafkaProducer, TransactionContext
from kprod.compat.aiokafka.structs import OffsetAndMetadata, RecordMetadata, TopicPartition

__all__ = [
    "AIOKafkaProducer",
    "BatchBuilder",
    "IllegalOperation",
    "OffsetAndMetadata",
    "RecordMetadata",
    "TopicPartition",
    "TransactionContext",
    "errors",
    "structs",
]


def __getattr__(name: str) -> Any:
    if name.startswith(("AIOKafka", "Consumer")):
        raise AttributeError(
            f"kprod is a producer and has no {name}: import it from aiokafka, which works beside kprod"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
