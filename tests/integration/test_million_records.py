"""A million keyed records per codec: each is there once, in its key's order, where other clients put it."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from kafka.partitioner.default import murmur2

from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.integration.expectations import CODECS
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import stream_confluent

COUNT = 1_000_000
KEYS = 20_000
PARTITIONS = 6


def _tails(random_source: random.Random) -> list[bytes]:
    # After the 8 digits of its number a value is an event in JSON, 100 bytes in all.
    tails = []
    for _ in range(1000):
        event = {
            "user": random_source.randrange(10**6),
            "path": f"/item/{random_source.randrange(10**4)}",
            "ms": 17,
        }
        text = json.dumps(event)
        tails.append(f" {text}".ljust(92)[:92].encode())
    return tails


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
def test_one_million_records(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer, codec: str
) -> None:
    name = topic(partitions=PARTITIONS)
    tails = _tails(random.Random(7))
    keys = [f"user-{number}".encode() for number in range(KEYS)]
    # 7919 is prime to KEYS: neighbours in time have different keys, each key comes up COUNT / KEYS times.
    key_numbers = [i * 7919 % KEYS for i in range(COUNT)]
    producer = make_producer(kafka, compression_type=codec, batch_size=65536)

    delivered = 0
    errors: list[Any] = []

    def on_delivery(error: Any, metadata: Any) -> None:
        nonlocal delivered
        if error is None:
            delivered += 1
        else:
            errors.append(error)

    started = time.perf_counter()
    for i, key_number in enumerate(key_numbers):
        producer.send(name, b"%08d%b" % (i, tails[i % 1000]), key=keys[key_number], on_delivery=on_delivery)
    producer.flush(timeout=300)
    took = time.perf_counter() - started
    print(f"{codec}: {COUNT / took:,.0f} records/s sent and acknowledged")
    assert not errors, f"{len(errors)} errors, the first: {errors[0]!r}"
    assert delivered == COUNT

    started = time.perf_counter()
    _check(kafka, name, key_numbers, keys, tails)
    print(f"{codec}: read back and verified in {time.perf_counter() - started:.1f} s")


def _check(
    kafka: KafkaCluster, name: str, key_numbers: list[int], keys: list[bytes], tails: list[bytes]
) -> None:
    place = {key: (murmur2(key) & 0x7FFFFFFF) % PARTITIONS for key in keys}
    last = dict.fromkeys(keys, -1)
    seen = bytearray(COUNT)
    problems: list[str] = []
    for messages in stream_confluent(kafka.bootstrap_servers, name):
        for message in messages:
            key, value, partition = message.key(), message.value(), message.partition()
            i = int(value[:8])
            if seen[i]:
                problems.append(f"record {i} is there twice, again at {partition}:{message.offset()}")
            seen[i] = 1
            if key != keys[key_numbers[i]] or value[8:] != tails[i % 1000]:
                problems.append(
                    f"record {i} at {partition}:{message.offset()} is another: {key!r}, {value!r}"
                )
                continue
            if partition != place[key]:
                problems.append(f"record {i}, key {key!r}, is on partition {partition}, not {place[key]}")
            if i < last[key]:
                problems.append(f"record {i} of key {key!r} comes after record {last[key]}")
            last[key] = i
        assert not problems, f"{len(problems)} problems, first: " + "; ".join(problems[:5])
    missing = seen.count(0)
    assert not missing, f"{missing} records are missing, the first is {seen.index(0)}"
