"""Send the rows of a table: columns go to Kafka without a Python object for each value.

Any library with Arrow's PyCapsule interface will do: pyarrow as here, polars, pandas, DuckDB.
"""

from __future__ import annotations

import os

import pyarrow as pa

from kprod import KafkaProducer

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")

readings = pa.table(
    {
        "sensor": [f"sensor-{number % 50}" for number in range(20_000)],
        "reading": [f'{{"celsius": {number % 40}}}' for number in range(20_000)],
        "at": pa.array(range(1_700_000_000, 1_700_020_000), pa.timestamp("s")),
    }
)

with KafkaProducer(bootstrap_servers=BOOTSTRAP, compression_type="zstd") as producer:
    future = producer.send_table("readings", readings, "reading", keys="sensor", timestamps="at")
    reports = future.get(timeout=60)  # raises the error of the first record that failed
    print(f"{future.acked_count} readings on {len(set(reports.partitions()))} partitions")
    print("the last one is at offset", reports[-1].offset)
