"""Send many records without keeping futures: a callback per record is told what became of it.

Callbacks run on a thread of the producer, in the order of the records within each partition. Keep them short:
the next ones wait for them.
"""

from __future__ import annotations

import os

from kprod import KafkaError, KafkaProducer, RecordMetadata

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")


class Tally:
    """Counts deliveries."""

    def __init__(self) -> None:
        self.written = 0
        self.failed: list[KafkaError] = []
        self.slowest_ms = 0.0

    def on_delivery(self, error: KafkaError | None, metadata: RecordMetadata) -> None:
        """Take note of one record. On failure the metadata have no offset."""
        if error is not None:
            self.failed.append(error)
            return
        self.written += 1
        self.slowest_ms = max(self.slowest_ms, metadata.latency_ms)


def main() -> None:
    """Send 50,000 events."""
    tally = Tally()
    with KafkaProducer(bootstrap_servers=BOOTSTRAP, compression_type="lz4", linger_ms=20) as producer:
        for number in range(50_000):
            producer.send(
                "events",
                b'{"event":%d}' % number,
                key=b"user-%d" % (number % 1000),
                on_delivery=tally.on_delivery,
            )
        # Futures take callbacks as well, with arguments of your own.
        last = producer.send("events", b"the end")
        last.add_callback(lambda name, metadata: print(f"{name}: offset {metadata.offset}"), "last record")
        last.add_errback(lambda error: print(f"last record: {error}"))
        producer.flush()
    print(f"{tally.written} written, {len(tally.failed)} failed, slowest after {tally.slowest_ms:.0f} ms")


if __name__ == "__main__":
    main()
