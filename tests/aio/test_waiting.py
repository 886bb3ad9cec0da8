"""send() in asyncio never blocks the loop: metadata, memory, start and stop; what cancelling does."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from kprod import errors
from kprod.aio import AsyncKafkaProducer
from kprod.testing import MockCluster
from tests.aio.conftest import Run, Ticker, eventually, options, producer_for

VALUE = bytes(8000)


def test_it_can_be_made_anywhere_and_says_what_is_wrong(cluster: MockCluster, run: Run) -> None:
    with pytest.raises(errors.UnknownOptionError, match="linger_ms"):
        AsyncKafkaProducer(lingerms=3)
    producer = AsyncKafkaProducer(options(cluster))
    assert "new" in repr(producer)

    async def main() -> None:
        with pytest.raises(errors.IllegalStateError, match="start"):
            await producer.send("t", b"v")
        with pytest.raises(errors.IllegalStateError, match="start"):
            await producer.flush()
        await producer.start()
        with pytest.raises(errors.IllegalStateError, match="already"):
            await producer.start()
        assert producer.bootstrap_connected()
        assert (await producer.send_and_wait("t", b"v")).offset == 0
        await producer.stop()
        await producer.stop()
        with pytest.raises(errors.ProducerClosedError):
            await producer.send("t", b"v")
        with pytest.raises(errors.ProducerClosedError):
            await producer.start()

    run(main())


def test_a_start_that_fails_can_be_tried_again(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        producer = producer_for(cluster, bootstrap_timeout_ms=200)
        cluster.set_unreachable(1)
        ticker = Ticker()
        with pytest.raises(errors.NoBrokersAvailable):
            await ticker.during(producer.start())
        assert ticker.ticks >= 5
        cluster.set_unreachable(1, False)
        async with producer:
            assert (await producer.send_and_wait("t", b"v")).offset == 0

    run(main())


def test_a_cancelled_start_leaves_nothing_behind(cluster: MockCluster, run: Run) -> None:
    cluster.set_unreachable(1)

    async def main() -> None:
        producer = producer_for(cluster, bootstrap_timeout_ms=300, client_id="cancelled-start")
        starting = asyncio.ensure_future(producer.start())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        cluster.set_unreachable(1, False)
        await producer.start()
        await producer.stop()
        await eventually(
            lambda: not [t for t in threading.enumerate() if t.name.startswith("cancelled-start")],
            "the end of all its threads",
        )

    run(main())


def test_a_new_topics_metadata_are_waited_for_in_the_loop(cluster: MockCluster, run: Run) -> None:
    cluster.create_topic("later")
    before = len(cluster.requests_of("Metadata"))

    async def main() -> None:
        async with producer_for(cluster) as producer:
            cluster.inject("Metadata", delay_ms=300, times=None)
            ticker = Ticker()
            sends = [producer.send("later", b"%d" % i) for i in range(50)]
            deliveries = await ticker.during(asyncio.gather(*sends))
            assert ticker.ticks >= 5
            assert [(await d).offset for d in deliveries] == list(range(50))
            assert await producer.partitions_for("later") == {0}
            assert await producer.partitions_for("t") == {0}

    run(main())
    assert len(cluster.requests_of("Metadata")) - before < 8, "50 waiting senders do not ask 50 times"


def test_a_topic_that_never_comes_is_an_error_of_send(cluster: MockCluster, run: Run) -> None:
    cluster.inject("Metadata", "UNKNOWN_TOPIC_OR_PARTITION", topic="never", times=None)

    async def main() -> None:
        async with producer_for(cluster, max_block_ms=200) as producer:
            ticker = Ticker()
            both = asyncio.gather(
                producer.send("never", b"v"), producer.partitions_for("never"), return_exceptions=True
            )
            for error in await ticker.during(both):
                assert isinstance(error, errors.KafkaTimeoutError)
                assert "never" in str(error)
            assert ticker.ticks >= 5
            with pytest.raises(ValueError, match="letters"):
                await producer.send("no/topic", b"v")

    run(main())


def test_senders_wait_for_memory_in_turn_while_the_loop_goes_on(cluster: MockCluster, run: Run) -> None:
    fault = cluster.inject("Produce", drop_response=True, times=None)

    async def main() -> None:
        async with producer_for(cluster, buffer_memory=100_000, request_timeout_ms=300) as producer:
            accepted = 0

            async def send_all(count: int) -> None:
                nonlocal accepted
                for number in range(count):
                    await producer.send("t", VALUE, key=b"%d" % number)
                    accepted += 1

            sending = asyncio.ensure_future(send_all(60))
            await eventually(lambda: fault.hits and accepted >= 5, "a full buffer")
            ticker = Ticker()
            await ticker.during(asyncio.sleep(0.1))
            assert ticker.ticks >= 5
            full_at = accepted
            assert full_at < 30
            fault.remove()
            await sending
            await producer.flush()

    run(main())
    assert [record.key for record in cluster.records("t")] == [b"%d" % number for number in range(60)]


def test_many_tasks_that_wait_for_memory_are_served_in_order(cluster: MockCluster, run: Run) -> None:
    fault = cluster.inject("Produce", drop_response=True, times=None)

    async def main() -> None:
        async with producer_for(cluster, buffer_memory=100_000, request_timeout_ms=300) as producer:
            await producer.partitions_for("t")
            tasks = [
                asyncio.ensure_future(producer.send("t", VALUE, key=b"%d" % number)) for number in range(200)
            ]
            await eventually(lambda: fault.hits and sum(t.done() for t in tasks) >= 5, "a full buffer")
            assert sum(task.done() for task in tasks) < 30
            fault.remove()
            for task in tasks:
                await (await task)

    run(main())
    assert [record.key for record in cluster.records("t")] == [b"%d" % number for number in range(200)]


def test_who_waits_for_memory_too_long_gets_an_error_and_sent_nothing(cluster: MockCluster, run: Run) -> None:
    fault = cluster.inject("Produce", drop_response=True, times=None)

    async def main() -> None:
        limits = {"buffer_memory": 100_000, "max_block_ms": 150, "request_timeout_ms": 300}
        async with producer_for(cluster, **limits) as producer:
            with pytest.raises(errors.BufferExhaustedError, match="buffer_memory"):
                for number in range(100):
                    await producer.send("t", VALUE, key=b"%d" % number)
            # Both at once, one behind the other.
            late = [producer.send("t", VALUE, key=b"late") for _ in range(3)]
            for error in await asyncio.gather(*late, return_exceptions=True):
                assert isinstance(error, errors.BufferExhaustedError)
            fault.remove()
            await producer.flush()

    run(main())
    keys = [record.key for record in cluster.records("t")]
    assert b"late" not in keys
    assert keys == [b"%d" % number for number in range(len(keys))]


def test_cancelled_while_it_waits_for_memory_it_sent_nothing(cluster: MockCluster, run: Run) -> None:
    fault = cluster.inject("Produce", drop_response=True, times=None)

    async def main() -> None:
        async with producer_for(cluster, buffer_memory=100_000, request_timeout_ms=300) as producer:
            await producer.partitions_for("t")
            tasks = [
                asyncio.ensure_future(producer.send("t", VALUE, key=b"%d" % number)) for number in range(40)
            ]
            await eventually(lambda: fault.hits and sum(t.done() for t in tasks) >= 5, "a full buffer")
            waiting = [task for task in tasks if not task.done()]
            # The one whose turn it is, and some that wait for the turn.
            for task in (waiting[0], waiting[3], waiting[-1]):
                task.cancel()
            fault.remove()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == 3
            await producer.flush()
            expected = [b"%d" % n for n, task in enumerate(tasks) if not task.cancelled()]
            assert [record.key for record in cluster.records("t")] == expected

    run(main())


def test_a_serializer_that_raises_a_timeout_is_not_taken_for_a_wait(cluster: MockCluster, run: Run) -> None:
    def serializer(value: object) -> bytes:
        raise errors.KafkaTimeoutError("the registry does not answer")

    async def main() -> None:
        async with producer_for(cluster, value_serializer=serializer) as producer:
            with pytest.raises(errors.KafkaTimeoutError, match="registry"):
                await producer.send("t", b"v")

    run(main())


def test_flush_waits_in_the_loop_and_shares_threads(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        async with producer_for(cluster, linger_ms=60_000) as producer:
            await producer.flush()
            cluster.inject("Produce", delay_ms=100)
            deliveries = [await producer.send("t", b"%d" % number) for number in range(10)]
            ticker = Ticker()
            await ticker.during(asyncio.gather(*(producer.flush() for _ in range(50))))
            assert ticker.ticks >= 5
            assert all(delivery.done() for delivery in deliveries)
            cluster.inject("Produce", delay_ms=300)
            await producer.send("t", b"slow")
            with pytest.raises(errors.KafkaTimeoutError):
                await producer.flush(timeout=0.02)
            await producer.flush()

    run(main())


def test_stop_delivers_what_was_sent_and_goes_on_when_it_is_cancelled(cluster: MockCluster, run: Run) -> None:
    cluster.inject("Produce", delay_ms=100)

    async def main() -> None:
        producer = producer_for(cluster, linger_ms=60_000)
        await producer.start()
        delivery = await producer.send("t", b"v")
        stopping = asyncio.ensure_future(producer.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert (await delivery).offset == 0
        await producer.stop()

    run(main())


def test_stop_with_a_timeout_fails_what_is_left(cluster: MockCluster, run: Run) -> None:
    cluster.inject("Produce", drop_response=True, times=None)

    async def main() -> None:
        producer = producer_for(cluster)
        await producer.start()
        delivery = await producer.send("t", b"v")
        began = time.monotonic()
        await producer.stop(timeout=0.1)
        assert time.monotonic() - began < 10
        with pytest.raises(errors.ProducerClosedError):
            await delivery
        with pytest.raises(ValueError, match="timeout"):
            await producer.stop(timeout=-1)

    run(main())
