"""Writes the inputs in corpus/ that the fuzz targets start from; what they find is added by hand.

python -m tests.fuzz.make_corpus
"""

from __future__ import annotations

import random
from typing import Any

from kprod._core.compression import compress
from kprod._core.record_batch import RecordBatchBuilder
from kprod._core.varint import encode_uvarint, encode_varint
from kprod.protocol import APIS, PRODUCE, Api, encode_response
from kprod.protocol.schema import Array, Field, Struct, _contains
from tests.fuzz.harness import CORPUS, case_number

_VALUES: dict[str, Any] = {
    "int8": 1,
    "int16": 0,
    "uint16": 9092,
    "int32": 1,
    "int64": 7,
    "float64": 0.5,
    "bool": True,
    "string": "t",
    "bytes": b"bytes",
    "records": b"records",
    "uuid": bytes(range(16)),
}


def _value(kind: Any, version: int, elements: int) -> Any:
    if isinstance(kind, Array):
        return [_value(kind.of, version, elements) for _ in range(elements)]
    if isinstance(kind, Struct):
        return _body(kind.fields, version, elements)
    return _VALUES[kind]


def _body(fields: list[Field] | tuple[Field, ...], version: int, elements: int) -> dict[str, Any]:
    return {f.name: _value(f.type, version, elements) for f in fields if _contains(f.versions, version)}


def response(api: Api, version: int, elements: int) -> bytes:
    """A response in which every array has so many elements, without its size."""
    return encode_response(api, version, 1, _body(list(api.response), version, elements))[4:]


def records(count: int, size: int) -> bytes:
    """The records section of a batch."""
    builder = RecordBatchBuilder()
    for i in range(count):
        builder.append(b"key", bytes(size), [("header", b"value")] if i % 2 else None, 1_000 + 77 * i)
    return builder.build()[61:]


def inputs() -> dict[str, dict[str, bytes]]:
    """Everything, by target and name."""
    source = random.Random(1)
    edges = [0, 1, 63, 64, 8191, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1]
    numbers = {f"varint-{n}": encode_varint(n) for n in edges} | {
        f"uvarint-{n}": encode_uvarint(n) for n in edges
    }
    numbers["endless"] = b"\xff" * 12
    plain = records(20, 30)
    produce = {
        f"v{version}-{n}": bytes([version - 3]) + response(PRODUCE, version, n)
        for version in range(3, 14)
        for n in ((1, 2) if version in (8, 10, 13) else (1,))
    }
    protocol = {}
    for api in APIS.values():
        low, high = api.versions
        for version in sorted({low, max(low, min(high, api.flexible or high)), high}):
            name = f"{api.name}-v{version}"
            protocol[name] = case_number(api.name, version).to_bytes(2, "big") + response(api, version, 2)
    return {
        "varint": numbers,
        "cursor": {
            "one-of-each": bytes(range(9)) + source.randbytes(60),
            "strings": bytes([6, 134] * 20) + b"\0\5hello\6world" * 4,
            "tags": bytes([7] * 12) + b"\2\0\3abc\1\0" * 4,
            "counts": bytes([5, 133] * 10) + b"\0\0\0\2\3\0\0\0\1" * 4,
        },
        "produce": produce,
        "hashes": {f"{n}-bytes": source.randbytes(n) for n in (0, 1, 7, 16, 33, 255, 800, 2000)},
        "split": {
            "two": bytes([2]) + records(2, 5),
            "twenty": bytes([20]) + plain,
            "uneven": bytes([3]) + records(1, 900) + records(2, 1),
        },
        "decompress": {
            # Up to 4096 bytes may come out.
            f"codec-{codec}": bytes([60 + codec]) + compress(codec, {1: 6, 4: 3}.get(codec, 0), plain)
            for codec in range(5)
        },
        "protocol": protocol,
    }


def main() -> None:
    """Write them."""
    for target, files in inputs().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
