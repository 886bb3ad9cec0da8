"""Files and stdin as a stream of records: one at a time, so that size does not matter.

A reader yields :class:`InputRecord`; what cannot be read is reported with its place and left out.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from kprod.commands.exit_status import CommandError

FORMATS = ("ndjson", "csv", "lines", "file")
STDIN = "-"

MAX_LINE_BYTES = 64 << 20
"""A longer line is an error: it would have to be held in memory, and brokers refuse such records."""

_FORMAT_OF_SUFFIX = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson", ".csv": "csv", ".tsv": "csv"}
_GZIP_MAGIC = b"\x1f\x8b"
_UTF8_BOM = b"\xef\xbb\xbf"

Report = Callable[[int, str], None]
"""Takes the line (0: none in particular) and what is wrong there."""


class InputRecord(NamedTuple):
    """One record of the input.

    Attributes:
        line: where it starts, from 1; 0 for a whole file.
        raw: all of it as it stands there; None for a CSV row, which is given by its fields.
        fields: what can be extracted from; for NDJSON any JSON value, None where there are no fields.
    """

    line: int
    raw: bytes | None
    fields: Any


@dataclass(frozen=True)
class InputOptions:
    """What the readers need to know from the command line.

    Attributes:
        pattern: for lines: its named groups are the fields.
        key_separator: for lines: fields ``key`` and ``value`` are before and after its first place.
        delimiter: of CSV columns; None: by the file's suffix.
        null: the text of a CSV cell that stands for null.
        columns: fields that every CSV file must have.
        max_file_bytes: the largest whole file.
        needs_fields: whether any field is asked for.
    """

    pattern: re.Pattern[bytes] | None = None
    key_separator: bytes | None = None
    delimiter: str | None = None
    null: str | None = None
    columns: tuple[str, ...] = ()
    max_file_bytes: int = 1 << 20
    needs_fields: bool = False


class JsonNumber(float):
    """A JSON number with a fraction or exponent that keeps its text: ``1.10`` must not become ``1.1``."""

    text: str

    def __new__(cls, text: str) -> JsonNumber:
        """Read it."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Where no field is asked for, lines are only checked.
_CHECKER = json.JSONDecoder(parse_constant=_refuse_constant)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=JsonNumber)


class Source:
    """A file or stdin.

    Args:
        path: of the file; '-' is stdin.
        format: one of FORMATS; None: by the suffix, else lines.

    Raises:
        CommandError: there is no such file, or it cannot be read.
    """

    def __init__(self, path: str, format: str | None) -> None:
        self.path = path
        self.name = "stdin" if path == STDIN else path
        self.format = format or _format_of(path)
        self._raw: IO[bytes] | None = None
        self._finished = False
        self._position = 0
        self.size: int | None = None
        """Bytes on disk (compressed, if they are); None: not known."""
        if path == STDIN:
            return
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror or error}") from None
        if os.path.isfile(path):
            self.size = status.st_size

    @property
    def bytes_read(self) -> int:
        """How many of its bytes have been read."""
        if self._finished:
            return self.size or 0
        if self._raw is not None and self.size is not None:
            try:
                self._position = self._raw.tell()
            except (OSError, ValueError):
                pass  # closed in the meantime: as far as it was seen last
        return self._position

    def check(self, options: InputOptions) -> None:
        """See before anything is sent whether a CSV file has the columns it needs.

        Raises:
            CommandError: it has not.
        """
        if self.format != "csv" or self.size is None or not options.columns:
            return
        problems: list[str] = []
        with self._open() as stream:
            rows = csv.reader(
                _text_lines(stream, lambda line, text: None), delimiter=self._delimiter(options)
            )
            try:
                header = next(rows, None)
            except (csv.Error, OSError, EOFError, zlib.error):
                return  # reading it reports that
        if header is not None:
            _check_columns(header, options, problems.append)
        if problems:
            raise CommandError(f"{self.name}: {problems[0]}")

    def read(self, options: InputOptions, report: Report) -> Generator[InputRecord, None, None]:
        """Its records.

        Args:
            options: how to read it.
            report: called for everything that is wrong; reading goes on after it where that is possible.
        """
        if self.format == "file":
            yield from self._read_whole(options, report)
            return
        line = 0

        def reported(at: int, problem: str) -> None:
            nonlocal line
            line = max(line, at)
            report(at, problem)

        try:
            with self._open() as stream:
                if self.format == "csv":
                    records = read_csv(stream, self._delimiter(options), options, reported)
                elif self.format == "ndjson":
                    records = read_ndjson(stream, options, reported)
                else:
                    records = read_lines(stream, options, reported)
                for record in records:
                    line = record.line
                    yield record
        except (OSError, EOFError, zlib.error) as error:
            # A truncated or damaged gzip file, a failing disk: what came before is sent.
            reported(line, f"cannot be read any further: {error}")
        self._finished = True

    def _delimiter(self, options: InputOptions) -> str:
        if options.delimiter is not None:
            return options.delimiter
        return "\t" if ".tsv" in Path(self.path).suffixes else ","

    def _open(self) -> IO[bytes]:
        raw: Any = sys.stdin.buffer if self.path == STDIN else open(self.path, "rb")  # noqa: SIM115
        self._raw = raw
        stream: Any = raw
        if self.format != "file" and raw.peek(2)[:2] == _GZIP_MAGIC:
            stream = io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 16)
        return _Owned(stream, raw if self.path != STDIN else None)  # type: ignore[return-value]

    def _read_whole(self, options: InputOptions, report: Report) -> Iterator[InputRecord]:
        limit = options.max_file_bytes
        try:
            with self._open() as stream:
                data = stream.read(limit + 1)
        except OSError as error:
            report(0, f"cannot be read: {error.strerror or error}")
            return
        self._finished = True
        if len(data) > limit:
            size = f"has {self.size:,} bytes" if self.size else "is too large"
            report(0, f"{size}, a record may have {limit:,} (max.request.size)")
            return
        path = Path(self.path)
        yield InputRecord(0, data, {"path": self.path, "name": path.name, "stem": path.stem})


