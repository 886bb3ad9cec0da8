"""``kprod produce``: sends files or stdin to a topic."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from kprod.commands import arguments, figures, producer_options
from kprod.commands.exit_status import CommandError, ExitStatus
from kprod.commands.pace import Pace, block_for
from kprod.commands.produce_dry_run import DryRun
from kprod.commands.produce_input import FORMATS, STDIN, InputOptions, InputRecord, Source
from kprod.commands.produce_mapping import TIMESTAMP_FORMATS, FieldError, FieldPath, Mapped, RecordMapping
from kprod.commands.progress import Display, Standing, choose_display
from kprod.config import ProducerConfig
from kprod.errors import KafkaError, MessageSizeTooLargeError
from kprod.producer import KafkaProducer
from kprod.records import check_topic_name

SUMMARY = "send files or stdin to a topic"
DESCRIPTION = """\
Sends every record of the files, or of stdin, to a topic and waits until the brokers have acknowledged it.

Formats: ndjson (a JSON value per line), csv (with a header row), lines, file (each file is one record).
FIELD is a path such as user.id or items.0.sku for ndjson, a column for csv, a named group of --pattern for
lines, and one of path, name, stem for file. Gzip data are decompressed, except with --format file."""

MAX_PRINTED_ERRORS = 100

# A tool that sends in bulk waits a little for fuller batches; the library's own defaults are for services.
_DEFAULTS = {"linger_ms": 20, "batch_size": 65536}
# With a rate limit so many records are sent between two looks at the clock, at most.
_LARGEST_BLOCK = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("topic", metavar="TOPIC")
    parser.add_argument("files", metavar="FILE", nargs="*", default=[], help="'-' or none: stdin")

    reading = parser.add_argument_group("input")
    reading.add_argument(
        "-f",
        "--format",
        choices=FORMATS,
        help="default: by the suffix (.ndjson .jsonl .json, .csv .tsv), otherwise lines",
    )
    reading.add_argument(
        "--delimiter", metavar="CHAR", help="between CSV columns (default: ',', tab for .tsv)"
    )
    reading.add_argument("--null", metavar="TEXT", help="CSV cells with this text are null")
    reading.add_argument(
        "--pattern", metavar="REGEX", help="for lines: named groups (?P<name>...) become fields"
    )
    reading.add_argument("--limit", metavar="N", type=arguments.positive, help="stop after N records")

    record = parser.add_argument_group("record")
    record.add_argument("-k", "--key", metavar="FIELD", help="the key (default: none)")
    record.add_argument(
        "--key-regex",
        metavar="REGEX",
        help="for lines: the key is the group 'key', or the first, or the match",
    )
    record.add_argument(
        "--key-separator", metavar="TEXT", help="for lines: the key before, the value after its first place"
    )
    record.add_argument("--value", metavar="FIELD", help="the value (default: the whole record)")
    record.add_argument(
        "-H", "--header", action="append", default=[], metavar="NAME=FIELD", help="a header; may be repeated"
    )
    record.add_argument(
        "--constant-header",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="the same text for all records",
    )
    record.add_argument("--timestamp", metavar="FIELD", help="the timestamp (default: the time of sending)")
    record.add_argument(
        "--timestamp-format",
        choices=TIMESTAMP_FORMATS,
        default="auto",
        help="default: s, ms or ISO 8601 by its look",
    )
    record.add_argument(
        "--partition", metavar="N", type=arguments.not_negative, help="default: the partitioner chooses"
    )

    producer_options.add_arguments(parser)

    running = parser.add_argument_group("run")
    running.add_argument(
        "--dry-run", action="store_true", help="show what would be sent; connects to nothing"
    )
    running.add_argument(
        "--show",
        metavar="N",
        type=arguments.not_negative,
        default=5,
        help="records that --dry-run shows (default: 5)",
    )
    running.add_argument(
        "--max-errors",
        metavar="N",
        type=arguments.whole,
        default=100,
        help="stop after more failed records than this (default: 100; 0: at the first, -1: never)",
    )
    running.add_argument(
        "--rate", metavar="N", type=arguments.positive_number, help="at most N records per second"
    )
    running.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show it (default: when stderr is a terminal)",
    )


def run(args: argparse.Namespace) -> ExitStatus:
    """Send everything.

    Raises:
        CommandError: arguments, files, options or the connection do not allow it.
    """
    try:
        check_topic_name(args.topic)
    except ValueError as error:
        raise CommandError(str(error)) from None
    options, config = producer_options.gather(
        args, files=[args.config_file], assignments=args.config, defaults=_DEFAULTS
    )
    sources = [Source(path, args.format) for path in args.files or [STDIN]]
    if sum(source.path == STDIN for source in sources) > 1:
        raise CommandError("stdin ('-') can only be read once")
    plan = _Plan(args, sources, config)
    for source in sources:
        source.check(plan.options)
    if any(source.path == STDIN for source in sources) and sys.stdin.isatty():
        sys.stderr.write("kprod: records are read from the terminal, one per line; Ctrl-D ends\n")
        # A bar would get in the way of who types.
        args.progress = bool(args.progress)
    if args.dry_run:
        return _dry_run(args, plan, config)
    producer, warnings = producer_options.connect(options)
    for text in warnings:
        sys.stderr.write(f"kprod: warning: {text}\n")
    with producer, _sigterm_as_interrupt():
        try:
            partitions = producer.partitions_for(args.topic)
        except KafkaError as error:
            raise CommandError(f"topic {args.topic}: {error}") from None
        if args.partition is not None and args.partition not in partitions:
            raise CommandError(
                f"--partition {args.partition}: topic {args.topic} has the partitions 0 to {max(partitions)}"
            )
        return _Run(args, plan, producer).finish()


class _Plan:
    """What is read and how it becomes records."""

    def __init__(self, args: argparse.Namespace, sources: list[Source], config: ProducerConfig) -> None:
        self.sources = sources
        formats = sorted({source.format for source in sources})
        _check_formats(args, formats, sources)
        pattern = _compile("--pattern", args.pattern)
        key_field = "key" if args.key_separator is not None else args.key
        value_field = "value" if args.key_separator is not None else args.value
        headers = [_header(text, "--header") for text in args.header]
        named = [name for name in (key_field, value_field, args.timestamp) if name is not None]
        named += [field for _, field in headers]
        if args.pattern is not None and pattern is not None:
            _check_names(named, sorted(pattern.groupindex), "a named group of --pattern")
        if formats == ["file"]:
            _check_names(named, ["path", "name", "stem"], "known for --format file")
        self.options = InputOptions(
            pattern=pattern,
            key_separator=args.key_separator.encode() if args.key_separator is not None else None,
            delimiter=_delimiter(args.delimiter),
            null=args.null,
            columns=tuple(dict.fromkeys(named)),
            max_file_bytes=config.max_request_size,
            needs_fields=bool(named),
        )

        def mapping(nested: bool) -> RecordMapping:
            def path(text: str | None) -> FieldPath | None:
                return None if text is None else FieldPath(text, nested)

            constants = [_header(text, "--constant-header") for text in args.constant_header]
            return RecordMapping(
                key=path(key_field),
                value=path(value_field),
                headers=[
                    *((name, FieldPath(field, nested)) for name, field in headers),
                    *((name, text.encode()) for name, text in constants),
                ],
                timestamp=path(args.timestamp),
                timestamp_format=args.timestamp_format,
                key_regex=_compile("--key-regex", args.key_regex),
            )

        self._nested = mapping(nested=True)
        self._flat = mapping(nested=False)

    def mapping_for(self, source: Source) -> RecordMapping:
        """How records of a source are mapped: only JSON has fields within fields."""
        return self._nested if source.format == "ndjson" else self._flat

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all sources; None: not known."""
        sizes = [source.size for source in self.sources]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def bytes_read(self) -> int:
        """How many of them have been read."""
        return sum(source.bytes_read for source in self.sources)


