from typing import TypeAlias

_RecordError: TypeAlias = tuple[int, bytes | None]
# topic or its id, partition, error, base offset, log append time, record errors, message, leader id and epoch
_Partition: TypeAlias = tuple[bytes, int, int, int, int, list[_RecordError], bytes | None, int, int]

def parse_response(frame: bytes, version: int) -> tuple[int, list[_Partition], int, bytes | None]: ...