class _Owned:
    """A stream that closes the file under it too, as ``with`` ends."""

    def __init__(self, stream: IO[bytes], file: IO[bytes] | None) -> None:
        self._stream = stream
        self._file = file

    def __enter__(self) -> IO[bytes]:
        return self._stream

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._stream.close()
            self._file.close()


def _format_of(path: str) -> str:
    suffixes = Path(path).suffixes
    if suffixes and suffixes[-1].lower() == ".gz":
        suffixes.pop()
    return _FORMAT_OF_SUFFIX.get(suffixes[-1].lower(), "lines") if suffixes else "lines"


def _numbered_lines(stream: IO[bytes], report: Report) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, line ends included; the mark at the start of UTF-8 files is not."""
    line = 0
    readline = stream.readline
    while True:
        data = readline(MAX_LINE_BYTES)
        if not data:
            return
        line += 1
        if line == 1 and data.startswith(_UTF8_BOM):
            data = data[len(_UTF8_BOM) :]
        if len(data) >= MAX_LINE_BYTES and not data.endswith(b"\n"):
            report(line, f"the line is longer than {MAX_LINE_BYTES:,} bytes")
            while data and not data.endswith(b"\n"):
                data = readline(MAX_LINE_BYTES)
            continue
        yield line, data


def _without_line_end(data: bytes) -> bytes:
    if data.endswith(b"\n"):
        return data[:-2] if data.endswith(b"\r\n") else data[:-1]
    return data


def read_lines(stream: IO[bytes], options: InputOptions, report: Report) -> Iterator[InputRecord]:
    """Lines without their ends; an empty line is a record too."""
    pattern, separator = options.pattern, options.key_separator
    for line, data in _numbered_lines(stream, report):
        text = _without_line_end(data)
        fields: dict[str, Any] | None = None
        if separator is not None:
            key, found, value = text.partition(separator)
            if not found:
                report(line, f"the key separator {separator.decode(errors='replace')!r} does not occur")
                continue
            fields = {"key": key, "value": value}
        elif pattern is not None:
            match = pattern.search(text)
            if match is None:
                report(line, f"the line does not match {pattern.pattern.decode(errors='replace')!r}")
                continue
            fields = match.groupdict()
        yield InputRecord(line, text, fields)


def read_ndjson(stream: IO[bytes], options: InputOptions, report: Report) -> Iterator[InputRecord]:
    """A JSON value per line; blank lines are passed over."""
    decode = (_DECODER if options.needs_fields else _CHECKER).decode
    for line, data in _numbered_lines(stream, report):
        raw = data.strip(b" \t\r\n")
        if not raw:
            continue
        try:
            fields = decode(raw.decode())
        except UnicodeDecodeError as error:
            report(line, f"not valid UTF-8 at byte {error.start + 1}")
        except json.JSONDecodeError as error:
            report(line, f"not valid JSON at character {error.pos + 1}: {error.msg}")
        except (ValueError, RecursionError) as error:
            report(line, f"not valid JSON: {error}")
        else:
            yield InputRecord(line, raw, fields)


def _text_lines(stream: IO[bytes], report: Report) -> Iterator[str]:
    # Bytes that are not UTF-8 become lone surrogates, which the record they are in cannot encode again.
    for _, data in _numbered_lines(stream, report):
        yield data.decode(errors="surrogateescape")


def read_csv(
    stream: IO[bytes], delimiter: str, options: InputOptions, report: Report
) -> Iterator[InputRecord]:
    """Rows as mappings of column names to texts; the first row names the columns."""
    # Bounds what an opening quote without a closing one can swallow.
    csv.field_size_limit(MAX_LINE_BYTES)
    rows = csv.reader(_text_lines(stream, report), delimiter=delimiter, strict=True)
    try:
        header = next(rows, None)
    except csv.Error as error:
        report(1, f"the header row is not valid CSV: {error}")
        return
    if header is None:
        return
    problems: list[str] = []
    _check_columns(header, options, problems.append)
    for problem in problems:
        report(1, problem)
    if problems:
        return
    null, width = options.null, len(header)
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            report(line, f"not valid CSV: {error}")
            continue
        if row is None:
            return
        if not row:
            continue
        if len(row) != width:
            report(line, f"the row has {len(row)} columns, the header {width}")
            continue
        if null is None:
            yield InputRecord(line, None, dict(zip(header, row, strict=True)))
        else:
            cells = (None if cell == null else cell for cell in row)
            yield InputRecord(line, None, dict(zip(header, cells, strict=True)))


def _check_columns(header: list[str], options: InputOptions, report: Callable[[str], None]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        report(f"the header row names {twice[0]!r} more than once")
    missing = [name for name in options.columns if name not in header]
    if missing:
        report(f"there is no column {missing[0]!r}; the header row has {', '.join(map(repr, header))}")


def field_names(fields: Any) -> str:
    """Which fields a record has, for messages."""
    if not isinstance(fields, Mapping):
        return f"it is {type(fields).__name__}"
    names = [str(name) for name in fields]
    shown = ", ".join(names[:8])
    return f"it has {shown}{', ...' if len(names) > 8 else ''}" if names else "it has none"
