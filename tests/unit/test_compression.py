"""Codecs: the table, the levels, and both directions against the reference."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from functools import partial

import cramjam
import lz4.frame
import pytest
import zstandard

from kprod._core.compression import CODECS, Codec, check_level, compress, decompress, get_codec
from tests.reference import record_batch as reference

RNG = random.Random(7)
EVENTS = b"".join(
    json.dumps(
        {"user": RNG.randrange(10**5), "event": RNG.choice(["view", "click", "buy"]), "at": i}
    ).encode()
    for i in range(4000)
)
SAMPLES = {
    "nothing": b"",
    "one byte": b"x",
    "small": EVENTS[:100],
    "one snappy block": EVENTS[:32768],
    "one byte more": EVENTS[:32769],
    "one lz4 block": EVENTS[:65536],
    "many blocks": EVENTS,
    "incompressible": RNG.randbytes(200_000),
    "zeros": bytes(1_000_000),
}

every_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
every_compressor = pytest.mark.parametrize("codec", CODECS[1:], ids=lambda codec: codec.name)
every_sample = pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES.keys())
# There is no batch without records, and not every peer takes nothing for an answer.
every_content = pytest.mark.parametrize("data", list(SAMPLES.values())[1:], ids=list(SAMPLES)[1:])


def levels(name: str) -> list[int]:
    codec = get_codec(name)
    if codec.min_level is None or codec.max_level is None:
        return [check_level(name, None)]
    inner = {"gzip": [1, 6], "lz4": [1, 3, 9, 12], "zstd": [-5, 0, 1, 3, 9]}[name]
    return sorted({codec.min_level, codec.max_level, check_level(name, None), *inner})


# ---- the table ---------------------------------------------------------------------------------------------


def test_ids_and_names_are_kafkas() -> None:
    assert [(codec.id, codec.name) for codec in CODECS] == [
        (0, "none"), (1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd"),
    ]  # fmt: skip


@every_codec
def test_found_by_name_and_id(codec: Codec) -> None:
    assert get_codec(codec.name) is codec
    assert get_codec(codec.id) is codec
    assert codec.name in repr(codec)


def test_none_means_no_compression() -> None:
    assert get_codec(None).name == "none"


@pytest.mark.parametrize("name", ["LZ4", "", "brotli", 5, -1, True, b"gzip", 1.0])
def test_unknown_codec_is_told(name: object) -> None:
    with pytest.raises(
        ValueError, match=f"compression type is {name!r}: must be one of none, gzip, snappy, lz4, zstd"
    ):
        get_codec(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", [-1, 5, 7])
def test_unknown_id_is_told(codec: int) -> None:
    with pytest.raises(ValueError, match=f"codec id is {codec}"):
        compress(codec, 0, b"")
    with pytest.raises(ValueError, match=f"compression type is {codec}"):
        decompress(codec, b"", 1)


# ---- levels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "default"), [("none", 0), ("gzip", -1), ("snappy", 0), ("lz4", 0), ("zstd", 3)]
)
def test_default_levels(codec: str, default: int) -> None:
    assert check_level(codec, None) == default


@pytest.mark.parametrize(
    ("codec", "level", "rule"),
    [
        ("gzip", 0, r"-1 \(zlib's default\) or 1\.\.9"),
        ("gzip", 10, r"1\.\.9"),
        ("gzip", -2, r"1\.\.9"),
        ("lz4", -1, r"0\.\.2 \(fast\)"),
        ("lz4", 18, r"13\.\.17"),
        ("zstd", 23, r"-131072\.\.22"),
        ("zstd", -131073, r"-131072\.\.22"),
        ("snappy", 1, "has no levels"),
        ("none", 1, "has no levels"),
    ],
)
def test_level_out_of_range_is_told(codec: str, level: int, rule: str) -> None:
    with pytest.raises(ValueError, match=f"compression level of {codec} is {level}: .*{rule}"):
        check_level(codec, level)


@pytest.mark.parametrize("level", ["3", 3.0, True])
def test_level_of_another_type_is_told(level: object) -> None:
    with pytest.raises(TypeError, match=f"compression level of zstd is {level!r}: must be an integer"):
        check_level("zstd", level)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gzip", "lz4", "zstd"])
def test_a_level_has_an_effect(name: str) -> None:
    codec = get_codec(name)
    fast, small = {"gzip": (1, 9), "lz4": (0, 12), "zstd": (-100, 19)}[name]
    assert len(compress(codec.id, small, EVENTS)) < len(compress(codec.id, fast, EVENTS))


# ---- there and back, by ourselves and by others ------------------------------------------------------------


@every_codec
@every_sample
def test_round_trip(codec: Codec, data: bytes) -> None:
    for level in levels(codec.name):
        assert decompress(codec.id, compress(codec.id, level, data), len(data)) == data


@every_compressor
@every_content
def test_the_reference_reads_ours(codec: Codec, data: bytes) -> None:
    for level in levels(codec.name):
        assert reference.decompress(codec.name, compress(codec.id, level, data)) == data


@every_compressor
@every_content
def test_we_read_the_references(codec: Codec, data: bytes) -> None:
    assert decompress(codec.id, reference.compress(codec.name, data), len(data)) == data


@pytest.mark.parametrize(
    ("codec", "write"),
    [
        ("snappy", lambda data: bytes(cramjam.snappy.compress_raw(data))),  # librdkafka: no framing
        ("lz4", lz4.frame.compress),  # dependent blocks
        ("lz4", partial(lz4.frame.compress, content_checksum=True, block_checksum=True)),
        ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress),
        ("zstd", zstandard.ZstdCompressor(write_checksum=True).compress),
    ],
)
@every_content
def test_we_read_what_other_producers_may_write(
    codec: str, write: Callable[[bytes], bytes], data: bytes
) -> None:
    assert decompress(get_codec(codec).id, write(data), len(data)) == data


@every_codec
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like(codec: Codec, kind: type) -> None:
    written = compress(codec.id, check_level(codec.id, None), kind(EVENTS))
    assert type(written) is bytes
    assert decompress(codec.id, kind(written), len(EVENTS)) == EVENTS


@every_codec
def test_other_types_are_refused(codec: Codec) -> None:
    for data in ("text", None):
        with pytest.raises(TypeError):
            compress(codec.id, check_level(codec.id, None), data)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            decompress(codec.id, data, 10)  # type: ignore[arg-type]


# ---- the formats -------------------------------------------------------------------------------------------


def test_lz4_frame_is_one_that_java_reads() -> None:
    for level in levels("lz4"):
        frame = compress(3, level, EVENTS)
        flags, block = frame[4], frame[5]
        assert frame[:4] == struct.pack("<I", 0x184D2204)
        assert flags == 0x60  # version 1, independent blocks, no checksums, no content size
        assert block == 0x40  # 64 KiB


def test_snappy_is_xerial_framed() -> None:
    data = EVENTS[:70_000]
    framed = compress(2, 0, data)
    assert framed[:16] == b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    sizes, position = [], 16
    while position < len(framed):
        (length,) = struct.unpack_from(">i", framed, position)
        block = framed[position + 4 : position + 4 + length]
        sizes.append(cramjam.snappy.decompress_raw_len(block))
        position += 4 + length
    assert sizes == [32768, 32768, 70_000 - 65536]


def test_gzip_header_has_no_time() -> None:
    member = compress(1, -1, EVENTS)
    assert member[:4] == b"\x1f\x8b\x08\x00"
    assert member[4:8] == bytes(4)


def test_zstd_frame_has_its_size() -> None:
    assert zstandard.frame_content_size(compress(4, 3, EVENTS)) == len(EVENTS)


# ---- hostile input -----------------------------------------------------------------------------------------


@every_codec
def test_output_is_bounded(codec: Codec) -> None:
    bomb = compress(codec.id, check_level(codec.id, None), SAMPLES["zeros"])
    for bound in (0, 1, 1000, 999_999):
        with pytest.raises(
            ValueError, match=f"{codec.name} data is larger than {bound} bytes when decompressed"
        ):
            decompress(codec.id, bomb, bound)
    assert decompress(codec.id, bomb, 1_000_000) == SAMPLES["zeros"]


def test_output_is_bounded_when_the_size_is_not_told() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(10_000_000))
    with pytest.raises(ValueError, match="zstd data is larger than 5000000 bytes"):
        decompress(4, bomb, 5_000_000)
    assert len(decompress(4, bomb, 10_000_000)) == 10_000_000


@every_codec
def test_negative_bound_is_told(codec: Codec) -> None:
    with pytest.raises(ValueError, match="max_size is -1"):
        decompress(codec.id, b"", -1)


def test_claimed_sizes_are_not_believed() -> None:
    claim = b"\xff\xff\xff\xff\x0f"  # 4 GiB of snappy
    for data in (claim, compress(2, 0, b"")[:16] + struct.pack(">i", len(claim)) + claim):
        with pytest.raises(ValueError, match="snappy data is larger than 1000 bytes"):
            decompress(2, data, 1000)
    # zstd: single segment, 8-byte content size of 1 TiB
    with pytest.raises(ValueError, match="zstd data is larger than 1000 bytes"):
        decompress(4, b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 40) + b"\x01\x00\x00", 1000)


@every_compressor
def test_every_cut_is_told(codec: Codec) -> None:
    whole = compress(codec.id, check_level(codec.id, None), EVENTS[:40_000])
    block_ends = set()
    if codec.name == "snappy":  # framing has no end mark: a cut between two blocks is not seen here
        (first,) = struct.unpack_from(">i", whole, 16)
        block_ends = {16, 16 + 4 + first}
    for end in [*range(40), *range(40, len(whole), 97), len(whole) - 1]:
        if end not in block_ends:
            with pytest.raises(ValueError, match=codec.name):
                decompress(codec.id, whole[:end], 40_000)


def test_cut_frames_of_unknown_size_are_told() -> None:
    whole = zstandard.ZstdCompressor(write_content_size=False).compress(EVENTS)
    for end in range(len(whole) // 7, len(whole), len(whole) // 7):
        with pytest.raises(ValueError, match="corrupt zstd data"):
            decompress(4, whole[:end], len(EVENTS))


@every_compressor
def test_garbage_is_told(codec: Codec) -> None:
    for data in (b"\xff" * 30, b"garbage " * 10, b"\x01"):
        with pytest.raises(ValueError, match=codec.name):
            decompress(codec.id, data, 10_000)


@every_compressor
def test_flipped_bits_never_do_more_than_raise(codec: Codec) -> None:
    whole = bytearray(compress(codec.id, check_level(codec.id, None), EVENTS[:5000]))
    told = 0
    for _ in range(300):
        at, bit = RNG.randrange(len(whole)), 1 << RNG.randrange(8)
        whole[at] ^= bit
        try:
            assert len(decompress(codec.id, whole, 20_000)) <= 20_000
        except ValueError:
            told += 1
        whole[at] ^= bit
    assert told > 0


# ---- threads and imports -----------------------------------------------------------------------------------


@every_codec
def test_many_threads_at_once(codec: Codec) -> None:
    parts = [EVENTS[i * 1000 : i * 1000 + 20_000] for i in range(6)]
    wrong: list[bytes] = []

    def work(part: bytes) -> None:
        for level in (check_level(codec.id, None), codec.max_level or 0) * 3:
            if decompress(codec.id, compress(codec.id, level, part), len(part)) != part:
                wrong.append(part)

    threads = [threading.Thread(target=work, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _python(program: str) -> str:
    said = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.strip()


def test_packages_are_imported_when_used() -> None:
    loaded = "print(sorted({'lz4', 'zstandard', 'cramjam'} & {m.split('.')[0] for m in sys.modules}))"
    said = _python(
        "from kprod._core.compression import get_codec\n"
        f"{loaded}\nget_codec('gzip')\n{loaded}\nget_codec('lz4')\n{loaded}"
    )
    assert said.splitlines() == ["[]", "[]", "['lz4']"]


@pytest.mark.parametrize(("codec", "package"), [("snappy", "cramjam"), ("lz4", "lz4"), ("zstd", "zstandard")])
def test_missing_package_is_told(codec: str, package: str) -> None:
    said = _python(
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {package!r}: raise ModuleNotFoundError('absent')\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from kprod._core.compression import get_codec\n"
        f"try: get_codec({codec!r})\n"
        "except ImportError as error: print(error)"
    )
    assert said.startswith(f"compression type '{codec}' needs the package '{package}': pip install {package}")


def test_gzip_is_zlib() -> None:
    assert zlib.decompress(compress(1, 9, EVENTS), 31) == EVENTS
