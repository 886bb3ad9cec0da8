"""Writes a data frame from two Dask workers, some of which are killed: ``python with_dask.py``."""

import json
import os

import dask.dataframe
import numpy as np
import pandas as pd
from dask.distributed import Client, LocalCluster

from kprod import dask as kprod_dask
from tests.scale_out.sabotage import SabotagedSink


def rows_from(first: int, count: int) -> pd.DataFrame:
    numbers = pd.Series(np.arange(first, first + count))
    return pd.DataFrame({"value": "row " + numbers.astype(str), "key": "k" + (numbers % 100).astype(str)})


def main() -> None:
    rows, partitions = int(os.environ["ROWS"]), int(os.environ["PARTITIONS"])
    each = rows // partitions
    frame = dask.dataframe.from_map(rows_from, range(0, rows, each), count=each)
    sink = SabotagedSink(
        os.environ["TOPIC"],
        {"bootstrap_servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "compression_type": "lz4"},
        keys="key",
        folder=os.environ["FOLDER"],
    )
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            first = kprod_dask.write(frame, sink, client=client)
            print(json.dumps({"first": first, "again": kprod_dask.write(frame, sink, client=client)}))


if __name__ == "__main__":
    main()
