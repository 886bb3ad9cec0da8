"""What a call of send() gives: a coroutine like any other, though it mostly needs no frame."""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from collections.abc import Coroutine, Generator
from typing import Any
from unittest import mock

import pytest

from kprod import KafkaProducer, RecordMetadata, errors
from kprod._core.aio import Sending
from kprod.aio import AsyncDeliveryFuture, AsyncKafkaProducer
from kprod.testing import MockCluster
from tests.aio.conftest import Run, eventually, producer_for


def test_it_is_an_async_function_for_those_who_ask() -> None:
    producer = AsyncKafkaProducer(bootstrap_servers="localhost:1")
    # Starlette's background tasks, for one, call what does not look like one in a thread.
    assert inspect.iscoroutinefunction(producer.send)
    assert inspect.iscoroutinefunction(AsyncKafkaProducer.send)
    assert list(inspect.signature(producer.send).parameters) == [
        "topic", "value", "key", "headers", "partition", "timestamp_ms",
    ]  # fmt: skip
    assert isinstance(mock.create_autospec(AsyncKafkaProducer).send, mock.AsyncMock)
    sending = producer.send("t")
    assert isinstance(sending, Sending)
    assert isinstance(sending, Coroutine)
    assert asyncio.iscoroutine(sending)
    assert inspect.isawaitable(sending)
    assert "AsyncKafkaProducer.send" in repr(sending)
    sending.close()
    send: Any = AsyncKafkaProducer.send
    for wrong, named in (((producer,), "topic"), ((object(), "t"), "AsyncKafkaProducer"), ((), "AsyncKafka")):
        with pytest.raises(TypeError, match=named):
            send(*wrong)
    with pytest.raises(TypeError, match="nothing"):
        send(producer, "t", nothing=1)


def test_nothing_is_sent_before_it_is_awaited(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        async with producer_for(cluster) as producer:
            await producer.send_and_wait("t", b"first")
            unused = producer.send("t", b"never")
            with pytest.warns(RuntimeWarning, match=r"AsyncKafkaProducer.send.* never awaited"):
                del unused
                gc.collect()
            closed = producer.send("t", b"never")
            closed.close()
            sending = producer.send("t", value=b"second", key=b"k")
            delivery = await sending
            assert isinstance(delivery, AsyncDeliveryFuture)
            for again in (sending, closed):
                with pytest.raises(RuntimeError, match="already awaited"):
                    await again
            # As a task, whose cancellation comes before its first step.
            task = asyncio.ensure_future(producer.send("t", b"cancelled"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await (await asyncio.ensure_future(producer.send("t", b"third")))).offset == 2

    run(main())
    assert [record.value for record in cluster.records("t")] == [b"first", b"second", b"third"]


def test_it_can_be_driven_by_hand(cluster: MockCluster, run: Run) -> None:
    cluster.create_topic("new")

    async def main() -> None:
        async with producer_for(cluster) as producer:
            await producer.partitions_for("t")
            at_once = producer.send("t", b"v")
            with pytest.raises(TypeError, match="just-started"):
                at_once.send(3)
            with pytest.raises(StopIteration) as stopped:
                at_once.send(None)
            assert (await stopped.value.value).offset == 0
            # A topic that is not known yet: it waits, for what a task would wait for.
            waiting: Any = producer.send("new", b"v")
            waits_for = waiting.send(None)
            assert asyncio.isfuture(waits_for)
            assert waiting.cr_await is not None
            with pytest.raises(errors.InvalidRecordError):
                waiting.throw(errors.InvalidRecordError("from outside"))
            with pytest.raises(RuntimeError, match="already awaited"):
                waiting.send(None)
            not_begun = producer.send("new", b"v")
            with pytest.raises(errors.InvalidRecordError):
                not_begun.throw(errors.InvalidRecordError("from outside"))

    run(main())
    assert cluster.count("new") == 0


def test_what_is_sent_is_let_go_of(cluster: MockCluster, run: Run) -> None:
    class Value:
        """Can be referred to weakly."""

    async def main() -> None:
        async with producer_for(cluster, value_serializer=lambda value: b"v") as producer:
            value: Value | None = Value()
            kept = weakref.ref(value)
            sending = producer.send("t", value)
            await (await sending)
            value = None
            gc.collect()
            assert kept() is None, "the coroutine that is over keeps the record's value"
            # One that ends with an error does not keep it either.
            value = Value()
            kept = weakref.ref(value)
            failing = producer.send("t", value, partition=-1)
            with pytest.raises(ValueError, match="partition"):
                await failing
            value = None
            gc.collect()
            assert kept() is None

    run(main())


def test_a_send_that_a_tool_has_put_in_is_called(cluster: MockCluster, run: Run) -> None:
    seen: list[object] = []
    original = KafkaProducer.send

    def traced(self: KafkaProducer, *args: Any, **kwargs: Any) -> Any:
        seen.append(args[1])
        return original(self, *args, **kwargs)

    async def main() -> None:
        with mock.patch.object(KafkaProducer, "send", traced):
            async with producer_for(cluster) as producer:
                assert (await (await producer.send("t", b"v"))).offset == 0

    run(main())
    assert seen[-1] == b"v"


def test_a_delivery_can_be_delegated_to(cluster: MockCluster, run: Run) -> None:
    class Wrapped:
        def __init__(self, delivery: AsyncDeliveryFuture) -> None:
            self.delivery = delivery

        def __await__(self) -> Generator[Any, None, RecordMetadata]:
            return (yield from self.delivery.__await__())

    async def main() -> None:
        async with producer_for(cluster) as producer:
            delivery = await producer.send("t", b"v")
            assert (await Wrapped(delivery)).offset == 0
            await eventually(delivery.done, "the delivery")
            assert (await Wrapped(delivery)).offset == 0

    run(main())
