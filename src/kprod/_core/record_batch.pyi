from typing_extensions import Self

from kprod.records import Headers

class RecordBatchBuilder:
    def __new__(
        cls,
        codec: int = 0,
        level: int = -1,
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        transactional: bool = False,
    ) -> Self: ...
    def append(
        self, key: bytes | None, value: bytes | None, headers: Headers | None = None, timestamp: int = 0
    ) -> int: ...
    def build(self) -> bytes: ...
