"""kprod.aio on real Kafka, read back by librdkafka's consumer."""

from __future__ import annotations

import asyncio
import secrets

from kprod.aio import AsyncKafkaProducer
from tests.conftest import TopicFactory
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent


def test_tasks_that_send_at_the_same_time_get_the_places_of_their_records(
    kafka: KafkaCluster, topic: TopicFactory
) -> None:
    name = topic(partitions=3)
    # Little memory: senders wait for it all the time.
    options = {"bootstrap_servers": kafka.bootstrap_servers, "buffer_memory": 200_000, "linger_ms": 1}
    expected: dict[tuple[int, int], bytes] = {}

    async def send(producer: AsyncKafkaProducer, task: int) -> None:
        for first in range(0, 500, 50):
            values = [b"%d-%d-" % (task, number) + bytes(1000) for number in range(first, first + 50)]
            deliveries = [await producer.send(name, value, key=b"%d" % task) for value in values]
            for value, delivery in zip(values, deliveries, strict=True):
                metadata = await delivery
                expected[metadata.partition, metadata.offset] = value

    async def main() -> None:
        async with AsyncKafkaProducer(options) as producer:
            await asyncio.gather(*(send(producer, task) for task in range(20)))

    asyncio.run(asyncio.wait_for(main(), 100))
    found = read_confluent(kafka.bootstrap_servers, name)
    assert {(record.partition, record.offset): record.value for record in found} == expected
    for task in range(20):
        mine = [record.value for record in found if record.key == b"%d" % task]
        assert [int((value or b"").split(b"-")[1]) for value in mine] == list(range(500))


def test_transactions_of_a_task(kafka: KafkaCluster, topic: TopicFactory) -> None:
    name = topic()

    async def main() -> None:
        async with AsyncKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"tx-{secrets.token_hex(4)}"
        ) as producer:
            await producer.init_transactions()
            async with producer.transaction():
                await producer.send(name, b"committed")
            try:
                async with producer.transaction():
                    await producer.send_and_wait(name, b"aborted")
                    raise KeyError
            except KeyError:
                pass
            async with producer.transaction():
                await producer.send(name, b"also committed")

    asyncio.run(asyncio.wait_for(main(), 60))
    found = read_confluent(kafka.bootstrap_servers, name, isolation="read_committed")
    assert [record.value for record in found] == [b"committed", b"also committed"]
