"""kprod.aio on real Kafka, read back by librdkafka's consumer."""

from __future__ import annotations

import asyncio
import secrets
import threading
from typing import Any

import pytest

from kprod.aio import AsyncDeliveryFuture, AsyncKafkaProducer
from tests.aio.conftest import LOOPS, Ticker, eventually, run_in
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


@pytest.mark.parametrize("kind", LOOPS)
def test_send_many_tells_the_place_of_every_record_while_the_loop_goes_on(
    kafka: KafkaCluster, topic: TopicFactory, kind: str
) -> None:
    name = topic(partitions=3)
    values = [b"%05d" % number + bytes(495) for number in range(10_000)]
    keys = [b"%d" % (number % 17) for number in range(10_000)]

    async def main() -> tuple[Any, Any]:
        # A fraction of the records fits into memory: it waits again and again.
        options = {"bootstrap_servers": kafka.bootstrap_servers, "buffer_memory": 400_000, "linger_ms": 1}
        ticker = Ticker()
        async with AsyncKafkaProducer(options, max_request_size=100_000) as producer:
            future = await ticker.during(producer.send_many(name, values, keys))
            reports = await future
        assert ticker.ticks > 5
        return reports.partitions(), reports.offsets()

    partitions, offsets = run_in(kind, main())
    found = {(r.partition, r.offset): r for r in read_confluent(kafka.bootstrap_servers, name)}
    assert len(found) == len(values)
    told = [found[place] for place in zip(partitions, offsets, strict=True)]
    assert [record.value for record in told] == values
    assert [record.key for record in told] == keys


def test_what_is_cancelled_is_written_as_far_as_it_was_accepted(
    kafka: KafkaCluster, topic: TopicFactory
) -> None:
    name = topic()
    values = [b"%05d" % number + bytes(995) for number in range(20_000)]
    reported: list[object] = []

    async def main() -> int:
        options = {"bootstrap_servers": kafka.bootstrap_servers, "buffer_memory": 200_000, "linger_ms": 1}
        async with AsyncKafkaProducer(options, max_request_size=100_000) as producer:
            many = asyncio.ensure_future(
                producer.send_many(name, values, on_delivery=lambda error, metadata: reported.append(error))
            )
            await eventually(lambda: reported, "the first records")
            many.cancel()
            with pytest.raises(asyncio.CancelledError):
                await many
            await producer.flush()
            accepted = len(reported)
            # Of single records: the await, and the delivery itself.
            awaited = await producer.send(name, b"awaited")
            task = asyncio.ensure_future(_wait(awaited))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            delivery = await producer.send(name, b"cancelled")
            assert delivery.cancel()
            with pytest.raises(asyncio.CancelledError):
                await delivery
            assert (await awaited).offset == accepted
            await producer.flush()
            assert delivery.delivery.get(0).offset == accepted + 1
        return accepted

    accepted = run_in("asyncio", main())
    assert 0 < accepted < len(values)
    assert set(reported) == {None}
    written = [record.value for record in read_confluent(kafka.bootstrap_servers, name)]
    assert written == [*values[:accepted], b"awaited", b"cancelled"]


async def _wait(delivery: AsyncDeliveryFuture) -> None:
    await delivery


def test_loops_in_threads_share_a_producer_and_a_blocked_one_holds_up_nobody(
    kafka: KafkaCluster, topic: TopicFactory
) -> None:
    name = topic(partitions=4)
    producer = AsyncKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=1)
    others_done = threading.Event()
    places: dict[tuple[int, int], bytes] = {}
    failures: list[BaseException] = []

    async def send(who: str, blocked: bool) -> None:
        values = [f"{who}-{number}".encode() for number in range(500)]
        deliveries = [await producer.send(name, value) for value in values]
        if blocked:
            # This loop stands still; its records go out and are acknowledged all the same.
            assert others_done.wait(60)
            assert all(delivery.delivery.get(60).offset >= 0 for delivery in deliveries)
        for value, delivery in zip(values, deliveries, strict=True):
            metadata = await delivery
            places[metadata.partition, metadata.offset] = value

    def thread(kind: str, who: str, blocked: bool = False) -> None:
        try:
            run_in(kind, send(who, blocked))
        except BaseException as error:
            failures.append(error)

    run_in("asyncio", producer.start())
    standing = threading.Thread(target=thread, args=(LOOPS[-1], "blocked", True))
    standing.start()
    others = [
        threading.Thread(target=thread, args=(kind, f"{kind}{number}")) for kind in LOOPS for number in (1, 2)
    ]
    for each in others:
        each.start()
    for each in others:
        each.join()
    others_done.set()
    standing.join()
    run_in("asyncio", producer.stop())
    assert failures == []
    found = read_confluent(kafka.bootstrap_servers, name)
    assert {(record.partition, record.offset): record.value for record in found} == places
    assert len(places) == 500 * (len(others) + 1)
