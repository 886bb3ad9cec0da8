"""What `kprod produce` reads: formats, damaged input, gzip, places in messages."""

from __future__ import annotations

import gzip
import io
import re
import sys
from pathlib import Path

import pytest

from kprod.commands import produce_input
from kprod.commands.exit_status import CommandError
from kprod.commands.produce_input import InputOptions, InputRecord, Source


def read(
    path: Path | str, options: InputOptions | None = None, format: str | None = None
) -> tuple[list[InputRecord], list[tuple[int, str]]]:
    problems: list[tuple[int, str]] = []
    source = Source(str(path), format)
    records = list(source.read(options or InputOptions(), lambda line, text: problems.append((line, text))))
    return records, problems


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.ndjson", "ndjson"),
        ("a.jsonl", "ndjson"),
        ("a.json.gz", "ndjson"),
        ("a.CSV", "csv"),
        ("a.tsv.gz", "csv"),
        ("a.log", "lines"),
        ("a", "lines"),
        ("a.gz", "lines"),
    ],
)
def test_format_by_suffix(tmp_path: Path, name: str, format: str) -> None:
    path = write(tmp_path / name, b"")
    assert Source(str(path), None).format == format
    assert Source(str(path), "file").format == "file"


def test_lines_are_taken_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\r\n\n two \r\r\n\xff\xfe\nlast")
    records, problems = read(path)
    assert [(record.line, record.raw) for record in records] == [
        (1, b"one"),
        (2, b""),
        (3, b" two \r"),
        (4, b"\xff\xfe"),
        (5, b"last"),
    ]
    assert problems == []


