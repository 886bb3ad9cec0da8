"""What is in a topic, as clients that are independent of kprod read it.

Three of them: librdkafka (confluent-kafka), kafka-python, and Apache Kafka's own Java console consumer. Each
gives the same plain :class:`ConsumedRecord`, so what they say can be compared with ``==``.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import kafka as kafka_python
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tests.kafka.distribution import KafkaDistribution

CREATE_TIME = 0
LOG_APPEND_TIME = 1


class ConsumedRecord(NamedTuple):
    """A record as a consumer got it; ``timestamp`` in ms, ``timestamp_type`` as in the batch attributes."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int
    timestamp_type: int


def stream_confluent(
    bootstrap_servers: str,
    topic: str,
    *,
    expect: int | None = None,
    isolation: str = "read_uncommitted",
    timeout: float = 60.0,
    settings: Mapping[str, str] | None = None,
) -> Iterator[list[Message]]:
    """All of a topic from its beginning, as lists of confluent-kafka's messages, for streams of millions.

    Ends when every partition's end was reached; with ``expect``, not before that many records were seen,
    unless ``timeout`` seconds pass without a record (needed where the broker answers before a record can be
    read: acks 0 and 1). CRCs are checked. ``settings`` are further options, such as those of TLS.

    Raises:
        TimeoutError: a partition's end was not reached within ``timeout`` seconds of silence.
        KafkaException: the client failed; a CRC that does not match is such a failure.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "independent-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "check.crcs": True,
            "isolation.level": isolation,
            "fetch.wait.max.ms": 20,
            "fetch.error.backoff.ms": 20,
            "log_level": 2,
            **(settings or {}),
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        if not partitions:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"no topic {topic}"))
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        at_end: set[int] = set()
        seen = 0
        silent_since = time.monotonic()
        while len(at_end) < len(partitions) or (expect is not None and seen < expect):
            records = []
            for message in consumer.consume(10_000, timeout=0.25):
                error = message.error()
                if error is None:
                    at_end.discard(message.partition())
                    records.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    at_end.add(message.partition())
                else:
                    raise KafkaException(error)
            if records:
                seen += len(records)
                silent_since = time.monotonic()
                yield records
            elif time.monotonic() - silent_since > timeout:
                if len(at_end) == len(partitions):
                    return
                missing = sorted(set(partitions) - at_end)
                raise TimeoutError(f"{topic}: ends of partitions {missing} not seen in {timeout:g} s")
    finally:
        consumer.close()


def read_confluent(
    bootstrap_servers: str,
    topic: str,
    *,
    expect: int | None = None,
    isolation: str = "read_uncommitted",
    timeout: float = 15.0,
    settings: Mapping[str, str] | None = None,
) -> list[ConsumedRecord]:
    """All of a topic by librdkafka, by partition and offset; the arguments are :func:`stream_confluent`'s."""
    messages = stream_confluent(
        bootstrap_servers, topic, expect=expect, isolation=isolation, timeout=timeout, settings=settings
    )
    return sorted((_from_confluent(message) for batch in messages for message in batch), key=_place)


def read_kafka_python(bootstrap_servers: str, topic: str, *, timeout: float = 30.0) -> list[ConsumedRecord]:
    """All of a topic by kafka-python, by partition and offset, up to the ends it has now. CRCs are checked.

    Raises:
        TimeoutError: the ends were not reached within ``timeout`` seconds.
    """
    consumer: Any = kafka_python.KafkaConsumer(
        bootstrap_servers=bootstrap_servers.split(","),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        check_crcs=True,
        fetch_max_wait_ms=20,
    )
    try:
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise LookupError(f"kafka-python knows no topic {topic}")
        partitions = [kafka_python.TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        records: list[ConsumedRecord] = []
        deadline = time.monotonic() + timeout
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{topic}: kafka-python got {len(records)} records in {timeout:g} s, not up to {ends}"
                )
            for batch in consumer.poll(timeout_ms=250, max_records=10_000).values():
                records += [
                    ConsumedRecord(
                        r.partition, r.offset, r.key, r.value, tuple(r.headers), r.timestamp, r.timestamp_type
                    )
                    for r in batch
                ]
        return sorted(records, key=_place)
    finally:
        consumer.close()


def read_java(
    distribution: KafkaDistribution, bootstrap_servers: str, topic: str, count: int, *, timeout: float = 60.0
) -> list[ConsumedRecord]:
    """``count`` records of a topic by Apache Kafka's console consumer, by partition and offset.

    Fewer come back when no more are there. Keys, values and header values may hold any bytes; header keys
    must not hold a colon, which the console consumer prints after them.

    Raises:
        RuntimeError: the console consumer failed.
    """
    # What is printed between fields cannot be in them: it is made up for this one call.
    field, line, header, null = (
        f"<{name}-{secrets.token_hex(12)}>" for name in ("field", "line", "header", "null")
    )
    options = {
        "print.timestamp": "true",
        "print.partition": "true",
        "print.offset": "true",
        "print.headers": "true",
        "print.key": "true",
        "print.value": "true",
        "key.separator": field,
        "line.separator": line,
        "headers.separator": header,
        "null.literal": null,
    }
    command = distribution.tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "--bootstrap-server",
        bootstrap_servers,
        "--topic",
        topic,
        "--from-beginning",
        "--max-messages",
        str(count),
        "--timeout-ms",
        str(int(timeout * 1000)),
        "--group",
        f"java-reader-{secrets.token_hex(6)}",
        *(word for name, value in options.items() for word in ("--property", f"{name}={value}")),
    )
    said = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=timeout + 30
    )
    if said.returncode and b"TimeoutException" not in said.stdout + said.stderr:
        raise RuntimeError(f"the console consumer failed:\n{said.stderr.decode(errors='replace')[-4000:]}")
    # What it logs goes to the same standard output, between the records, a line each.
    lines = said.stdout.split(line.encode())[:-1]
    return sorted(
        (_from_java(text.split(field.encode()), header.encode(), null.encode()) for text in lines), key=_place
    )


def _place(record: ConsumedRecord) -> tuple[int, int]:
    return record.partition, record.offset


def _from_confluent(message: Message) -> ConsumedRecord:
    timestamp_type, timestamp = message.timestamp()
    # librdkafka counts from "not available": 1 CreateTime, 2 LogAppendTime.
    headers = tuple((name, value) for name, value in message.headers() or ())
    return ConsumedRecord(
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        headers,
        timestamp,
        timestamp_type - 1,
    )


_JAVA_TIME = re.compile(rb"(CreateTime|LogAppendTime):(-?\d+)\Z")


def _from_java(fields: list[bytes], header_separator: bytes, null: bytes) -> ConsumedRecord:
    when, partition, offset, headers, key, value = fields
    told = _JAVA_TIME.search(when)
    if told is None:
        raise RuntimeError(f"unexpected timestamp of the console consumer: {when!r}")

    def or_none(text: bytes) -> bytes | None:
        return None if text == null else text

    pairs: list[tuple[str, bytes | None]] = []
    if headers != b"NO_HEADERS":
        for pair in headers.split(header_separator):
            name, _, content = pair.partition(b":")
            pairs.append((name.decode(), or_none(content)))
    return ConsumedRecord(
        int(partition.removeprefix(b"Partition:")),
        int(offset.removeprefix(b"Offset:")),
        or_none(key),
        or_none(value),
        tuple(pairs),
        int(told[2]),
        CREATE_TIME if told[1] == b"CreateTime" else LOG_APPEND_TIME,
    )
