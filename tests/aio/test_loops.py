"""Several loops, blocked loops, closed loops: none holds up the network or another loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from kprod import KafkaProducer
from kprod._core.aio import channel_for
from kprod.aio import AsyncKafkaProducer
from kprod.testing import MockCluster
from tests.aio.conftest import LOOPS, Run, new_loop, options, producer_for, run_in


def test_a_blocked_loop_is_woken_once_for_all_batches(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        async with producer_for(cluster, batch_size=200, linger_ms=0) as producer:
            await producer.send_and_wait("t", b"first")
            channel = channel_for(asyncio.get_running_loop())
            before = channel.wakes
            # Nothing has to be waited for here, so the loop stands still from now on.
            waiting = asyncio.gather(*[await producer.send("t", bytes(100)) for _ in range(200)])
            # Blocks the loop until every record is acknowledged and every outcome was queued.
            assert producer._producer is not None
            KafkaProducer.flush(producer._producer)
            assert len(cluster.batches("t")) >= 50
            assert not waiting.done()
            assert channel.wakes - before == 1
            assert [metadata.offset for metadata in await waiting] == list(range(1, 201))

    run(main())


def test_a_blocked_loop_does_not_hold_up_the_network_or_other_loops(cluster: MockCluster, run: Run) -> None:
    other_done = threading.Event()

    async def main() -> None:
        async with producer_for(cluster) as producer:

            async def other() -> list[int]:
                return [(await producer.send_and_wait("t", b"other")).offset for _ in range(20)]

            found: list[int] = []

            def in_thread() -> None:
                found.extend(run_in("asyncio", other()))
                other_done.set()

            waiting = asyncio.gather(*[await producer.send("t", b"mine") for _ in range(20)])
            thread = threading.Thread(target=in_thread)
            thread.start()
            # The loop stands still until the other one is through, and its own records are written meanwhile.
            assert other_done.wait(20)
            assert cluster.count("t") == 40
            assert not waiting.done()
            thread.join()
            assert sorted(found + [metadata.offset for metadata in await waiting]) == list(range(40))

    run(main())


def test_loops_in_several_threads_share_a_producer(cluster: MockCluster) -> None:
    cluster.create_topic("shared", partitions=4)
    producer = AsyncKafkaProducer(options(cluster, buffer_memory=200_000))
    errors: list[BaseException] = []

    async def send(name: str) -> None:
        deliveries = [await producer.send("shared", b"%s-%d" % (name.encode(), n)) for n in range(500)]
        assert len(await asyncio.gather(*deliveries)) == 500
        await producer.flush()

    def thread(kind: str, name: str) -> None:
        try:
            run_in(kind, send(name))
        except BaseException as error:
            errors.append(error)

    run_in("asyncio", producer.start())
    threads = [threading.Thread(target=thread, args=(kind, f"{kind}{n}")) for kind in LOOPS for n in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    run_in("asyncio", producer.stop())
    assert errors == []
    values = {record.value for record in cluster.records("shared")}
    assert values == {
        b"%s%d-%d" % (kind.encode(), n, i) for kind in LOOPS for n in range(2) for i in range(500)
    }


def test_a_delivery_can_be_awaited_in_another_loop(cluster: MockCluster, run: Run) -> None:
    producer = producer_for(cluster, linger_ms=50)

    async def begin() -> Any:
        await producer.start()
        return await producer.send("t", b"v")

    async def end(delivery: Any) -> None:
        assert (await delivery).offset == 0
        await producer.stop()

    run(end(run(begin())))


@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_closed_with_deliveries_pending_harms_nobody(
    cluster: MockCluster, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    fault = cluster.inject("Produce", drop_response=True, times=None)
    producer = producer_for(cluster, request_timeout_ms=200)
    called: list[object] = []

    async def begin() -> Any:
        await producer.start()
        delivery = await producer.send("t", b"left")
        delivery.add_done_callback(called.append)
        return delivery

    loop = new_loop(kind)
    delivery = loop.run_until_complete(begin())
    task = loop.create_task(wait(delivery))
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    fault.remove()
    assert delivery.delivery.get(10).offset == 0

    async def go_on() -> None:
        assert (await producer.send_and_wait("t", b"next")).offset == 1
        assert (await delivery).offset == 0
        await producer.stop()

    run_in(kind, go_on())
    assert called == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def wait(delivery: Any) -> None:
    await delivery


def test_a_callback_that_raises_is_the_loops_affair(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        async with producer_for(cluster) as producer:
            first = await producer.send("t", b"1")

            def fail(_: object) -> None:
                raise RuntimeError("in a callback")

            first.add_done_callback(fail)
            await first
            assert (await producer.send_and_wait("t", b"2")).offset == 1
            await asyncio.sleep(0)
        assert "in a callback" in str(told[0]["exception"])

    run(main())
