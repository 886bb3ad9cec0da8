"""kprod for asyncio: :class:`AsyncKafkaProducer`.

>>> from kprod.aio import AsyncKafkaProducer
>>> async def main() -> None:
...     async with AsyncKafkaProducer(bootstrap_servers="localhost:9092") as producer:
...         delivery = await producer.send("events", b"value", key=b"key")
...         print((await delivery).offset)
"""

from kprod._core.aio import AsyncDeliveryFuture
from kprod.aio.producer import AsyncKafkaProducer

__all__ = ["AsyncDeliveryFuture", "AsyncKafkaProducer"]
