"""Write the Parquet files of a folder from two workers, each partition once, whatever becomes of the workers.

Run it again with the same job id after it was killed: partitions that are written are left out::

    pip install kprod[dask]
    python dask_frame.py localhost:9092 'readings/*.parquet' readings --values reading --job-id load-7
"""

from __future__ import annotations

import argparse

import dask.dataframe
from dask.distributed import Client, LocalCluster

from kprod import dask as kprod_dask
from kprod.partition_sink import PartitionSink


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bootstrap_servers")
    parser.add_argument("files", help="what to read")
    parser.add_argument("topic", help="where to write to")
    parser.add_argument("--values", default="value", help="column of values")
    parser.add_argument("--keys", help="column of keys")
    parser.add_argument("--job-id", default="", help="the same when it is run again")
    arguments = parser.parse_args()
    sink = PartitionSink(
        arguments.topic,
        {"bootstrap_servers": arguments.bootstrap_servers, "compression_type": "zstd"},
        values=arguments.values,
        keys=arguments.keys,
        job_id=arguments.job_id,
    )
    frame = dask.dataframe.read_parquet(arguments.files)
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        for partition in kprod_dask.write(frame, sink, client=client):
            print(partition)


if __name__ == "__main__":
    main()
