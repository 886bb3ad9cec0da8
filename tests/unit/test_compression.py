"""Codecs: the table, the levels, and both directions against the reference."""

from __future__ import annotations

import gzip
import json
import random
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Iterator

import cramjam
import pytest

import tests.reference.compression_zstd  # noqa: F401 (makes compression.zstd available)
from kprod._core.compression import (
    CODECS,
    Codec,
    check_level,
    choose_implementation,
    compress,
    decompress,
    get_codec,
    implementations,
)
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

# Wheels are tested with what there are wheels for; tests/reference holds all of them against Java.
WAYS = [(codec, library) for codec in CODECS for library in implementations(codec.id) or (None,)]


def way_id(way: tuple[Codec, str | None]) -> str:
    return f"{way[0].name}-{way[1]}" if way[1] not in (None, "zlib") else way[0].name


@pytest.fixture(params=WAYS, ids=way_id)
def codec(request: pytest.FixtureRequest) -> Iterator[Codec]:
    """Every codec, done by every library that is there."""
    codec, library = request.param
    choose_implementation(codec.name, library)
    yield codec
    choose_implementation(codec.name, None)


@pytest.fixture(params=WAYS[1:], ids=way_id)
def compressor(request: pytest.FixtureRequest) -> Iterator[Codec]:
    """The same without the codec that does nothing."""
    codec, library = request.param
    choose_implementation(codec.name, library)
    yield codec
    choose_implementation(codec.name, None)


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


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
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


def test_a_level_has_an_effect(compressor: Codec) -> None:
    if compressor.min_level is None:
        assert compressor.name == "snappy"
        return
    fast, small = {"gzip": (1, 9), "lz4": (0, 12), "zstd": (-100, 19)}[compressor.name]
    assert len(compress(compressor.id, small, EVENTS)) < len(compress(compressor.id, fast, EVENTS))


@pytest.mark.parametrize("name", ["lz4", "zstd"])
def test_a_level_means_the_same_to_every_library(name: str) -> None:
    codec = get_codec(name)
    for level in levels(name):
        sizes = []
        for library in implementations(name):
            choose_implementation(name, library)
            sizes.append(len(compress(codec.id, level, EVENTS)))
        choose_implementation(name, None)
        if name == "lz4" and level >= 3 and sys.version_info < (3, 11):
            continue  # cramjam 2.11, the last one for Python 3.10, writes smaller blocks
        # Versions of liblz4 and libzstd differ a little, and so does what frames say besides.
        assert max(sizes) < 1.03 * min(sizes), (level, sizes)


# ---- there and back, by ourselves and by others ------------------------------------------------------------


@every_sample
def test_round_trip(codec: Codec, data: bytes) -> None:
    for level in levels(codec.name):
        assert decompress(codec.id, compress(codec.id, level, data), len(data)) == data


@every_content
def test_the_reference_reads_ours(compressor: Codec, data: bytes) -> None:
    for level in levels(compressor.name):
        assert reference.decompress(compressor.name, compress(compressor.id, level, data)) == data


@every_content
def test_we_read_the_references(compressor: Codec, data: bytes) -> None:
    assert decompress(compressor.id, reference.compress(compressor.name, data), len(data)) == data


def foreign(name: str, data: bytes) -> list[bytes]:
    """Forms that other producers may write, and ours never has."""
    if name == "gzip":
        return [gzip.compress(data[:1000]) + gzip.compress(data[1000:])]  # two members
    if name == "snappy":
        return [bytes(cramjam.snappy.compress_raw(data))]  # librdkafka: no framing
    if name == "lz4":
        forms = [bytes(cramjam.lz4.compress(data))]  # dependent blocks, all checksums
        forms += [forms[0] + bytes(cramjam.lz4.compress(b""))]  # two frames
        for block_linked in (False, True):
            stream = cramjam.lz4.Compressor(9, True, block_linked)
            stream.compress(data)
            forms.append(bytes(stream.finish()))
        return forms
    return [zstd_without_size(data)]