class _TooManyFailures(Exception):
    """More records failed than --max-errors allows."""


class _Failures:
    """Records that failed: each is named on stderr, up to a number."""

    def __init__(self, display: Display, tolerated: int) -> None:
        self.count = 0
        self.quiet = False
        self._display = display
        self._tolerated = tolerated
        self._lock = threading.Lock()

    def add(self, source: str, line: int, problem: object) -> None:
        """One failed record. Called from the reading and from the delivery thread."""
        with self._lock:
            self.count += 1
            count = self.count
        if self.quiet or count > MAX_PRINTED_ERRORS + 1:
            return
        if count == MAX_PRINTED_ERRORS + 1:
            self._display.message("further errors are only counted")
            return
        place = f"{source}:{line}" if line else source
        self._display.message(f"{place}: {problem}")

    def check(self) -> None:
        """Stop the reading thread when it is enough.

        Raises:
            _TooManyFailures: there are more than are tolerated.
        """
        if 0 <= self._tolerated < self.count:
            raise _TooManyFailures(
                f"more than {figures.count(self._tolerated, 'record')} failed (--max-errors)"
                if self._tolerated
                else "a record failed, and --max-errors is 0"
            )

    def refuse(self, source: str, line: int, problem: object) -> None:
        """One failed record, found by the reading thread.

        Raises:
            _TooManyFailures: that was one too many.
        """
        self.add(source, line, problem)
        self.check()


