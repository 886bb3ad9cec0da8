"""send_many() and send_columns() write what one send() for each record writes."""

from __future__ import annotations

import array
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kprod import KafkaProducer
from kprod.testing import MockCluster

PARTITIONS = 5

sizes = st.one_of(st.integers(0, 20), st.sampled_from([63, 64, 127, 128, 400, 900, 3000]))
payloads = st.one_of(st.none(), st.tuples(sizes, st.integers(0, 255)).map(lambda s: bytes([s[1]]) * s[0]))
keys = st.one_of(st.none(), st.binary(max_size=4), st.sampled_from([b"hot", b"", b"warm"]))
headers = st.one_of(
    st.none(),
    st.lists(st.tuples(st.text(max_size=3), st.one_of(st.none(), st.binary(max_size=3))), max_size=2),
)
# Not later than the brokers' clock: they would refuse those. Far enough apart that a batch cannot hold both.
times = st.one_of(st.integers(0, 5000), st.integers(0, 1_700_000_000_000))
records = st.lists(st.tuples(payloads, keys, headers, times), max_size=60)
few_partitions = st.one_of(st.none(), st.integers(0, PARTITIONS - 1))
limits = st.sampled_from([61, 300, 1000, 16384])


@pytest.fixture(scope="module")
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as made:
        yield made
        assert made.problems == []


def contents(cluster: MockCluster, topic: str) -> list[list[tuple[Any, ...]]]:
    return [
        [(r.value, r.key, list(r.headers), r.timestamp) for r in cluster.records(topic, partition)]
        for partition in range(PARTITIONS)
    ]


def compare(
    cluster: MockCluster,
    rows: list[Any],
    batch_size: int,
    partitions: list[int | None],
    columns: bool,
    codec: str,
) -> None:
    """Without a key and partition the choice is the producer's: these records get a partition here."""
    count = cluster.topics()
    single, bulk = f"single-{len(count)}", f"bulk-{len(count)}"
    for topic in (single, bulk):
        cluster.create_topic(topic, partitions=PARTITIONS)
    places = [
        0 if key is None and place is None else place
        for (_, key, _, _), place in zip(rows, partitions, strict=False)
    ]
    with KafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers,
        batch_size=batch_size,
        linger_ms=1,
        compression_type=codec,
    ) as producer:
        futures = [
            producer.send(single, value, key, head, place, when)
            for (value, key, head, when), place in zip(rows, places, strict=True)
        ]
        values, key_list, heads, whens = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [])
        if columns:
            # Buffers have no nulls.
            values = [value or b"" for value in values]
            rows = [(value, *row[1:]) for value, row in zip(values, rows, strict=True)]
            offsets = array.array("q", [0, *accumulate(map(len, values))])
            if None in key_list:
                future = producer.send_many(bulk, values, key_list, heads, whens, places)
            else:
                key_offsets = array.array("i", [0, *accumulate(map(len, key_list))])
                future = producer.send_columns(
                    bulk, (b"".join(values), offsets), (b"".join(key_list), key_offsets), heads, whens, places
                )
        else:
            future = producer.send_many(bulk, values, key_list, heads, array.array("q", whens), places)
        reports = future.get(30)
        expected = [one.get(30) for one in futures]
    same = [
        [(value or b"" if columns else value, *rest) for value, *rest in partition]
        for partition in contents(cluster, single)
    ]
    assert contents(cluster, bulk) == same
    assert list(future.partitions()) == [one.partition for one in expected]
    assert list(future.offsets()) == [one.offset for one in expected]
    for report, one in zip(reports, expected, strict=True):
        assert (report.partition, report.offset, report.timestamp) == (
            one.partition,
            one.offset,
            one.timestamp,
        )
        assert report.serialized_key_size == one.serialized_key_size
        assert report.serialized_header_size == one.serialized_header_size


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=records,
    batch_size=limits,
    columns=st.booleans(),
    codec=st.sampled_from(["none", "lz4"]),
    data=st.data(),
)
def test_records_are_those_of_one_send_for_each(
    cluster: MockCluster, rows: list[Any], batch_size: int, columns: bool, codec: str, data: st.DataObject
) -> None:
    partitions = data.draw(st.lists(few_partitions, min_size=len(rows), max_size=len(rows)))
    compare(cluster, rows, batch_size, partitions, columns, codec)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=records, batch_size=limits)
def test_records_with_and_without_keys_keep_their_order(
    cluster: MockCluster, rows: list[Any], batch_size: int
) -> None:
    topic = f"mixed-{len(cluster.topics())}"
    cluster.create_topic(topic, partitions=PARTITIONS)
    numbered = [b"%d" % i for i in range(len(rows))]
    with KafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers, batch_size=batch_size, linger_ms=1
    ) as producer:
        future = producer.send_many(topic, numbered, [key for _, key, _, _ in rows])
        places = future.get(30).partitions()
    for partition in range(PARTITIONS):
        expected = [value for value, place in zip(numbered, places, strict=True) if place == partition]
        assert [record.value for record in cluster.records(topic, partition)] == expected
