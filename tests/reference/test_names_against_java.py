"""The tables of options and of error codes against those of the Java client."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kprod.config import NO_EFFECT, NOT_AVAILABLE, OPTIONS
from kprod.errors import BROKER_ERRORS
from kprod.metric_names import PRODUCER, PRODUCER_METRICS
from tests.kafka.distribution import ensure_distribution

_PROGRAM = Path(__file__).with_name("java") / "KafkaNames.java"

# Why a default differs is said in the documentation of the option.
OTHER_DEFAULTS = {
    "acks": "'all'",
    "bootstrap.servers": "'localhost:9092'",
    "compression.gzip.level": "None",
    "compression.lz4.level": "None",
    "compression.zstd.level": "None",
    "key.serializer": "None",
    "value.serializer": "None",
    "receive.buffer.bytes": "-1",
    "send.buffer.bytes": "-1",
    "sasl.kerberos.service.name": "'kafka'",
    "sasl.mechanism": "None",
}


def java_table(name: str) -> list[list[str]]:
    done = subprocess.run(
        ensure_distribution().tool(str(_PROGRAM), name),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("java_client")
def test_every_error_code_has_javas_name_and_flags() -> None:
    table = java_table("errors")
    assert len(table) > 130
    for code, name, retriable, refresh in table:
        entry = BROKER_ERRORS[int(code)]
        assert entry.name == name
        assert (entry.retriable, entry.refresh_metadata) == (retriable == "true", refresh == "true"), name


@pytest.mark.usefixtures("java_client")
def test_every_option_of_java_is_known_and_has_its_default() -> None:
    table = java_table("options")
    assert len(table) > 100
    by_name = {alias: option for option in OPTIONS.values() for alias in (option.name, *option.aliases)}
    for name, java_default in table:
        option = by_name.get(name.replace(".", "_"))
        if option is None:
            assert name.replace(".", "_") in {*NO_EFFECT, *NOT_AVAILABLE}, name
            continue
        shown = option.show(option.default)
        if name in OTHER_DEFAULTS:
            assert shown == OTHER_DEFAULTS[name], name
        else:
            # No list was null before Kafka 4.2 (KIP-1161), and has been an empty one since.
            assert _as_java(shown) == java_default or (shown == "[]" and java_default == "null"), name


@pytest.mark.usefixtures("java_client")
def test_metrics_have_javas_names() -> None:
    # Among them are the producer's log lines.
    java = {row[1] for row in java_table("metrics") if row[0] == PRODUCER}
    assert len(java) > 60
    ours = {metric.name for metric in PRODUCER_METRICS}
    # Renamed in Kafka 3, and gone with Kafka 5.
    assert java - ours <= {"bufferpool-wait-time-total", "io-waittime-total", "iotime-total"}
    assert ours - java == {"byte-rate", "byte-total"}, "kafka-python has these"


def _as_java(shown: str) -> str:
    """Text of a value as Java shows it."""
    text = {"True": "true", "False": "false", "None": "null"}.get(shown, shown)
    if text.startswith("["):
        text = text[1:-1].replace("'", "").replace(", ", ",")
    return text.strip("'")
