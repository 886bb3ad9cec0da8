"""Use the producer in asyncio: futures can be awaited.

send() itself does not block as long as the topic is known and there is room in ``buffer_memory``. Ask for the
topic once in a thread, and bound what is under way, as here, and the event loop is never held up.
"""

from __future__ import annotations

import asyncio
import os

from kprod import KafkaProducer, RecordMetadata

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
TOPIC = "measurements"


async def measure(producer: KafkaProducer, sensor: int, limit: asyncio.Semaphore) -> RecordMetadata:
    """Send a sensor's readings one after the other; gives the place of the last one."""
    for reading in range(20):
        async with limit:
            metadata = await producer.send(TOPIC, b"%d" % reading, key=b"sensor-%d" % sensor)
    return metadata


async def main() -> None:
    """Send the readings of 50 sensors at the same time."""
    producer = await asyncio.to_thread(KafkaProducer, bootstrap_servers=BOOTSTRAP)
    try:
        await asyncio.to_thread(producer.partitions_for, TOPIC)
        limit = asyncio.Semaphore(1000)
        last = await asyncio.gather(*(measure(producer, sensor, limit) for sensor in range(50)))
        print(f"{len(last)} sensors, the last reading is at offset {max(m.offset for m in last)}")
    finally:
        await asyncio.to_thread(producer.close)


if __name__ == "__main__":
    asyncio.run(main())