class _Run:
    """Sends the records of a plan with a producer."""

    def __init__(self, args: argparse.Namespace, plan: _Plan, producer: KafkaProducer) -> None:
        self._args = args
        self._plan = plan
        self._producer = producer
        self._acked = 0
        self._bytes = 0
        self._started = time.perf_counter()
        self._display = choose_display(self._standing, args.progress)
        self._failures = _Failures(self._display, args.max_errors)

    def finish(self) -> ExitStatus:
        """Send everything, wait until it is decided, and say what came of it."""
        why: str | None = None
        interrupted = False
        with self._display:
            try:
                why = self._send_all()
                self._producer.flush()
            except KeyboardInterrupt:
                interrupted = True
                self._flush_interrupted()
        seconds = time.perf_counter() - self._started
        if why is not None:
            sys.stderr.write(f"stopped: {why}\n")
        sys.stderr.write(
            f"{figures.count(self._acked, 'record')} acknowledged in topic {self._args.topic}, "
            f"{figures.count(self._failures.count)} failed; {figures.size(self._bytes)} in "
            f"{figures.duration(seconds)}, {figures.rate(self._acked, seconds)}\n"
        )
        if interrupted:
            return ExitStatus.INTERRUPTED
        return ExitStatus.FAILED if self._failures.count or why is not None else ExitStatus.OK

    def _flush_interrupted(self) -> None:
        try:
            # In here as well: the second interrupt may come as soon as the message can be read.
            self._display.message("interrupted: what was read is still sent; Ctrl-C again gives it up")
            self._producer.flush()
        except KeyboardInterrupt:
            self._failures.quiet = True
            self._producer.close(timeout=0)

    def _send_all(self) -> str | None:
        """Send what is read; returns why it stopped before the end."""
        rate = self._args.rate
        pace = Pace(rate) if rate else None
        block = block_for(rate, _LARGEST_BLOCK) if rate else 0
        left = 0
        topic, partition, send = self._args.topic, self._args.partition, self._producer.send
        failures, delivered = self._failures, self._delivered
        try:
            for name, line, (value, key, headers, timestamp_ms) in _mapped(
                self._plan, failures, self._args.limit
            ):
                if pace is not None:
                    if left == 0:
                        pace.wait(block)
                        left = block
                    left -= 1
                self._bytes += (len(value) if value else 0) + (len(key) if key else 0)
                try:
                    send(topic, value, key, headers, partition, timestamp_ms, partial(delivered, name, line))
                except (MessageSizeTooLargeError, TypeError, ValueError) as error:
                    failures.refuse(name, line, error)
                except KafkaError as error:
                    # Not about this record: the producer cannot take any.
                    failures.add(name, line, error)
                    return "no more records can be sent"
                failures.check()
        except _TooManyFailures as error:
            return str(error)
        return None

    def _delivered(self, source: str, line: int, error: Exception | None, metadata: object) -> None:
        if error is None:
            self._acked += 1
        else:
            self._failures.add(source, line, error)

    def _standing(self) -> Standing:
        seconds = time.perf_counter() - self._started
        failed = f"  {figures.count(self._failures.count)} failed" if self._failures.count else ""
        return Standing(
            self._plan.bytes_read,
            self._plan.total_bytes,
            f"{figures.count(self._acked)} acknowledged{failed}  {figures.rate(self._acked, seconds)}  "
            f"{figures.size(self._bytes / seconds if seconds else 0)}/s",
        )


