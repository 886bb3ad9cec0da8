"""Send a few records, and see where they went.

python examples/quickstart.py            # localhost:9092
KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092 python examples/quickstart.py
"""

from __future__ import annotations

import os

from kprod import KafkaProducer

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")

# Leaving the block delivers what was accepted, and closes the producer.
with KafkaProducer(bootstrap_servers=BOOTSTRAP) as producer:
    # send() does not wait for the network: it gives a future.
    futures = [
        producer.send("greetings", value=f"hello number {n}".encode(), key=b"greeter-%d" % (n % 3))
        for n in range(10)
    ]
    # get() does: it gives the place of the record, or raises why there is none.
    for future in futures:
        metadata = future.get(timeout=10)
        print(f"{metadata.topic}, partition {metadata.partition}, offset {metadata.offset}")
