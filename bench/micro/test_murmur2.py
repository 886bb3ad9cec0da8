"""The key hash, as Python callers reach it, and beside the same function in a C program of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.native import compiled
from kprod import _core
from kprod._core.murmur2 import murmur2, partition_for_key

_LOOP = Path(__file__).parents[1] / "c" / "murmur2_loop.c"
_LARGE = 65536  # where a call from Python is no part of the time


@pytest.mark.parametrize("size", [8, 16, 36, 256])
def test_murmur2(benchmark: BenchmarkFixture, size: int) -> None:
    key = bytes(range(256))[:size]
    assert benchmark(murmur2, key) == murmur2(key)


def test_murmur2_beside_the_same_function_compiled_alone(benchmark: BenchmarkFixture) -> None:
    """``of_c`` in the JSON output is its speed as a part of that of the C program."""
    headers = Path(_core.__file__).parent / "csrc"
    loop = compiled(_LOOP, f"-I{headers}")
    key = bytes(i % 251 for i in range(_LARGE))
    value = benchmark(murmur2, key)
    said = subprocess.run([loop, str(_LARGE), "2000"], capture_output=True, text=True, check=True)
    c_value, c_ns = said.stdout.split()
    assert value == int(c_value)
    if benchmark.stats is not None:  # None with --benchmark-disable
        least_ns = benchmark.stats.stats.min * 1e9
        benchmark.extra_info["gb_per_s"] = round(_LARGE / least_ns, 2)
        benchmark.extra_info["of_c"] = round(float(c_ns) / least_ns, 3)


def test_partition_for_key(benchmark: BenchmarkFixture) -> None:
    assert 0 <= benchmark(partition_for_key, b"user-00012345", 6) < 6
