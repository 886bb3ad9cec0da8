"""``kprod perf``: how many records a producer gets acknowledged, and how long each takes."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kprod._version import __version__
from kprod.commands import arguments, figures, producer_options
from kprod.commands.exit_status import CommandError, ExitStatus
from kprod.commands.perf_measurement import PERCENTILES, Measurement, Result, Window
from kprod.config import ProducerConfig
from kprod.errors import KafkaError
from kprod.producer import KafkaProducer
from kprod.records import check_topic_name
from kprod.testing import MockCluster

SUMMARY = "measure throughput and latency of the producer"
DESCRIPTION = """\
Sends records as fast as they are taken, or at a rate, and reports throughput and latency: the time from
send() to the acknowledgement. The options are those of Kafka's own producer performance tool."""

# What --mock keeps in memory.
_MOCK_LIMIT_BYTES = 2 << 30
_MOCK_BROKERS = 3
_MOCK_PARTITIONS = 6
# Values and keys are made before the clock starts and used in turn.
_POOL_BYTES = 4 << 20
_MOST_IN_POOL = 20_000
_FEWEST_IN_POOL = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    load = parser.add_argument_group("load")
    load.add_argument("--topic", required=True, metavar="TOPIC")
    load.add_argument(
        "--num-records",
        required=True,
        type=arguments.positive,
        metavar="N",
        help="how many, warm-up included",
    )
    load.add_argument("--record-size", type=arguments.positive, metavar="BYTES", help="size of random values")
    load.add_argument("--payload-file", metavar="FILE", help="take values from a file, at random")
    load.add_argument(
        "--payload-delimiter", metavar="TEXT", default="\\n", help="what separates them (default: \\n)"
    )
    load.add_argument(
        "--keys", type=arguments.positive, metavar="N", help="random keys out of N (default: no keys)"
    )
    load.add_argument(
        "--throughput",
        type=arguments.rate_or_unlimited,
        default=-1,
        metavar="N",
        help="at most N records per second (default: -1, as many as possible)",
    )
    load.add_argument(
        "--warmup-records",
        type=arguments.not_negative,
        default=0,
        metavar="N",
        help="the first N records are sent and acknowledged before the measurement begins",
    )
    load.add_argument(
        "--seed", type=arguments.whole, default=0, metavar="N", help="of random values and keys"
    )
    load.add_argument(
        "--mock",
        action="store_true",
        help="measure against an embedded cluster in a process of its own; needs no Kafka",
    )

    producer_options.add_arguments(parser, with_config=False)
    group = parser.add_argument_group("producer options")
    group.add_argument(
        "--producer-props",
        "--command-property",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="options of the producer",
    )
    group.add_argument(
        "--producer.config",
        "--command-config",
        dest="producer_config",
        metavar="FILE",
        help="a Java properties file with options; --producer-props goes before it",
    )

    report = parser.add_argument_group("report")
    report.add_argument(
        "--callback",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a delivery callback on every record (default), or only on the few that are timed",
    )
    report.add_argument(
        "--reporting-interval",
        type=arguments.positive,
        default=5000,
        metavar="MS",
        help="between two lines (default: 5000)",
    )
    report.add_argument("--print-metrics", action="store_true", help="the producer's metrics, at the end")
    report.add_argument(
        "--plot", metavar="FILE", help="a picture of latency and throughput over time: png, svg, pdf"
    )
    report.add_argument(
        "--json", action="store_true", help="the result as JSON on stdout, the rest on stderr"
    )


