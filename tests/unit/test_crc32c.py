"""CRC-32C: every tier of this processor against RFC 3720 and the reference."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading

import pytest

from kprod._core.crc32c import crc32c, implementation, implementations
from tests.reference import crc32c as reference

RNG = random.Random(3)
DATA = RNG.randbytes(300_000)


def _prefixes(data: bytes) -> list[int]:
    """The CRC of ``data[:n]`` at index n, by the reference."""
    crcs = [0]
    for i in range(len(data)):
        crcs.append(reference.crc32c(data[i : i + 1], crcs[-1]))
    return crcs


PREFIXES = _prefixes(DATA)

every_implementation = pytest.mark.parametrize("tier", implementations())


@every_implementation
@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720 B.4, and the check value of the CRC catalogues
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (
            bytes.fromhex(
                "01c00000000000000000000000000000140000000000040000000014000000182800000000000000"
                "0200000000000000"
            ),
            0xD9963A56,
        ),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_published_vectors(tier: str, data: bytes, crc: int) -> None:
    assert crc32c(data, implementation=tier) == crc


@every_implementation
@pytest.mark.parametrize("start", range(16))
def test_all_short_lengths_at_all_alignments(tier: str, start: int) -> None:
    view = memoryview(DATA)[start : start + 1025]
    expected = _prefixes(bytes(view))
    assert [crc32c(view[:n], implementation=tier) for n in range(1026)] == expected


@every_implementation
def test_lengths_around_block_boundaries(tier: str) -> None:
    # Lane lengths times three, steps of the fused loop, its largest block, and their neighbours.
    edges = {step * count for step in (136, 768, 12288, 69632) for count in (1, 2, 3, 4)} | {65536, 262144}
    for edge in edges:
        for length in (edge - 8, edge - 1, edge, edge + 1, edge + 7, edge + 135, edge + 767):
            assert crc32c(DATA[:length], implementation=tier) == PREFIXES[length], length


@every_implementation
def test_pieces_make_the_whole(tier: str) -> None:
    whole = PREFIXES[-1]
    for _ in range(100):
        cuts = sorted(RNG.choices(range(len(DATA) + 1), k=RNG.randrange(1, 6)))
        crc = 0
        for start, end in zip([0, *cuts], [*cuts, len(DATA)], strict=True):
            crc = crc32c(DATA[start:end], crc, implementation=tier)
        assert crc == whole


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like(kind: type) -> None:
    assert crc32c(kind(DATA)) == PREFIXES[-1]


def test_threads_share_it() -> None:
    expected = PREFIXES[-1]
    wrong: list[int] = []

    def check() -> None:
        wrong.extend(crc for crc in (crc32c(DATA) for _ in range(200)) if crc != expected)

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("data", [None, "text", 5])
def test_other_types_are_refused(data: object) -> None:
    with pytest.raises(TypeError):
        crc32c(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 2**32])
def test_value_is_32_bits(value: int) -> None:
    with pytest.raises(OverflowError):
        crc32c(b"", value)


def test_unknown_implementation_is_told() -> None:
    with pytest.raises(ValueError, match="implementation is 'sse9': this processor has sw"):
        crc32c(b"", implementation="sse9")


def _import_with(choice: str | None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "KPROD_CRC32C"}
    if choice is not None:
        environment["KPROD_CRC32C"] = choice
    program = "from kprod._core.crc32c import *; print(implementation(), crc32c(b'123456789'))"
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_environment_forces_the_portable_tier() -> None:
    assert _import_with("sw").stdout == f"sw {0xE3069283}\n"


@pytest.mark.parametrize("choice", [None, ""])
def test_the_fastest_tier_is_the_default(choice: str | None) -> None:
    assert _import_with(choice).stdout == f"{implementations()[-1]} {0xE3069283}\n"


def test_environment_forces_hardware() -> None:
    said = _import_with("hw")
    if len(implementations()) > 1:
        assert said.stdout == f"{implementations()[-1]} {0xE3069283}\n"
    else:
        assert "KPROD_CRC32C=hw: this processor has no CRC-32C instruction" in said.stderr


def test_unknown_choice_in_the_environment_is_told() -> None:
    said = _import_with("fast")
    assert said.returncode != 0
    assert "KPROD_CRC32C=fast: must be 'sw', 'hw' or unset" in said.stderr


def test_first_implementation_is_the_portable_one() -> None:
    assert implementations()[0] == "sw"
    assert implementation() in implementations()
