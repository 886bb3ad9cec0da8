"""Encoding of record batches, header and CRC included."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.workload import Workload
from kprod._core.compression import CODECS, Codec, check_level
from kprod._core.record_batch import RecordBatchBuilder

VALUES = [value for block in Workload(records=1, warmup=1).values for value in block][:600]


def _encode(codec: int, level: int) -> bytes:
    builder = RecordBatchBuilder(codec, level)
    for value in VALUES:
        builder.append(None, value, None, 1_700_000_000_000)
    return bytes(builder.build())


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_encode_600_records(benchmark: BenchmarkFixture, codec: Codec) -> None:
    written = benchmark(_encode, codec.id, check_level(codec.id, None))
    benchmark.extra_info["bytes"] = len(written)
    assert len(written) > 1000