def test_utf8_mark_is_not_data(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\n\xef\xbb\xbftwo")
    assert [record.raw for record in read(path)[0]] == [b"one", b"\xef\xbb\xbftwo"]


def test_lines_by_separator_and_pattern(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"k:v:w\nnone\n:empty\n")
    records, problems = read(path, InputOptions(key_separator=b":"))
    assert [record.fields for record in records] == [
        {"key": b"k", "value": b"v:w"},
        {"key": b"", "value": b"empty"},
    ]
    assert [line for line, _ in problems] == [2]
    assert "':' does not occur" in problems[0][1]

    records, problems = read(path, InputOptions(pattern=re.compile(rb"(?P<first>\w+):")))
    assert [record.fields for record in records] == [{"first": b"k"}]
    assert [line for line, _ in problems] == [2, 3]


def test_ndjson_names_what_is_wrong_where(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.ndjson", b' {"a": 1.10} \r\n\n{"a":\nNaN\n[1]\n\xff\n' + b"[" * 200_000 + b"\n{}"
    )
    records, problems = read(path, InputOptions(needs_fields=True))
    assert [(record.line, record.raw) for record in records] == [
        (1, b'{"a": 1.10}'),
        (5, b"[1]"),
        (8, b"{}"),
    ]
    assert [line for line, _ in problems] == [3, 4, 6, 7]
    texts = [text for _, text in problems]
    assert texts[0] == "not valid JSON at character 6: Expecting value"
    assert texts[1] == "not valid JSON: NaN is not JSON"
    assert texts[2] == "not valid UTF-8 at byte 1"
    assert texts[3].startswith("not valid JSON")


def test_csv_rows_by_column(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", b'id,name\r\n1,"two\nlines, comma"\r\n2\r\n\r\n3,\\N\r\n4,"open"x\r\n5,\xfc\r\n'
    )
    records, problems = read(path, InputOptions(null="\\N"))
    assert [(record.line, record.fields) for record in records] == [
        (2, {"id": "1", "name": "two\nlines, comma"}),
        (6, {"id": "3", "name": None}),
        (8, {"id": "5", "name": "\udcfc"}),
    ]
    assert [line for line, _ in problems] == [4, 7]
    assert problems[0][1] == "the row has 1 columns, the header 2"
    assert problems[1][1].startswith("not valid CSV")


def test_csv_quote_that_never_closes_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'id\n1\n"2\n3\n')
    records, problems = read(path)
    assert [record.fields for record in records] == [{"id": "1"}]
    assert [line for line, _ in problems] == [3]


def test_delimiter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", b"a\tb\n1,5\t2\n")
    assert read(path)[0][0].fields == {"a": "1,5", "b": "2"}
    path = write(tmp_path / "b.csv", b"a;b\n1,5;2\n")
    assert read(path, InputOptions(delimiter=";"))[0][0].fields == {"a": "1,5", "b": "2"}


def test_missing_columns_are_found_before_anything_is_sent(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"id,name\n1,2\n")
    with pytest.raises(CommandError, match="no column 'user'; the header row has 'id', 'name'"):
        Source(str(path), None).check(InputOptions(columns=("id", "user")))
    Source(str(path), None).check(InputOptions(columns=("id", "name")))
    path = write(tmp_path / "b.csv", b"id,id\n1,2\n")
    with pytest.raises(CommandError, match="names 'id' more than once"):
        Source(str(path), None).check(InputOptions(columns=("id",)))
    # stdin cannot be looked at before; there it is told when it is read.
    records, problems = read(path)
    assert (records, [line for line, _ in problems]) == ([], [1])


def test_whole_files(tmp_path: Path) -> None:
    data = bytes(range(256)) + b"\x1f\x8b\n"
    path = write(tmp_path / "picture.png", data)
    (record,), problems = read(path, format="file")
    assert record == (0, data, {"path": str(path), "name": "picture.png", "stem": "picture"})
    assert problems == []
    packed = write(tmp_path / "a.gz", gzip.compress(b"text"))
    assert read(packed, format="file")[0][0].raw == packed.read_bytes()
    records, problems = read(path, InputOptions(max_file_bytes=200), format="file")
    assert records == []
    assert problems == [(0, "has 259 bytes, a record may have 200 (max.request.size)")]


def test_gzip_by_content(tmp_path: Path) -> None:
    text = b"".join(b'{"n":%d}\n' % n for n in range(200_000))
    path = write(tmp_path / "a.ndjson.gz", gzip.compress(text))
    source = Source(str(path), None)
    records = source.read(InputOptions(), lambda line, text: pytest.fail(text))
    assert next(records).raw == b'{"n":0}'
    assert source.size is not None
    assert 0 < source.bytes_read <= source.size
    assert sum(1 for _ in records) == 199_999
    assert source.bytes_read == source.size
    given_up = Source(str(path), None)
    records = given_up.read(InputOptions(), lambda line, text: pytest.fail(text))
    next(records)
    read_so_far = given_up.bytes_read
    records.close()
    assert given_up.bytes_read == read_so_far < source.size
    # The suffix is gone, the content is the same.
    assert len(read(write(tmp_path / "b.ndjson", path.read_bytes()))[0]) == 200_000


@pytest.mark.parametrize("cut", ["truncated", "damaged"])
def test_damaged_gzip_gives_what_is_readable(tmp_path: Path, cut: str) -> None:
    packed = bytearray(gzip.compress(b"".join(b"line %d\n" % n for n in range(100_000))))
    if cut == "truncated":
        packed = packed[: len(packed) // 2]
    else:
        packed[-8] ^= 1  # the checksum of the content
    records, problems = read(write(tmp_path / "a.gz", bytes(packed)))
    assert [record.raw for record in records] == [b"line %d" % n for n in range(len(records))]
    assert 1000 < len(records) < 100_000
    assert len(problems) == 1
    assert problems[0][0] == len(records)
    assert "cannot be read any further" in problems[0][1]


def test_endless_line_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce_input, "MAX_LINE_BYTES", 1000)
    path = write(tmp_path / "a.txt", b"a\n" + b"x" * 10_500 + b"\nb\n" + b"y" * 1000)
    records, problems = read(path)
    assert [(record.line, record.raw) for record in records] == [(1, b"a"), (3, b"b")]
    assert problems == [(n, "the line is longer than 1,000 bytes") for n in (2, 4)]


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"a\nb\n", gzip.compress(b"a\nb\n")):
        stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)))
        monkeypatch.setattr(sys, "stdin", stdin)
        source = Source("-", None)
        assert source.size is None
        assert [record.raw for record in source.read(InputOptions(), lambda line, text: None)] == [b"a", b"b"]
        assert not stdin.closed


def test_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="nothing cannot be read: No such file"):
        Source(str(tmp_path / "nothing"), None)
    with pytest.raises(CommandError, match="cannot be read"):
        Source(str(tmp_path), None)
