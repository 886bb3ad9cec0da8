from collections.abc import Callable
from typing import Any, SupportsIndex

from kprod._core.accumulator import Accumulator
from kprod._core.future import DeliveryFuture, RecordMetadata
from kprod.engine import Engine
from kprod.errors import KafkaError
from kprod.interceptors import Interceptors
from kprod.partitioner import Choose
from kprod.records import Bytes, Headers

class ProducerCore:
    def _bind(
        self,
        engine: Engine,
        accumulator: Accumulator,
        *,
        key_unary: Callable[[Any], Bytes | None] | None,
        value_unary: Callable[[Any], Bytes | None] | None,
        key_full: Callable[[str, Any, Any], Bytes | None] | None,
        value_full: Callable[[str, Any, Any], Bytes | None] | None,
        choose: Choose | None,
        on_delivery: Callable[[KafkaError | None, RecordMetadata], object] | None,
        max_block_s: float,
        max_request_size: int,
        round_robin: bool,
        ignore_keys: bool,
        interceptors: Interceptors | None = None,
    ) -> None: ...
    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: SupportsIndex | None = None,
        timestamp_ms: SupportsIndex | None = None,
        on_delivery: Callable[[KafkaError | None, RecordMetadata], object] | None = None,
    ) -> DeliveryFuture: ...
    def send_nowait(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: SupportsIndex | None = None,
        timestamp_ms: SupportsIndex | None = None,
    ) -> None: ...