def run(args: argparse.Namespace) -> ExitStatus:
    """Measure.

    Raises:
        CommandError: arguments, options, files or the connection do not allow it.
    """
    _check(args)
    plot = _load_plot(args.plot)
    options, config = producer_options.gather(
        args, files=[args.producer_config], assignments=args.producer_props
    )
    values = _values(args, config)
    pool = _with_keys(values, args)
    out = sys.stderr if args.json else sys.stdout
    with _cluster(args, max(map(len, values))) as cluster:
        if cluster is not None:
            options["bootstrap_servers"] = cluster.bootstrap_servers
        producer, warnings = producer_options.connect(options)
        for text in warnings:
            sys.stderr.write(f"kprod: warning: {text}\n")
        with producer:
            out.write(f"{_setup(args, values, config)}\n")
            result = _measure(args, producer, pool, lambda window: out.write(f"{_window_line(window)}\n"))
            metrics = producer.metrics() or {}
    for line in _result_lines(result):
        out.write(f"{line}\n")
    if args.print_metrics:
        out.write(_metrics_table(metrics))
    if plot is not None:
        plot(args.plot, result, _setup(args, values, config))
        out.write(f"picture: {args.plot}\n")
    if args.json:
        described = {"kprod": __version__, "setup": _described(args, config), **result.as_dict()}
        if args.print_metrics:
            described["metrics"] = metrics
        json.dump(described, sys.stdout, indent=2)
        sys.stdout.write("\n")
    if result.interrupted:
        return ExitStatus.INTERRUPTED
    return ExitStatus.FAILED if result.failed else ExitStatus.OK


def _measure(args: argparse.Namespace, producer: KafkaProducer, pool: list[Any], report: Any) -> Result:
    try:
        producer.partitions_for(args.topic)
    except KafkaError as error:
        raise CommandError(f"topic {args.topic}: {error}") from None
    measurement = Measurement(
        producer,
        args.topic,
        pool,
        rate=args.throughput if args.throughput > 0 else None,
        every_record=args.callback,
        report_interval_s=args.reporting_interval / 1000,
        on_window=report,
    )
    if args.warmup_records:
        measurement.warm_up(args.warmup_records)
    return measurement.run(args.num_records - args.warmup_records)


# --- what is sent -------------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> None:
    try:
        check_topic_name(args.topic)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if (args.record_size is None) == (args.payload_file is None):
        raise CommandError("give either --record-size or --payload-file")
    if args.warmup_records >= args.num_records:
        raise CommandError(
            f"--warmup-records {args.warmup_records} leaves nothing to measure "
            f"of --num-records {args.num_records}"
        )
    if args.mock and args.bootstrap is not None:
        raise CommandError("--mock starts its own cluster; leave out --bootstrap")


