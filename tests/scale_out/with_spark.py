"""Writes a data frame from two Spark executors, some of which are killed: ``python with_spark.py``."""

import json
import os
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from kprod import spark as kprod_spark
from tests.scale_out.sabotage import SabotagedSink


def main() -> None:
    rows, partitions = int(os.environ["ROWS"]), int(os.environ["PARTITIONS"])
    session = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.executor.memory", "512m")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.executorEnv.PYTHONPATH", os.environ["PYTHONPATH"])
        .config("spark.pyspark.python", sys.executable)
        .config("spark.task.maxFailures", "8")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    frame = session.range(0, rows, 1, partitions).select(
        f.concat(f.lit("row "), f.col("id")).alias("value"),
        f.concat(f.lit("k"), f.col("id") % 100).alias("key"),
    )
    # The parent of a Python worker is pyspark's daemon, and its parent is the executor.
    sink = SabotagedSink(
        os.environ["TOPIC"],
        {"bootstrap_servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "compression_type": "lz4"},
        keys="key",
        folder=os.environ["FOLDER"],
        ancestor=2,
    )
    first = kprod_spark.write(frame, sink)
    print(json.dumps({"first": first, "again": kprod_spark.write(frame, sink)}))
    session.stop()


if __name__ == "__main__":
    main()
