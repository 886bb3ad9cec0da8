"""CRC-32C by size and tier; ``gb_per_s`` is in the JSON output (``--benchmark-json``)."""

from __future__ import annotations

import random

import crc32c as crc32c_package
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from kprod._core.crc32c import crc32c, implementations

SIZES = (100, 1024, 16384, 65536, 1 << 20)


def _record_rate(benchmark: BenchmarkFixture, size: int) -> None:
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["gb_per_s"] = round(size / benchmark.stats.stats.min / 1e9, 2)


@pytest.mark.parametrize("tier", implementations())
@pytest.mark.parametrize("size", SIZES)
def test_crc32c(benchmark: BenchmarkFixture, size: int, tier: str) -> None:
    data = random.Random(size).randbytes(size)
    assert benchmark(crc32c, data, implementation=tier) == crc32c_package.crc32c(data)
    _record_rate(benchmark, size)


@pytest.mark.parametrize("size", SIZES)
def test_crc32c_package(benchmark: BenchmarkFixture, size: int) -> None:
    """The independent package, to compare with."""
    data = random.Random(size).randbytes(size)
    assert benchmark(crc32c_package.crc32c, data) == crc32c(data)
    _record_rate(benchmark, size)
