"""confluent-kafka's ``SerializingProducer``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kprod.compat.confluent_kafka.error import KeySerializationError, ValueSerializationError
from kprod.compat.confluent_kafka.producer import DeliveryCallback, Producer
from kprod.compat.confluent_kafka.serialization import MessageField, SerializationContext


class SerializingProducer(Producer):
    """A :class:`Producer` that serializes keys and values.

    Args:
        conf: the configuration, with ``key.serializer`` and ``value.serializer``: callables of
            ``(obj, SerializationContext)`` that return bytes, or None for null.
    """

    def __init__(self, conf: Mapping[str, Any]) -> None:
        rest = dict(conf)
        self._key_serializer: Callable[..., Any] | None = rest.pop("key.serializer", None)
        self._value_serializer: Callable[..., Any] | None = rest.pop("value.serializer", None)
        super().__init__(rest)

    def produce(  # type: ignore[override]
        self,
        topic: str,
        key: Any = None,
        value: Any = None,
        partition: int = -1,
        on_delivery: DeliveryCallback | None = None,
        timestamp: int = 0,
        headers: Any = None,
    ) -> None:
        """Serialize and send; the key comes before the value here.

        Raises:
            KeySerializationError, ValueSerializationError: a serializer raised an exception.
            BufferError, KafkaException, TypeError: as :meth:`Producer.produce`.
        """
        self._check_open()
        context = SerializationContext(topic, MessageField.KEY, headers)
        if self._key_serializer is not None:
            try:
                key = self._key_serializer(key, context)
            except Exception as error:
                raise KeySerializationError(error) from error
        context.field = MessageField.VALUE
        if self._value_serializer is not None:
            try:
                value = self._value_serializer(value, context)
            except Exception as error:
                raise ValueSerializationError(error) from error
        self._produce(topic, value, key, partition, on_delivery, timestamp, context.headers)
