"""Transactions in asyncio, on the mock cluster."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from kprod import TopicPartition, errors
from kprod.aio import AsyncKafkaProducer
from kprod.testing import MockCluster
from tests.aio.conftest import Run, Ticker, eventually, producer_for
from tests.kafka.readers import read_confluent


def transactional(on: MockCluster) -> AsyncKafkaProducer:
    return producer_for(on, transactional_id=f"tx-{secrets.token_hex(4)}")


def committed(on: MockCluster) -> list[bytes | None]:
    return [r.value for r in read_confluent(on.bootstrap_servers, "t", isolation="read_committed")]


def test_a_transaction_commits_or_aborts_as_a_whole(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        async with transactional(cluster) as producer:
            with pytest.raises(errors.IllegalStateError):
                await producer.send("t", b"too early")
            await producer.init_transactions()
            async with producer.transaction() as same:
                assert same is producer
                delivery = await producer.send("t", b"one")
                await producer.send_offsets_to_transaction({TopicPartition("in", 0): 7}, "group")
            assert delivery.done()
            with pytest.raises(ZeroDivisionError):
                async with producer.transaction():
                    await producer.send_and_wait("t", b"two")
                    raise ZeroDivisionError
            await producer.begin_transaction()
            await producer.send("t", b"three")
            await producer.commit_transaction()
            await producer.begin_transaction()
            await producer.send_and_wait("t", b"four")
            await producer.abort_transaction()
            with pytest.raises(errors.IllegalStateError):
                await producer.commit_transaction()

    cluster.create_topic("in")
    run(main())
    assert committed(cluster) == [b"one", b"three"]
    assert cluster.committed_offsets("group") == {("in", 0): 7}


def test_a_task_cancelled_in_the_block_aborts(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        async with transactional(cluster) as producer:
            await producer.init_transactions()
            inside = asyncio.Event()

            async def work() -> None:
                async with producer.transaction():
                    await producer.send_and_wait("t", b"never")
                    inside.set()
                    await asyncio.Event().wait()

            working = asyncio.ensure_future(work())
            await inside.wait()
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            async with producer.transaction():
                await producer.send("t", b"after")

    run(main())
    assert committed(cluster) == [b"after"]


def test_a_commit_goes_on_when_its_await_is_cancelled(cluster: MockCluster, run: Run) -> None:
    async def main() -> None:
        async with transactional(cluster) as producer:
            await producer.init_transactions()
            fault = cluster.inject("EndTxn", delay_ms=150)

            async def work() -> None:
                async with producer.transaction():
                    await producer.send("t", b"kept")

            working = asyncio.ensure_future(work())
            ticker = Ticker()
            await ticker.during(eventually(lambda: fault.hits, "the commit"))
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            # The next transaction can only begin when that one has ended.
            await eventually(lambda: producer._running().engine.transaction_state == "ready", "its end")

    run(main())
    assert committed(cluster) == [b"kept"]
