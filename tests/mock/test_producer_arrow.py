"""send_columns() and send_table() with what real Arrow libraries give: pyarrow, polars, pandas, DuckDB."""

from __future__ import annotations

import array
import datetime
import gc
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from kprod import KafkaProducer, errors
from kprod.testing import MockCluster
from tests.mock.conftest import MakeProducer

VALUES = [b"a", None, b"", b"longer than twelve bytes", b"z" * 300]
TEXTS = [None if value is None else value.decode() for value in VALUES]


def sent(cluster: MockCluster) -> list[tuple[bytes | None, bytes | None]]:
    return [(record.key, record.value) for record in cluster.records("t")]


SOURCES: dict[str, Callable[[], Any]] = {
    "pyarrow binary": lambda: pa.array(VALUES, pa.binary()),
    "pyarrow large_binary": lambda: pa.array(VALUES, pa.large_binary()),
    "pyarrow string": lambda: pa.array(TEXTS, pa.string()),
    "pyarrow large_string": lambda: pa.array(TEXTS, pa.large_string()),
    "pyarrow binary_view": lambda: pa.array(VALUES, pa.binary_view()),
    "pyarrow string_view": lambda: pa.array(TEXTS, pa.string_view()),
    "pyarrow slice": lambda: pa.array([b"x", *VALUES, b"y"]).slice(1, 5),
    "pyarrow chunks": lambda: pa.chunked_array([VALUES[:2], [], VALUES[2:]], pa.binary()),
    "pyarrow view chunks": lambda: pa.chunked_array([VALUES[:2], VALUES[2:]], pa.binary_view()),
    "pyarrow column": lambda: pa.table({"v": VALUES, "n": [1, 2, 3, 4, 5]})["v"],
    "pyarrow table of one column": lambda: pa.table({"v": VALUES}),
    "polars strings": lambda: pl.Series(TEXTS),
    "polars binary": lambda: pl.Series(VALUES),
    "polars chunks": lambda: pl.concat([pl.Series(TEXTS[:3]), pl.Series(TEXTS[3:])], rechunk=False),
    "polars column": lambda: pl.DataFrame({"v": VALUES, "n": [1, 2, 3, 4, 5]})["v"],
    "pandas strings": lambda: pd.Series(TEXTS, dtype="string[pyarrow]"),
    "pandas Arrow binary": lambda: pd.Series(VALUES, dtype=pd.ArrowDtype(pa.binary())),
    "duckdb": lambda: duckdb.from_arrow(pa.table({"v": VALUES, "i": [0, 1, 2, 3, 4]})).order("i").select("v"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_values_and_keys_come_as_they_are(cluster: MockCluster, producer: KafkaProducer, kind: str) -> None:
    future = producer.send_columns("t", SOURCES[kind](), keys=SOURCES[kind]())
    assert [report.offset for report in future.get(10)] == [0, 1, 2, 3, 4]
    assert sent(cluster) == [(value, value) for value in VALUES]


def test_fixed_size_binary(cluster: MockCluster, producer: KafkaProducer) -> None:
    producer.send_columns("t", pa.array([b"abcd", None, b"efgh"], pa.binary(4))).get(10)
    assert sent(cluster) == [(None, b"abcd"), (None, None), (None, b"efgh")]


def test_chunks_of_columns_need_not_match(cluster: MockCluster, producer: KafkaProducer) -> None:
    values = [b"%d" % i for i in range(100)]
    producer.send_columns(
        "t",
        pa.chunked_array([values[:1], values[1:40], values[40:]]),
        keys=pa.chunked_array([values[:39], values[39:41], values[41:99], values[99:]]),
        timestamps=pa.chunked_array([list(range(70)), list(range(70, 100))]),
        partitions=pa.array([0] * 100, pa.int32()),
    ).get(10)
    assert sent(cluster) == [(value, value) for value in values]
    assert [record.timestamp for record in cluster.records("t")] == list(range(100))


def test_plain_buffers(cluster: MockCluster, producer: KafkaProducer) -> None:
    data = np.frombuffer(b"aabbb", np.uint8)
    producer.send_columns(
        "t", (data, np.array([0, 2, 5], np.int64)), (b"k1k2", array.array("i", [0, 2, 4]))
    ).get(10)
    assert sent(cluster) == [(b"k1", b"aa"), (b"k2", b"bbb")]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps(cluster: MockCluster, producer: KafkaProducer, unit: Any) -> None:
    moment = datetime.datetime(2026, 11, 23, 12, 0, 1, tzinfo=datetime.timezone.utc)
    arrow = pa.array([moment, None], pa.timestamp(unit, "UTC"))
    for times in (arrow, pl.from_arrow(arrow)):
        cluster.clear()
        producer.send_columns("t", pa.array([b"a", b"b"]), timestamps=times).get(10)
        found = [record.timestamp for record in cluster.records("t")]
        assert found[0] == int(moment.timestamp() * 1000)
        assert found[1] > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda columns: pa.table(columns),
        lambda columns: pa.record_batch(columns),
        lambda columns: pa.table(columns).to_batches()[0],
        lambda columns: pa.RecordBatchReader.from_batches(
            pa.table(columns).schema, pa.table(columns).to_batches(max_chunksize=2)
        ),
        lambda columns: pa.concat_tables([pa.table(columns).slice(0, 1), pa.table(columns).slice(1)]),
        lambda columns: pl.DataFrame(columns),
        lambda columns: pd.DataFrame(columns).convert_dtypes(dtype_backend="pyarrow"),
        lambda columns: duckdb.from_arrow(pa.table(columns)).order("time"),
    ],
    ids=["table", "record batch", "batch of a table", "reader", "chunks", "polars", "pandas", "duckdb"],
)
def test_tables_by_column_name(
    make_cluster: Callable[..., MockCluster], make_producer: MakeProducer, make: Callable[[Any], Any]
) -> None:
    cluster = make_cluster()
    cluster.create_topic("t", partitions=3)
    source = make({
        "user": ["u1", "u2", "u3"], "event": ["one", None, "three"], "time": [10, 20, 30], "where": [2, 0, 2],
    })  # fmt: skip
    future = make_producer(cluster).send_table(
        "t", source, "event", keys="user", timestamps="time", partitions="where", headers={"h": b"v"}
    )
    future.get(10)
    assert list(future.partitions()) == [2, 0, 2] and list(future.offsets()) == [0, 0, 1]
    by_time = sorted(cluster.records("t"), key=lambda record: record.timestamp)
    assert [(r.key, r.value, r.timestamp, list(r.headers)) for r in by_time] == [
        (b"u1", b"one", 10, [("h", b"v")]),
        (b"u2", None, 20, [("h", b"v")]),
        (b"u3", b"three", 30, [("h", b"v")]),
    ]  # fmt: skip


