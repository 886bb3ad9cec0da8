"""Use the producer in asyncio: send, then await what becomes of each record.

``await producer.send()`` waits for room only; what it gives is awaited for the outcome.
"""

from __future__ import annotations

import asyncio
import os

from kprod import KafkaError
from kprod.aio import AsyncKafkaProducer

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
TOPIC = "measurements"


async def measure(producer: AsyncKafkaProducer, sensor: int) -> int:
    """Send a sensor's readings; gives the offset of the last one."""
    deliveries = [
        await producer.send(TOPIC, b"%d" % reading, key=b"sensor-%d" % sensor) for reading in range(20)
    ]
    for delivery in deliveries:
        try:
            metadata = await delivery
        except KafkaError as error:
            print(f"sensor {sensor}: {error}")
            raise
    return metadata.offset


async def main() -> None:
    """Send the readings of 50 sensors at the same time."""
    async with AsyncKafkaProducer(bootstrap_servers=BOOTSTRAP) as producer:
        last = await asyncio.gather(*(measure(producer, sensor) for sensor in range(50)))
        print(f"{len(last)} sensors, the last reading is at offset {max(last)}")


if __name__ == "__main__":
    asyncio.run(main())
