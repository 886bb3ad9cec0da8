"""What send() gives in asyncio: outcomes, the ways to wait for them, cancellation."""

from __future__ import annotations

import asyncio
import contextvars
import sys

import pytest

from kprod import RecordMetadata, errors
from kprod.aio import AsyncDeliveryFuture
from kprod.testing import MockCluster
from tests.aio.conftest import Run, eventually, producer_for


def test_send_gives_a_delivery_and_awaiting_that_the_place(cluster: MockCluster, run: Run) -> None:
    cluster.create_topic("many", partitions=3)

    async def main() -> None:
        async with producer_for(cluster) as producer:
            delivery = await producer.send(
                "many", b"v", b"k", [("h", b"1")], partition=2, timestamp_ms=1_700_000_000_123
            )
            assert isinstance(delivery, AsyncDeliveryFuture)
            metadata = await delivery
            assert isinstance(metadata, RecordMetadata)
            assert (metadata.topic, metadata.partition, metadata.offset) == ("many", 2, 0)
            assert metadata.timestamp == 1_700_000_000_123
            # Again, and without waiting.
            assert (await delivery) == metadata == delivery.result()
            assert delivery.done()
            assert delivery.exception() is None
            # By hand, as a framework with a loop of its own does.
            with pytest.raises(StopIteration) as stopped:
                next(delivery.__await__())
            assert stopped.value.value == metadata
            assert (await producer.send_and_wait("many", b"w", partition=2)).offset == 1

    run(main())
    [first, second] = cluster.records("many")
    assert (first.key, first.value, first.headers) == (b"k", b"v", [("h", b"1")])
    assert second.value == b"w"


def test_a_delivery_is_a_future_as_asyncio_knows_it(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        async with producer_for(cluster) as producer:
            deliveries = [await producer.send("t", b"%d" % i) for i in range(500)]
            assert asyncio.isfuture(deliveries[0])
            gathered = await asyncio.gather(*deliveries)
            assert [metadata.offset for metadata in gathered] == list(range(500))
            more = [await producer.send("t", b"x") for _ in range(20)]
            done, pending = await asyncio.wait(more, timeout=10)
            assert (done, pending) == (set(more), set())
            assert (await asyncio.wait_for(await producer.send("t", b"y"), 10)).offset == 520
            offsets = [(await d).offset for d in asyncio.as_completed([await producer.send("t", b"z")])]
            assert offsets == [521]

    run(main())


def test_a_failed_record_raises_wherever_it_is_awaited(cluster: MockCluster, run: Run) -> None:
    cluster.inject("Produce", "INVALID_RECORD")

    async def main() -> None:
        async with producer_for(cluster) as producer:
            delivery = await producer.send("t", b"bad")
            with pytest.raises(asyncio.InvalidStateError):
                delivery.result()
            for _ in range(2):
                with pytest.raises(errors.InvalidRecordError):
                    await delivery
            assert isinstance(delivery.exception(), errors.InvalidRecordError)
            [error] = await asyncio.gather(delivery, return_exceptions=True)
            assert isinstance(error, errors.InvalidRecordError)

    run(main())


def test_callbacks_run_in_the_loop_and_in_their_context(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
        seen: list[tuple[AsyncDeliveryFuture, asyncio.AbstractEventLoop, str]] = []

        def callback(done: AsyncDeliveryFuture) -> None:
            seen.append((done, asyncio.get_running_loop(), variable.get()))

        async with producer_for(cluster) as producer:
            delivery = await producer.send("t", b"v")
            variable.set("early")
            delivery.add_done_callback(callback)
            delivery.add_done_callback(print)
            assert delivery.remove_done_callback(print) == 1
            variable.set("later")
            await delivery
            await eventually(lambda: seen, "the callback")
            delivery.add_done_callback(callback)
            assert len(seen) == 1, "a callback runs in a later turn of the loop"
            await eventually(lambda: len(seen) == 2, "the callback on a decided record")
        loop = asyncio.get_running_loop()
        assert seen == [(delivery, loop, "early"), (delivery, loop, "later")]

    run(main())


def test_a_cancelled_await_ends_alone(cluster: MockCluster, run: Run) -> None:
    fault = cluster.inject("Produce", drop_response=True, times=None)

    async def main() -> None:
        async with producer_for(cluster, request_timeout_ms=200) as producer:
            delivery = await producer.send("t", b"v")

            async def wait() -> RecordMetadata:
                return await delivery

            patient, hasty = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
            await eventually(lambda: fault.hits, "the request")
            hasty.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hasty
            assert not delivery.done()
            assert not patient.done()
            fault.remove()
            assert (await patient).offset == 0
            assert (await delivery).offset == 0

    run(main())
    assert cluster.count("t") == 1


def test_cancelling_the_delivery_ends_it_for_all_but_the_record(cluster: MockCluster, run: Run) -> None:
    fault = cluster.inject("Produce", drop_response=True, times=None)

    async def main() -> None:
        async with producer_for(cluster, request_timeout_ms=200) as producer:
            delivery = await producer.send("t", b"v")

            async def wait() -> RecordMetadata:
                return await delivery

            waiting = asyncio.ensure_future(wait())
            called: list[AsyncDeliveryFuture] = []
            delivery.add_done_callback(called.append)
            await eventually(lambda: fault.hits, "the request")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(delivery, 0.01)
            # Since Python 3.12 wait_for() cancels an await of its own, and no more what it waits for.
            assert delivery.cancelled() == (sys.version_info < (3, 12))
            assert delivery.cancel() == (sys.version_info >= (3, 12))
            assert delivery.cancelled()
            assert delivery.done()
            assert not delivery.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            with pytest.raises(asyncio.CancelledError):
                delivery.result()
            await eventually(lambda: called == [delivery], "the callback")
            fault.remove()
            # For other threads, or who wants to know after all.
            await eventually(delivery.delivery.done, "the record")
            assert delivery.delivery.get(0).offset == 0
            assert called == [delivery]

    run(main())
    assert cluster.count("t") == 1


def test_a_decided_delivery_cannot_be_cancelled(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        async with producer_for(cluster) as producer:
            delivery = await producer.send("t", b"v")
            await delivery
            assert not delivery.cancel()
            assert (await delivery).offset == 0

    run(main())
