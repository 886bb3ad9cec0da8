"""PartitionSink on real Kafka: what readers of committed records see of attempts that fail."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from kprod import errors
from kprod.partition_sink import PartitionSink, PartitionWritten
from tests.conftest import TopicFactory
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent

KILLED = """
import os, signal, sys
import pyarrow as pa
from kprod.partition_sink import PartitionSink

class Killed(PartitionSink):
    def _send(self, producer, tables):
        super()._send(producer, tables)
        producer.flush()
        os.kill(os.getpid(), signal.SIGKILL)

servers, topic, job = sys.argv[1:]
Killed(topic, {"bootstrap_servers": servers}, job_id=job).write(0, [pa.table({"value": ["lost"] * 50})])
"""


def test_each_row_is_there_once(kafka: KafkaCluster, topic: TopicFactory) -> None:
    name = topic(partitions=3)
    sink = PartitionSink(name, {"bootstrap_servers": kafka.bootstrap_servers}, job_id=f"job-of-{name}")
    # A worker dies with all of its rows acknowledged: its transaction stays open.
    worker = subprocess.run(
        [sys.executable, "-c", KILLED, kafka.bootstrap_servers, name, sink.job_id],
        check=False,
        timeout=120,
    )
    assert worker.returncode == -9
    rows = {p: [f"{p}-{n}" for n in range(200)] for p in range(2)}
    for p, values in rows.items():
        tables = [pa.table({"value": values[:100]}), pa.table({"value": values[100:]})]
        assert sink.write(p, tables) == PartitionWritten(p, 200, True)
        assert sink.write(p, tables) == PartitionWritten(p, 200, False)

    # One that is slow while a later attempt writes the partition.
    def slow() -> object:
        yield pa.table({"value": ["slow"]})
        assert sink.write(2, [pa.table({"value": ["2-0"]})]).by_this_attempt
        yield pa.table({"value": ["slow"]})

    with pytest.raises(errors.KafkaError) as caught:
        sink.write(2, slow())  # type: ignore[arg-type]
    assert isinstance(caught.value, (errors.ProducerFencedError, errors.TransactionAbortableError))
    committed = read_confluent(kafka.bootstrap_servers, name, isolation="read_committed")
    assert sorted(record.value or b"" for record in committed) == sorted(
        value.encode() for value in [*rows[0], *rows[1], "2-0"]
    )
    every = read_confluent(kafka.bootstrap_servers, name)
    assert sum(record.value == b"lost" for record in every) == 50
