"""Send Python objects: a serializer makes bytes of them.

A serializer is any function from an object to bytes; what it raises reaches the caller of send().
"""

from __future__ import annotations

import json
import os

from kprod import KafkaProducer

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")

producer = KafkaProducer(
    bootstrap_servers=BOOTSTRAP,
    key_serializer=str.encode,
    value_serializer=lambda v: json.dumps(v).encode("utf-8"),
    compression_type="zstd",
)

for number in range(100):
    order = {"id": number, "customer": f"customer-{number % 7}", "total": 9.5 + number}
    # Records with the same key are in one partition, in the order they were sent.
    producer.send("orders", order, key=order["customer"], headers=[("source", b"example")])

try:
    producer.send("orders", {"id": object()})
except TypeError as error:
    print("not sent:", error)

producer.flush()
print("100 orders are written")
producer.close()