def zstd_without_size(data: bytes) -> bytes:
    stream = cramjam.zstd.Compressor(3)
    stream.compress(data)
    # A flush before the end: the header is written without knowing the size.
    frame = bytes(stream.flush()) + bytes(stream.finish())
    assert frame[4] & 0xE0 == 0
    return frame


@every_content
def test_we_read_what_other_producers_may_write(compressor: Codec, data: bytes) -> None:
    for written in foreign(compressor.name, data):
        assert decompress(compressor.id, written, len(data)) == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like(codec: Codec, kind: type) -> None:
    written = compress(codec.id, check_level(codec.id, None), kind(EVENTS))
    assert type(written) is bytes
    assert decompress(codec.id, kind(written), len(EVENTS)) == EVENTS


def test_other_types_are_refused(codec: Codec) -> None:
    for data in ("text", None):
        with pytest.raises(TypeError):
            compress(codec.id, check_level(codec.id, None), data)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            decompress(codec.id, data, 10)  # type: ignore[arg-type]


# ---- the formats -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", implementations("lz4"))
def test_lz4_frame_is_one_that_java_reads(library: str) -> None:
    choose_implementation("lz4", library)
    for level in levels("lz4"):
        frame = compress(3, level, EVENTS)
        flags, block = frame[4], frame[5]
        assert frame[:4] == struct.pack("<I", 0x184D2204)
        # Version 1, independent blocks, no content size; checksums (0x10: of blocks) only where they can't be
        # avoided. tests/reference shows that Java reads these.
        assert flags == (0x70 if library == "cramjam" and level >= 3 else 0x60)
        assert block == 0x40  # 64 KiB
    choose_implementation("lz4", None)


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


@pytest.mark.parametrize("library", implementations("zstd"))
def test_zstd_frame_has_its_size(library: str) -> None:
    choose_implementation("zstd", library)
    for data, flags, size in (
        (EVENTS, 0xA0, struct.pack("<I", len(EVENTS))),  # four bytes, single segment
        (EVENTS[:300], 0x60, struct.pack("<H", 300 - 256)),
        (b"x", 0x20, b"\x01"),
    ):
        frame = compress(4, 22, data)  # a window that is large enough for a single segment
        assert frame[4] == flags
        assert frame[5 : 5 + len(size)] == size
    choose_implementation("zstd", None)


# ---- hostile input -----------------------------------------------------------------------------------------


def test_output_is_bounded(codec: Codec) -> None:
    bomb = compress(codec.id, check_level(codec.id, None), SAMPLES["zeros"])
    for bound in (0, 1, 1000, 999_999):
        with pytest.raises(
            ValueError, match=f"{codec.name} data is larger than {bound} bytes when decompressed"
        ):
            decompress(codec.id, bomb, bound)
    assert decompress(codec.id, bomb, 1_000_000) == SAMPLES["zeros"]


def test_output_is_bounded_when_the_size_is_not_told(compressor: Codec) -> None:
    for bomb in foreign(compressor.name, bytes(10_000_000)):
        for bound in (0, 5_000_000, 9_999_999):
            with pytest.raises(ValueError, match=f"{compressor.name} data is larger than {bound} bytes"):
                decompress(compressor.id, bomb, bound)
        assert len(decompress(compressor.id, bomb, 10_000_000)) == 10_000_000


def test_no_memory_is_taken_for_what_cannot_come_out(compressor: Codec) -> None:
    """The bound may be far above what so few bytes can hold."""
    data = compress(compressor.id, check_level(compressor.id, None), EVENTS[:1000])
    tracemalloc.start()
    try:
        assert decompress(compressor.id, data, 1 << 28) == EVENTS[:1000]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20


def test_negative_bound_is_told(codec: Codec) -> None:
    with pytest.raises(ValueError, match="max_size is -1"):
        decompress(codec.id, b"", -1)


