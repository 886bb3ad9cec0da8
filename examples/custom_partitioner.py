"""Choose partitions yourself: large customers get partitions of their own, the rest share the others.

A partitioner is a function whose parameters are named after what it wants to see (topic, key, value,
serialized_key, serialized_value, cluster, num_partitions), or an object with a ``partition`` method. It
runs in the thread that calls send(). What it raises reaches the caller; None leaves the choice to the
producer.
"""

from __future__ import annotations

import os

from kprod import KafkaProducer
from kprod.partitioner import partition_for_key

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")

LARGE = {b"customer-1": 0, b"customer-2": 1}


def by_customer(serialized_key: bytes | None, num_partitions: int) -> int | None:
    """Partitions 0 and 1 for the two large customers, the others by the hash of the key."""
    if serialized_key is None or num_partitions <= len(LARGE):
        return None
    own = LARGE.get(serialized_key)
    if own is not None:
        return own
    # The same hash that all Kafka clients use for keys.
    return len(LARGE) + partition_for_key(serialized_key, num_partitions - len(LARGE))


with KafkaProducer(bootstrap_servers=BOOTSTRAP, partitioner=by_customer) as producer:
    futures = [
        producer.send("invoices", b"invoice %d" % n, key=b"customer-%d" % (n % 10)) for n in range(1000)
    ]
    producer.flush()
    used = sorted({future.get().partition for future in futures})
    print(f"{len(futures)} invoices on partitions {used} of {len(producer.partitions_for('invoices'))}")
