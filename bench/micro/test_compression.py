"""Codecs on the records section of a batch of events; ``mb_per_s`` and ``ratio`` are in the JSON output."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.workload import Workload
from kprod._core.compression import CODECS, Codec, check_level, compress, decompress

EVENTS = b"".join(b"".join(block) for block in Workload(records=1, warmup=1, size=200).values)

by_codec = pytest.mark.parametrize("codec", CODECS[1:], ids=lambda codec: codec.name)
by_size = pytest.mark.parametrize("size", [1024, 16384, 65536, 1 << 20])


@by_codec
@by_size
def test_compress(benchmark: BenchmarkFixture, codec: Codec, size: int) -> None:
    section = memoryview(EVENTS)[:size]
    written = benchmark(compress, codec.id, check_level(codec.id, None), section)
    assert decompress(codec.id, written, size) == section
    _record_rate(benchmark, size)
    benchmark.extra_info["ratio"] = round(size / len(written), 2)


@by_codec
def test_decompress(benchmark: BenchmarkFixture, codec: Codec) -> None:
    size = 65536
    written = compress(codec.id, check_level(codec.id, None), EVENTS[:size])
    assert benchmark(decompress, codec.id, written, size) == EVENTS[:size]
    _record_rate(benchmark, size)


def _record_rate(benchmark: BenchmarkFixture, size: int) -> None:
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["mb_per_s"] = round(size / benchmark.stats.stats.min / 1e6, 1)