def _mapped(plan: _Plan, failures: _Failures, limit: int | None) -> Iterator[tuple[str, int, Mapped]]:
    """The records of all sources with their places.

    Raises:
        _TooManyFailures: too many of them cannot be read or mapped.
    """
    for source, record in itertools.islice(_read(plan, failures), limit):
        try:
            mapped = plan.mapping_for(source)(record)
        except FieldError as error:
            failures.refuse(source.name, record.line, error)
        else:
            yield source.name, record.line, mapped


def _read(plan: _Plan, failures: _Failures) -> Iterator[tuple[Source, InputRecord]]:
    for source in plan.sources:
        for record in source.read(plan.options, partial(failures.refuse, source.name)):
            yield source, record


def _dry_run(args: argparse.Namespace, plan: _Plan, config: ProducerConfig) -> ExitStatus:
    report = DryRun(args.topic, args.show, config)
    failures = _Failures(choose_display(lambda: Standing(0, None, ""), False), args.max_errors)
    try:
        for name, line, record in _mapped(plan, failures, args.limit):
            problem = report.add(name, line, record)
            if problem is not None:
                failures.refuse(name, line, problem)
    except _TooManyFailures as error:
        sys.stderr.write(f"stopped: {error}\n")
    report.finish(failures.count)
    return ExitStatus.FAILED if failures.count else ExitStatus.OK


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: what was read is still acknowledged."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- arguments ----------------------------------------------------------------------------------------------


def _check_formats(args: argparse.Namespace, formats: list[str], sources: list[Source]) -> None:
    others = [source for source in sources if source.format != "lines"]
    for option, given in (
        ("--pattern", args.pattern),
        ("--key-regex", args.key_regex),
        ("--key-separator", args.key_separator),
    ):
        if given is not None and others:
            raise CommandError(
                f"{option} is for lines, but {others[0].name} is read as {others[0].format} (--format lines)"
            )
    for option, given in (("--delimiter", args.delimiter), ("--null", args.null)):
        if given is not None and "csv" not in formats:
            raise CommandError(
                f"{option} is for CSV, but the input is read as {', '.join(formats)} (--format csv)"
            )
    ways = [
        option
        for option, given in (
            ("--key", args.key),
            ("--key-regex", args.key_regex),
            ("--key-separator", args.key_separator),
        )
        if given is not None
    ]
    if len(ways) > 1:
        raise CommandError(f"{' and '.join(ways)} both say where the key is; keep one of them")
    if args.key_separator is not None and (args.value is not None or args.pattern is not None):
        raise CommandError(
            "--key-separator makes key and value; it cannot be combined with --value or --pattern"
        )
    if args.key_separator == "":
        raise CommandError("--key-separator must not be empty")
    fields = [
        option
        for option, given in (
            ("--key", args.key),
            ("--value", args.value),
            ("--timestamp", args.timestamp),
            ("--header", args.header or None),
        )
        if given is not None
    ]
    if fields and "lines" in formats and args.pattern is None:
        source = next(source for source in sources if source.format == "lines")
        raise CommandError(
            f"{fields[0]} names a field, but {source.name} is read as lines, which have none: "
            "give --format ndjson or csv, or --pattern with named groups"
        )


def _check_names(named: list[str], known: list[str], what: str) -> None:
    for name in named:
        if name not in known:
            raise CommandError(f"{name!r} is not {what}; there is {', '.join(known) or 'none'}")


def _compile(option: str, text: str | None) -> re.Pattern[bytes] | None:
    if text is None:
        return None
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise CommandError(f"{option} {text!r} is not a regular expression: {error}") from None


def _delimiter(text: str | None) -> str | None:
    if text is None:
        return None
    text = "\t" if text == "\\t" else text
    if len(text) != 1 or text in '"\r\n':
        raise CommandError(
            f"--delimiter must be one character (\\t for tab) other than a quote, not {text!r}"
        )
    return text


def _header(text: str, option: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name or (option == "--header" and not value):
        raise CommandError(
            f"{option} is written {'NAME=FIELD' if option == '--header' else 'NAME=TEXT'}, not {text!r}"
        )
    return name, value