def _values(args: argparse.Namespace, config: ProducerConfig) -> list[bytes]:
    rng = random.Random(args.seed)
    if args.payload_file is not None:
        values = _read_payloads(args.payload_file, args.payload_delimiter)
        rng.shuffle(values)
        return values
    size = args.record_size
    if size > config.max_request_size:
        raise CommandError(
            f"--record-size {size} is more than a record may have: max.request.size is "
            f"{config.max_request_size}"
        )
    fitting = max(_FEWEST_IN_POOL, min(_MOST_IN_POOL, _POOL_BYTES // size))
    # Capital letters, as Java's tool sends them: random, but compressible to five eighths.
    letters = bytes(ord("A") + i % 26 for i in range(256))
    return [rng.randbytes(size).translate(letters) for _ in range(min(fitting, args.num_records))]


def _read_payloads(path: str, delimiter: str) -> list[bytes]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"the payload file {path} cannot be read: {error.strerror or error}") from None
    separator = delimiter.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").encode()
    if not separator:
        raise CommandError("--payload-delimiter must not be empty")
    values = [part for part in data.split(separator) if part]
    if not values:
        raise CommandError(f"the payload file {path} is empty")
    return values


def _with_keys(values: list[bytes], args: argparse.Namespace) -> list[tuple[bytes, bytes | None]]:
    if args.keys is None:
        return [(value, None) for value in values]
    rng = random.Random(args.seed + 1)
    # Enough pairs for a random choice of keys, also of few values.
    count = max(len(values), min(_MOST_IN_POOL, args.num_records))
    return [(values[i % len(values)], b"key-%d" % rng.randrange(args.keys)) for i in range(count)]


@contextlib.contextmanager
def _cluster(args: argparse.Namespace, largest: int) -> Iterator[MockCluster | None]:
    """The embedded cluster of --mock; None without it."""
    if not args.mock:
        yield None
        return
    if args.num_records * largest > _MOCK_LIMIT_BYTES:
        raise CommandError(
            f"--mock keeps all records in memory, {figures.size(_MOCK_LIMIT_BYTES)} of values at most: "
            f"{figures.count(args.num_records, 'record')} of {figures.count(largest, 'byte')} are too many"
        )
    with MockCluster(_MOCK_BROKERS, process=True, strict=False) as cluster:
        cluster.create_topic(args.topic, partitions=_MOCK_PARTITIONS)
        yield cluster


# --- the report ---------------------------------------------------------------------------------------------


def _load_plot(path: str | None) -> Any:
    """The function that draws; looked for before anything is sent."""
    if path is None:
        return None
    try:
        from kprod.commands.perf_plot import check_path, draw
    except ImportError as error:
        raise CommandError(f"--plot needs matplotlib: pip install 'kprod[cli]' ({error})") from None
    check_path(path)
    return draw


def _setup(args: argparse.Namespace, values: list[bytes], config: ProducerConfig) -> str:
    mean = sum(map(len, values)) / len(values)
    keys = f"{figures.count(args.keys)} keys" if args.keys else "no keys"
    where = (
        "embedded cluster"
        if args.mock
        else ",".join(f"{host}:{port}" for host, port in config.bootstrap_servers)
    )
    rate = f", at most {args.throughput:,.0f}/s" if args.throughput > 0 else ""
    acks = "all" if config.acks == -1 else config.acks
    return (
        f"{figures.count(args.num_records)} records of {mean:,.0f} B, {keys}{rate} "
        f"to {args.topic} ({where}); "
        f"acks {acks}, compression {config.compression_type}, batch {config.batch_size} B, "
        f"linger {config.linger_ms:g} ms"
    )


def _described(args: argparse.Namespace, config: ProducerConfig) -> dict[str, Any]:
    return {
        "topic": args.topic,
        "num_records": args.num_records,
        "warmup_records": args.warmup_records,
        "record_size": args.record_size,
        "payload_file": args.payload_file,
        "keys": args.keys,
        "throughput": args.throughput,
        "callback": args.callback,
        "mock": args.mock,
        "acks": config.acks,
        "idempotence": config.enable_idempotence,
        "compression": config.compression_type,
        "batch_size": config.batch_size,
        "linger_ms": config.linger_ms,
    }


def _window_line(window: Window) -> str:
    return (
        f"{window.end_s:7.1f} s  {figures.count(window.acked):>11} acked  "
        f"{figures.rate(window.acked, window.seconds):>12}  "
        f"{figures.size(window.bytes / window.seconds):>9}/s  "
        f"latency {_latency(window.mean_ms)} mean, {_latency(window.max_ms)} max"
    )


def _latency(value: float | None) -> str:
    return "-" if value is None else figures.milliseconds(value)


def _result_lines(result: Result) -> Iterator[str]:
    yield ""
    if result.interrupted:
        yield "interrupted: this is what was acknowledged until then"
    if result.warmup_records:
        yield f"warm-up      {figures.count(result.warmup_records, 'record')}, not in the figures below"
    yield (
        f"acknowledged {figures.count(result.acked, 'record')} in {figures.duration(result.seconds)}: "
        f"{figures.rate(result.acked, result.seconds)}, {figures.size(result.bytes / result.seconds)}/s"
    )
    if result.failed:
        yield f"failed       {figures.count(result.failed, 'record')}"
        for text, count in result.errors:
            yield f"             {figures.count(count)} x {text}"
    if result.latency_ms:
        percentiles = ", ".join(f"p{name} {_latency(result.latency_ms[name])}" for name in PERCENTILES)
        yield (
            f"latency      mean {_latency(result.mean_ms)}, {percentiles}, max {_latency(result.max_ms)}"
            + (f" (of {figures.count(result.timed)} timed records)" if result.timed < result.acked else "")
        )
    if result.acked:
        yield (
            f"CPU          {result.cpu_seconds / result.acked * 1e6:.2f} us per record "
            f"({result.cpu_seconds / result.seconds:.0%} of one core, this tool included)"
        )


def _metrics_table(metrics: dict[str, dict[str, Any]]) -> str:
    names = [f"{group}:{name}" for group, found in metrics.items() for name in found]
    width = max(map(len, names), default=0)
    lines = [
        f"{f'{group}:{name}':<{width}}  {f'{value:.3f}' if isinstance(value, float) else value}"
        for group, found in metrics.items()
        for name, value in found.items()
    ]
    return "\n" + "\n".join(lines) + "\n"