def test_claimed_sizes_are_not_believed(compressor: Codec) -> None:
    claim = b"\xff\xff\xff\xff\x0f"  # 4 GiB of snappy
    claims = {
        "gzip": [],  # gzip's claim stands behind the content
        "snappy": [claim, compress(2, 0, b"")[:16] + struct.pack(">i", len(claim)) + claim],
        "lz4": [],  # its optional content size is not used
        # zstd: single segment, 8-byte content size of 1 TiB
        "zstd": [b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 40) + b"\x01\x00\x00"],
    }
    for data in claims[compressor.name]:
        with pytest.raises(ValueError, match=f"{compressor.name} data is larger than 1000 bytes"):
            decompress(compressor.id, data, 1000)


def test_a_claim_that_is_not_kept_is_told(compressor: Codec) -> None:
    if compressor.name != "zstd":
        return
    # Single segment, one byte of content size: 5; one raw block of 3 bytes, the last one.
    for claimed in (2, 5):
        with pytest.raises(ValueError, match="corrupt zstd data"):
            decompress(4, b"\x28\xb5\x2f\xfd\x20" + bytes([claimed]) + b"\x19\x00\x00abc", 1000)
    assert decompress(4, b"\x28\xb5\x2f\xfd\x20\x03\x19\x00\x00abc", 1000) == b"abc"


@pytest.mark.parametrize("tail", [b"\x00", b"garbage, and more of it"])
def test_what_follows_is_told(compressor: Codec, tail: bytes) -> None:
    with pytest.raises(ValueError, match=compressor.name):
        decompress(
            compressor.id, compress(compressor.id, check_level(compressor.id, None), EVENTS) + tail, 10**6
        )


def test_every_cut_is_told(compressor: Codec) -> None:
    whole = compress(compressor.id, check_level(compressor.id, None), EVENTS[:40_000])
    block_ends = set()
    if compressor.name == "snappy":  # framing has no end mark: a cut between two blocks is not seen here
        (first,) = struct.unpack_from(">i", whole, 16)
        block_ends = {16, 16 + 4 + first}
    for end in [*range(40), *range(40, len(whole), 97), len(whole) - 1]:
        if end not in block_ends:
            with pytest.raises(ValueError, match=compressor.name):
                decompress(compressor.id, whole[:end], 40_000)


