"""Writing a Dask data frame to Kafka with kprod in the workers: ``pip install kprod[dask]``.

Each partition is a task of Dask's and a transaction of Kafka's. A task that Dask runs again, because it
failed or because its worker was lost, does not write its rows a second time.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import dask

from kprod.partition_sink import PartitionSink, PartitionWritten

if TYPE_CHECKING:
    import pandas as pd
    from dask.dataframe import DataFrame
    from distributed import Client

__all__ = ["PartitionSink", "PartitionWritten", "write"]


def write(
    frame: DataFrame, sink: PartitionSink, *, client: Client | None = None, retries: int = 3
) -> list[PartitionWritten]:
    """Write the rows of a data frame to a topic, and wait until all are there.

    Args:
        frame: the data frame; its partitions are written in parallel.
        sink: where to, and which columns: values and keys are bytes or text, timestamps are datetimes or
            integers (ms since 1970).
        client: the cluster to run on; None: Dask's default scheduler, in this process.
        retries: how often a partition that failed is tried again; without ``client`` it is not.

    Returns:
        What became of each partition.

    Raises:
        KafkaError, TypeError, ValueError: what a task raised at last. Partitions that were committed stay;
            with the same sink, or another one with its ``job_id``, the rest can be written later.
        distributed.scheduler.KilledWorker: a task was on several workers that were lost.
        IllegalStateError: the job id was used with another number of partitions.
    """
    if sink.partitions is None:
        sink = dataclasses.replace(sink, partitions=frame.npartitions)
    # pure=False: two calls are two jobs, even where all arguments are equal.
    task = dask.delayed(_write_partition, pure=False)
    tasks = [task(sink, number, part) for number, part in enumerate(frame[sink.columns].to_delayed())]
    if client is None:
        written = dask.compute(*tasks)
    else:
        written = client.gather(client.compute(tasks, retries=retries))
    return sorted(written)


def _write_partition(sink: PartitionSink, number: int, part: pd.DataFrame) -> PartitionWritten:
    """A task: it runs in a worker."""
    return sink.write(number, [part])
