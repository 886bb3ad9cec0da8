"""The key hash, as Python callers reach it."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from kprod._core.murmur2 import murmur2, partition_for_key


@pytest.mark.parametrize("size", [8, 16, 36, 256])
def test_murmur2(benchmark: BenchmarkFixture, size: int) -> None:
    key = bytes(range(256))[:size]
    assert benchmark(murmur2, key) == murmur2(key)


def test_partition_for_key(benchmark: BenchmarkFixture) -> None:
    assert 0 <= benchmark(partition_for_key, b"user-00012345", 6) < 6