def test_a_table_is_refused_as_values_unless_it_has_one_column(producer: KafkaProducer) -> None:
    with pytest.raises(TypeError, match="2 columns: take one of them, or use send_table"):
        producer.send_columns("t", pa.table({"a": [b"1"], "b": [b"2"]}))
    with pytest.raises(ValueError, match="values='c': that column of the table does not exist"):
        producer.send_table("t", pa.table({"a": [b"1"], "b": [b"2"]}), "c")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2]),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([[b"a"]]),
        pl.Series(["a"], dtype=pl.Categorical),
        pl.Series([1.5]),
    ],
)
def test_other_types_are_refused_with_what_to_do(producer: KafkaProducer, values: Any) -> None:
    with pytest.raises(TypeError, match=r"values must be an Arrow array of binary.*: cast it"):
        producer.send_columns("t", values)


def test_nothing_is_sent_when_a_record_is_wrong(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(max_request_size=1000)
    values = pa.chunked_array([[b"a"] * 10, [b"b", b"x" * 2000]])
    with pytest.raises(errors.MessageSizeTooLargeError, match="record 11 of 12"):
        producer.send_columns("t", values)
    with pytest.raises(ValueError, match="keys must have one item for each of the 12 values, and has 1"):
        producer.send_columns("t", values, keys=pa.array([b"k"]))
    with pytest.raises(ValueError, match=r"partitions\[1\] is 7, which topic 't' does not have"):
        producer.send_columns("t", pa.array([b"a", b"b"]), partitions=pa.array([0, 7]))
    producer.flush(5)
    assert sent(cluster) == []


def test_a_partitioner_of_the_application_gets_bytes(
    make_cluster: Callable[..., MockCluster], make_producer: MakeProducer
) -> None:
    cluster = make_cluster()
    cluster.create_topic("t", partitions=4)
    producer = make_producer(cluster, partitioner=lambda key, every, available: key[0] % 4)
    future = producer.send_columns("t", pa.array(["a", "b"]), keys=pa.array([b"\x02", b"\x07"]))
    future.get(10)
    assert list(future.partitions()) == [2, 3]


def test_memory_of_the_library_is_released(cluster: MockCluster, producer: KafkaProducer) -> None:
    gc.collect()
    before = pa.total_allocated_bytes()
    for _ in range(3):
        values = pa.array([b"v" * 1000] * 1000)
        chunks = pa.chunked_array([values.slice(0, 10), values.slice(10)])
        producer.send_columns("t", values, keys=chunks).get(10)
        with pytest.raises(TypeError):
            producer.send_columns("t", values, keys=pa.array([1.5] * 1000))
        producer.send_table("t", pa.table({"v": chunks}), "v").get(10)
        with pytest.raises(ValueError):
            producer.send_table("t", pa.table({"v": chunks}), "w")
    del values, chunks
    gc.collect()
    assert pa.total_allocated_bytes() == before


def test_more_than_the_buffer_holds(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(buffer_memory=100_000, batch_size=4000)
    values = [b"%06d" % i * 10 for i in range(20_000)]
    producer.send_columns("t", pa.array(values)).get(30)
    assert [value for _, value in sent(cluster)] == values
