from collections.abc import Iterable
from typing import Any, final

from kprod._core.bulk_future import BulkDeliveryFuture
from kprod._core.producer import ProducerCore
from kprod.records import ArrowArray, BulkHeaders, Column, Headers, Integers, OnDelivery

@final
class Bulk:
    @property
    def appended(self) -> int: ...
    def append(self, most: int) -> bool: ...
    def end(self, error: BaseException | None = None) -> BulkDeliveryFuture: ...

def split_headers(
    headers: BulkHeaders | None, count: int
) -> tuple[Headers | tuple[Headers | None, ...] | None, bool]: ...
def as_sequence(name: str, values: Iterable[Any]) -> tuple[Any, ...]: ...
def send_many(
    core: ProducerCore,
    topic: str,
    values: Iterable[Any],
    keys: Iterable[Any] | None,
    headers: BulkHeaders | None,
    timestamps: Integers | None,
    partitions: Integers | None,
    on_delivery: OnDelivery | None,
    serialize: bool = True,
) -> BulkDeliveryFuture: ...
def prepare_many(
    core: ProducerCore,
    topic: str,
    values: Iterable[Any],
    keys: Iterable[Any] | None,
    headers: BulkHeaders | None,
    timestamps: Integers | None,
    partitions: Integers | None,
    on_delivery: OnDelivery | None,
) -> Bulk: ...
def send_columns(
    core: ProducerCore,
    topic: str,
    values: Column,
    keys: Column | None,
    headers: BulkHeaders | None,
    timestamps: Integers | None,
    partitions: Integers | None,
    on_delivery: OnDelivery | None,
) -> BulkDeliveryFuture: ...
def send_table(
    core: ProducerCore,
    topic: str,
    table: ArrowArray,
    values: str,
    keys: str | None,
    headers: BulkHeaders | None,
    timestamps: str | Integers | None,
    partitions: str | Integers | None,
    on_delivery: OnDelivery | None,
) -> BulkDeliveryFuture: ...
def read_integers(name: str, source: Integers | None, length: int) -> list[int | None]: ...
def read_column(name: str, source: Column) -> list[bytes | None]: ...
