"""Writing a Spark data frame to Kafka with kprod in the workers: ``pip install kprod[spark]``.

Each partition is a task of Spark's and a transaction of Kafka's. A task that Spark runs again, because it
failed, its executor was lost, or it was slow (speculation), does not write its rows a second time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark import TaskContext

from kprod.partition_sink import PartitionSink, PartitionWritten

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["PartitionSink", "PartitionWritten", "write"]

_RESULT = "partition int, rows long, by_this_attempt boolean"


def write(frame: DataFrame, sink: PartitionSink) -> list[PartitionWritten]:
    """Write the rows of a data frame to a topic, and wait until all are there.

    Args:
        frame: the data frame; its partitions are written in parallel.
        sink: where to, and which columns: values and keys are binary or string, timestamps are Spark
            timestamps or integers (ms since 1970).

    Returns:
        What became of each partition.

    Raises:
        pyspark.errors.PySparkException: a task failed more often than Spark allows
            (``spark.task.maxFailures``). Partitions that were committed stay; with the same sink, or another
            one with its ``job_id``, the rest can be written later.
    """
    written = frame.select(*sink.columns).mapInArrow(functools.partial(_write_partition, sink), _RESULT)
    return sorted(PartitionWritten(*row) for row in written.collect())


def _write_partition(sink: PartitionSink, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A task: it runs in a worker."""
    context = TaskContext.get()
    assert context is not None  # Spark calls this in tasks only
    result = sink.write(context.partitionId(), batches)
    columns = [
        pa.array([result.partition], pa.int32()),
        pa.array([result.rows], pa.int64()),
        pa.array([result.by_this_attempt], pa.bool_()),
    ]
    yield pa.RecordBatch.from_arrays(columns, names=list(PartitionWritten._fields))
