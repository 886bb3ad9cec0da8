"""AsyncKafkaProducer.send_many(): many records, one awaitable, and a loop that is never held up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from kprod import errors
from kprod.testing import MockCluster
from tests.aio.conftest import Run, Ticker, eventually, producer_for

SMALL: dict[str, Any] = {"buffer_memory": 300_000, "max_request_size": 100_000, "batch_size": 4000}


def values_of(cluster: MockCluster, topic: str = "t", partition: int | None = None) -> list[bytes | None]:
    return [record.value for record in cluster.records(topic, partition)]


def test_one_awaitable_for_all(cluster: MockCluster, run: Run) -> None:
    cluster.create_topic("many", partitions=3)

    async def main() -> None:
        seen: list[object] = []
        async with producer_for(cluster) as producer:
            future = await producer.send_many(
                "many",
                [b"%d" % n for n in range(25_000)],
                keys=[b"%d" % (n % 7) for n in range(25_000)],
                headers=[("a", b"b")],
                timestamps=1_700_000_000_000,
                on_delivery=lambda error, metadata: seen.append(error),
            )
            reports = await future
            assert len(future) == future.acked_count == len(reports) == 25_000
            assert set(reports.partitions()) <= {0, 1, 2}
            await eventually(lambda: len(seen) == 25_000, "all callbacks")
            assert set(seen) == {None}
            assert (await (await producer.send_many("many", []))).offsets() == future.offsets()[:0]

    run(main())
    for partition in range(3):
        records = cluster.records("many", partition)
        numbers = [int(record.value or b"") for record in records]
        assert numbers == sorted(numbers)
        assert all(list(record.headers) == [("a", b"b")] for record in records)
    assert sorted(int(value or b"") for value in values_of(cluster, "many")) == list(range(25_000))


@pytest.mark.parametrize("keyed", [False, True])
def test_more_than_the_buffer_holds_waits_and_the_loop_goes_on(
    cluster: MockCluster, run: Run, keyed: bool
) -> None:
    """Ten times buffer_memory: it waits often, within blocks of records sorted by partition too."""
    cluster.create_topic("many", partitions=4)
    cluster.set_latency(5)
    values = [b"%06d" % n + bytes(994) for n in range(3000)]

    async def main() -> None:
        ticker = Ticker()
        async with producer_for(cluster, **SMALL) as producer:
            keys = [b"%d" % (n % 13) for n in range(3000)] if keyed else None
            future = await ticker.during(producer.send_many("many", values, keys))
            reports = await future
            offsets, partitions = reports.offsets(), reports.partitions()
            stored = [cluster.records("many", partition) for partition in range(4)]
            assert [
                stored[partition][offset].value for offset, partition in zip(offsets, partitions, strict=True)
            ] == values
            if keyed:
                at = zip(offsets, partitions, strict=True)
                assert [stored[partition][offset].key for offset, partition in at] == keys
        assert ticker.ticks > 20

    run(main())
    assert sorted(value or b"" for value in values_of(cluster, "many")) == values
    for partition in range(4):
        found = [value or b"" for value in values_of(cluster, "many", partition)]
        assert found == sorted(found)


def test_single_records_are_not_kept_out(cluster: MockCluster, run: Run) -> None:
    cluster.set_latency(2)

    async def main() -> None:
        async with producer_for(cluster, **SMALL) as producer:
            many = asyncio.ensure_future(producer.send_many("t", [bytes(1000)] * 4000))
            for _ in range(20):
                await asyncio.wait_for(producer.send_and_wait("t", bytes(5000)), 10)
            assert len(await (await many)) == 4000

    run(main())
    assert cluster.count("t") == 4020


def test_a_buffer_that_stays_full_says_how_far_it_came(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        async with producer_for(cluster, **SMALL, max_block_ms=300) as producer:
            await producer.send_and_wait("t", b"warm")
            cluster.set_unreachable(1)
            ticker = Ticker()
            with pytest.raises(errors.BufferExhaustedError, match="of 1000 records were appended") as caught:
                await ticker.during(producer.send_many("t", [bytes(1000)] * 1000))
            assert ticker.ticks > 5
            error = caught.value
            assert error.appended is not None
            assert 10 < error.appended < 1000
            future = error.future
            assert future is not None
            assert len(future) == 1000
            assert future.appended == error.appended
            cluster.set_unreachable(1, False)
            await eventually(lambda: future.acked_count == error.appended, "those that were appended")
            assert future.failed_count == 1000 - error.appended
            with pytest.raises(errors.BufferExhaustedError):
                await future

    run(main())


def test_cancelling_leaves_out_what_was_not_appended(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        reported: list[object] = []
        async with producer_for(cluster, **SMALL) as producer:
            await producer.send_and_wait("t", b"warm")
            cluster.set_unreachable(1)
            values = [b"%04d" % n + bytes(996) for n in range(1000)]
            sending = asyncio.ensure_future(
                producer.send_many("t", values, on_delivery=lambda error, metadata: reported.append(error))
            )
            await eventually(lambda: producer._waiting, "a full buffer")
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            cluster.set_unreachable(1, False)
            await producer.flush()
            written = values_of(cluster)[1:]
            assert 10 < len(written) < 1000
            assert written == values[: len(written)]
            await eventually(lambda: len(reported) == len(written), "all callbacks")
            assert set(reported) == {None}
            # Nothing is held back: all of the buffer is there for others.
            assert len(await (await producer.send_many("t", values))) == 1000

    run(main())


def test_an_iterator_is_read_when_the_topic_is_known(cluster: MockCluster, run: Run) -> None:
    def values() -> Iterator[bytes]:
        yield from (b"1", b"2", b"3")

    async def main() -> None:
        async with producer_for(cluster, max_block_ms=20_000) as producer:
            # It is created by being asked for.
            assert len(await (await producer.send_many("t2", values()))) == 3

    run(main())
    assert [record.value for record in cluster.records("t2")] == [b"1", b"2", b"3"]


def test_what_is_wrong_is_found_before_anything_is_sent(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        producer = producer_for(cluster, max_request_size=100_000)
        with pytest.raises(errors.IllegalStateError, match="start"):
            await producer.send_many("t", [b"v"])
        async with producer:
            wrong: list[Any] = [b"fine", 3]
            with pytest.raises(TypeError, match=r"values\[1\]"):
                await producer.send_many("t", wrong)
            with pytest.raises(errors.MessageSizeTooLargeError, match="record 1 of 2"):
                await producer.send_many("t", [b"fine", bytes(200_000)])
            with pytest.raises(ValueError, match="keys"):
                await producer.send_many("t", [b"a", b"b"], keys=[b"k"])
        with pytest.raises(errors.ProducerClosedError):
            await producer.send_many("t", [b"v"])

    run(main())
    assert cluster.count("t") == 0
