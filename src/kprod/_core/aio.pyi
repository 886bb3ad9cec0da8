from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Generator, MutableMapping
from contextvars import Context
from threading import Lock, local
from typing import Any, ClassVar, Literal, NoReturn, SupportsIndex, final

from typing_extensions import Self

from kprod._core.future import DeliveryFuture, RecordMetadata
from kprod.errors import KafkaError
from kprod.records import Headers

channels: MutableMapping[AbstractEventLoop, LoopChannel]
channels_lock: Lock
present: local

def channel_for(loop: AbstractEventLoop) -> LoopChannel: ...

class LoopChannel:
    def __new__(cls, loop: AbstractEventLoop) -> Self: ...
    @property
    def loop(self) -> AbstractEventLoop | None: ...
    @property
    def wakes(self) -> int: ...
    def drain(self) -> None: ...

class Entry: ...

@final
class Waiter(Entry):
    def __call__(self, future: DeliveryFuture) -> None: ...

@final
class DoneCallback(Entry):
    def __call__(self, future: DeliveryFuture) -> None: ...

@final
class Settlement(Entry):
    def __new__(
        cls,
        future: Future[Any],
        channel: LoopChannel,
        convert: Callable[[KafkaError | None, RecordMetadata], object],
    ) -> Self: ...
    def __call__(self, error: KafkaError | None, metadata: RecordMetadata) -> None: ...

@final
class AsyncDeliveryFuture:
    _asyncio_future_blocking: ClassVar[Literal[False]]
    def __init__(self) -> NoReturn: ...
    @property
    def delivery(self) -> DeliveryFuture: ...
    def get_loop(self) -> AbstractEventLoop: ...
    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def result(self) -> RecordMetadata: ...
    def exception(self) -> KafkaError | None: ...
    def add_done_callback(
        self, callback: Callable[[AsyncDeliveryFuture], object], *, context: Context | None = None
    ) -> None: ...
    def remove_done_callback(self, callback: Callable[[AsyncDeliveryFuture], object]) -> int: ...
    def cancel(self, msg: object = None) -> bool: ...
    def __await__(self) -> Generator[Any, None, RecordMetadata]: ...

class AsyncProducerCore:
    _waiting: int
    def _attach(
        self, try_send: Callable[..., DeliveryFuture] | None, would_wait: type[Exception]
    ) -> None: ...
    async def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: SupportsIndex | None = None,
        timestamp_ms: SupportsIndex | None = None,
    ) -> AsyncDeliveryFuture: ...