def test_cut_frames_of_other_producers_are_told(compressor: Codec) -> None:
    whole = foreign(compressor.name, EVENTS)[0]
    for end in [*range(len(whole) // 7, len(whole), len(whole) // 7), len(whole) - 1]:
        with pytest.raises(ValueError, match=f"corrupt {compressor.name} data"):
            decompress(compressor.id, whole[:end], len(EVENTS))


def test_garbage_is_told(compressor: Codec) -> None:
    for data in (b"\xff" * 30, b"garbage " * 10, b"\x01"):
        with pytest.raises(ValueError, match=compressor.name):
            decompress(compressor.id, data, 10_000)


def test_flipped_bits_never_do_more_than_raise(compressor: Codec) -> None:
    whole = bytearray(compress(compressor.id, check_level(compressor.id, None), EVENTS[:5000]))
    told = 0
    for _ in range(300):
        at, bit = RNG.randrange(len(whole)), 1 << RNG.randrange(8)
        whole[at] ^= bit
        try:
            assert len(decompress(compressor.id, whole, 20_000)) <= 20_000
        except ValueError:
            told += 1
        whole[at] ^= bit
    assert told > 0


# ---- threads and imports -----------------------------------------------------------------------------------


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


# Packages that cannot be imported, as on a platform they have no wheels for.
_ABSENT = """
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {absent!r} or name in {absent!r}:
            raise ModuleNotFoundError(f'{{name}} is absent')
sys.meta_path.insert(0, Absent())
for name in {absent!r}:
    sys.modules.pop(name, None)
"""


def test_packages_are_imported_when_used() -> None:
    loaded = "print(sorted({'lz4', 'zstandard', 'cramjam'} & {m.split('.')[0] for m in sys.modules}))"
    said = _python(
        "from kprod._core.compression import get_codec\n"
        f"{loaded}\nget_codec('gzip')\n{loaded}\nget_codec('snappy')\n{loaded}"
    )
    assert said.splitlines() == ["[]", "[]", "['cramjam']"]


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_the_next_library_stands_in_for_one_that_is_absent(codec: str) -> None:
    there = list(implementations(codec))
    absent: list[str] = []
    while there:
        if there[0] == "liblz4":
            # It is in the package lz4, which then stands in for nothing either.
            _says_who_does_it(codec, there, absent)
            absent.append("lz4")
            there = [library for library in there if library not in ("liblz4", "lz4")]
            continue
        _says_who_does_it(codec, there, absent)
        absent.append(there.pop(0))
    assert "cramjam" in absent


def _says_who_does_it(codec: str, there: list[str], absent: list[str]) -> None:
    said = _python(
        f"import tests.reference.compression_zstd\n{_ABSENT.format(absent=absent)}"
        "from kprod._core.compression import get_codec, compress, decompress, implementations\n"
        f"codec = get_codec({codec!r})\n"
        "print(codec.implementation, *implementations(codec.name))\n"
        "assert decompress(codec.id, compress(codec.id, 3, b'abc' * 1000), 3000) == b'abc' * 1000"
    )
    assert said.split() == [there[0], *there]


@pytest.mark.skipif(
    "liblz4" not in implementations("lz4"), reason="no package lz4 that exports its functions"
)
def test_lz4_without_its_python_module_reads_back_without_cramjam_as_well() -> None:
    said = _python(
        f"import sys\n{_ABSENT.format(absent=['cramjam'])}"
        "from kprod._core.compression import compress, decompress, get_codec\n"
        "assert get_codec('lz4').implementation == 'liblz4'\n"
        "frame = compress(3, 0, b'abc' * 100000)\n"
        "assert 'lz4' not in sys.modules, 'finding its functions has imported the package'\n"
        "assert decompress(3, frame, 300000) == b'abc' * 100000\n"
        "print('read')"
    )
    assert said.strip() == "read"


@pytest.mark.parametrize("codec", ["snappy", "lz4", "zstd"])
def test_missing_packages_are_told(codec: str) -> None:
    said = _python(
        _ABSENT.format(absent=["cramjam", "lz4", "zstandard", "compression", "compression.zstd"])
        + "from kprod._core.compression import get_codec\n"
        f"try: get_codec({codec!r})\n"
        "except ImportError as error: print(error)"
    )
    assert said.startswith(f"compression type '{codec}' needs the package 'cramjam': pip install cramjam (")
    assert "cramjam: cramjam is absent" in said


def test_the_library_in_use_is_told() -> None:
    assert get_codec("none").implementation is None
    assert get_codec("gzip").implementation == "zlib"
    for name in ("snappy", "lz4", "zstd"):
        assert get_codec(name).implementation == implementations(name)[0]
    choose_implementation("lz4", "cramjam")
    assert get_codec("lz4").implementation == "cramjam"
    choose_implementation("lz4", None)
    assert get_codec("lz4").implementation == implementations("lz4")[0]


@pytest.mark.parametrize(
    ("codec", "library", "rule"),
    [
        ("lz4", "zlib", "must be 'lz4' or 'cramjam' or None|must be 'liblz4' or 'cramjam' or 'lz4' or None"),
        ("gzip", "", "must be 'zlib' or None"),
        ("none", "zlib", "must be None"),
    ],
)
def test_unknown_library_is_told(codec: str, library: str, rule: str) -> None:
    with pytest.raises(ValueError, match=f"implementation of {codec} is {library!r}: ({rule})"):
        choose_implementation(codec, library)


def test_gzip_is_zlib() -> None:
    assert zlib.decompress(compress(1, 9, EVENTS), 31) == EVENTS
