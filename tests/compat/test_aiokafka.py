"""kprod.compat.aiokafka: what aiokafka's own tests do not look at."""

from __future__ import annotations

import asyncio
import gc
import pickle
import subprocess
import sys
from typing import Any

import aiokafka
import aiokafka.errors
import pytest
from aiokafka.protocol.metadata import MetadataRequest

import kprod
from kprod.compat.aiokafka import AIOKafkaProducer, errors
from kprod.testing import MockCluster
from tests.mock.conftest import cluster, make_cluster

__all__ = ["cluster", "make_cluster"]


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def test_results_and_futures_are_those_of_aiokafka(cluster: MockCluster) -> None:
    async def main() -> None:
        async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, acks="all") as producer:
            future = await producer.send(
                "t", b"v", b"k", partition=0, timestamp_ms=1_700_000_000_123, headers=[("h", b"1")]
            )
            assert isinstance(future, asyncio.Future)
            assert not future.done()
            assert await future == aiokafka.structs.RecordMetadata(
                "t", 0, aiokafka.TopicPartition("t", 0), 0, 1_700_000_000_123, 0, None
            )
            assert isinstance(await future, aiokafka.structs.RecordMetadata)
            cancelled = await producer.send("t", b"cancelled")
            cancelled.cancel()
            assert (await producer.send_and_wait("t", b"next")).offset == 2

    run(main())
    assert [record.value for record in cluster.records("t")] == [b"v", b"cancelled", b"next"]


def test_its_errors_are_caught_by_either_name(cluster: MockCluster) -> None:
    async def main() -> None:
        async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            cluster.inject("Produce", "MESSAGE_TOO_LARGE")
            with pytest.raises(aiokafka.errors.MessageSizeTooLargeError) as raised:
                await producer.send_and_wait("t", b"v")
            assert isinstance(raised.value, kprod.errors.MessageSizeTooLargeError)
            assert isinstance(raised.value, errors.KafkaError)
            assert raised.value.topic == "t"
            assert raised.value.errno == 10
            assert str(raised.value).count("MessageSizeTooLargeError") == 1
            again = pickle.loads(pickle.dumps(raised.value))
            assert (type(again), str(again)) == (type(raised.value), str(raised.value))
            # Each record has an exception of its own.
            cluster.inject("Produce", "INVALID_RECORD")
            both = [await producer.send("t", b"1"), await producer.send("t", b"2")]
            first, second = await asyncio.gather(*both, return_exceptions=True)
            assert isinstance(first, kprod.errors.InvalidRecordError)
            assert first is not second
            with pytest.raises(aiokafka.errors.IllegalOperation, match="transaction_id"):
                await producer.begin_transaction()
            with pytest.raises(AssertionError, match="Unrecognized partition"):
                await producer.send("t", b"v", partition=7)
            with pytest.raises(AssertionError, match="Need at least one"):
                await producer.send("t")
            with pytest.raises(aiokafka.errors.KafkaTimeoutError):
                raise errors.translated(kprod.errors.BufferExhaustedError("full"))
        with pytest.raises(aiokafka.errors.ProducerClosed):
            await producer.send("t", b"v")
        unreachable = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
        with pytest.raises(aiokafka.errors.KafkaConnectionError):
            await unreachable.start()
        await unreachable.stop()

    run(main())


def test_what_it_cannot_do_is_said_by_the_first_call(cluster: MockCluster) -> None:
    for arguments, message in (
        ({"acks": 2}, "acks=2"),
        ({"compression_type": "brotli"}, "brotli"),
        ({"acks": 1, "transactional_id": "x"}, "acks=1"),
        ({"security_protocol": "SSL"}, "ssl_context"),
    ):
        with pytest.raises(ValueError, match=message):
            AIOKafkaProducer(**arguments)
    with pytest.raises(TypeError, match="batch_size"):
        AIOKafkaProducer(batch_size=1)  # type: ignore[call-arg]
    with pytest.raises(ImportError, match="AIOKafkaConsumer"):
        from kprod.compat.aiokafka import AIOKafkaConsumer  # noqa: F401

    async def main() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers)
        with pytest.raises(aiokafka.errors.IllegalOperation, match="start"):
            await producer.send("t", b"v")
        async with producer:
            with pytest.raises(AttributeError, match="AIOKafkaClient"):
                await producer.client.coordinator_lookup(0, "group")
            assert producer.client.cluster.partitions_for_topic("t") in (None, {0})
            producer.client.add_topic("t")
            assert await producer.client.force_metadata_update()
            assert producer.client.cluster.topics() == {"t"}

    run(main())


def test_requests_of_the_applications_own_go_through_aiokafkas_client(cluster: MockCluster) -> None:
    """Faust creates its topics so."""

    async def main() -> None:
        async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            await producer.partitions_for("t")
            nodes = [broker.nodeId for broker in producer.client.cluster.brokers()]
            assert nodes
            for node in nodes:
                answer = await producer.client.send(node, MetadataRequest(["t"]))
                assert [row[1] for row in answer.topics] == ["t"]
        # What stop() leaves open, aiokafka complains about: warnings are errors here.
        gc.collect()

    run(main())


def test_serializers_and_partitioners_are_called_as_aiokafka_calls_them(cluster: MockCluster) -> None:
    cluster.create_topic("many", partitions=4)
    asked: list[tuple[Any, ...]] = []

    def partitioner(key: bytes | None, every: list[int], available: list[int]) -> int:
        asked.append((key, every, sorted(available)))
        return 3

    async def main() -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers,
            value_serializer=lambda value: b"null" if value is None else value.encode(),
            partitioner=partitioner,
        ) as producer:
            assert (await producer.send_and_wait("many", None, b"key")).partition == 3
            assert (await producer.send_and_wait("many", "text")).partition == 3
            batch = producer.create_batch()
            assert batch.append(timestamp=5, key=b"k", value="in a batch") is not None
            metadata = await (await producer.send_batch(batch, "many", partition=1))
            assert (metadata.partition, metadata.offset, metadata.timestamp) == (1, 0, -1)

    run(main())
    assert asked == [(b"key", [0, 1, 2, 3], [0, 1, 2, 3]), (None, [0, 1, 2, 3], [0, 1, 2, 3])]
    assert [record.value for record in cluster.records("many")] == [b"in a batch", b"null", b"text"]


def test_the_default_placement_of_keys_is_aiokafkas(cluster: MockCluster) -> None:
    cluster.create_topic("many", partitions=7)

    async def main() -> None:
        theirs = aiokafka.AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers)
        async with theirs, AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers) as ours:
            for number in range(40):
                key = b"key-%d" % number
                expected = (await theirs.send_and_wait("many", b"v", key=key)).partition
                assert (await ours.send_and_wait("many", b"v", key=key)).partition == expected
                assert ours._partition("many", None, None, None, key, None) == expected

    run(main())


def test_transactions_end_as_they_should(cluster: MockCluster) -> None:
    async def main() -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, transactional_id="tx"
        ) as producer:
            with pytest.raises(aiokafka.errors.IllegalOperation):
                await producer.send("t", b"outside")
            async with producer.transaction():
                await producer.send("t", b"kept")
            with pytest.raises(KeyError):
                async with producer.transaction():
                    await producer.send_and_wait("t", b"aborted")
                    raise KeyError
            await producer.begin_transaction()
            for offsets, error in (
                ({}, ValueError),
                ({"t": 1}, TypeError),
                ({("t", 0): (1, b"")}, TypeError),
            ):
                with pytest.raises(error):
                    await producer.send_offsets_to_transaction(offsets, "group")
            await producer.send_offsets_to_transaction(
                {aiokafka.TopicPartition("t", 0): (3, "mine")}, "group"
            )
            await producer.commit_transaction()

    run(main())
    assert cluster.committed_offsets("group") == {("t", 0): 3}


def test_one_that_nobody_stopped_says_so_and_delivers(cluster: MockCluster) -> None:
    async def main() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, linger_ms=50)
        await producer.start()
        await producer.send("t", b"left")
        with pytest.warns(ResourceWarning, match="Unclosed AIOKafkaProducer") as warned:
            del producer
            gc.collect()
        assert len(warned) == 1
        assert [context["message"] for context in told] == ["Unclosed AIOKafkaProducer"]

    run(main())
    assert cluster.wait_for(1, "t") == 1


def test_it_works_without_aiokafka(cluster: MockCluster) -> None:
    code = f"""
import asyncio, sys
sys.modules["aiokafka"] = None
from kprod.compat.aiokafka import AIOKafkaProducer, TopicPartition, RecordMetadata
from kprod.compat.aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerClosed, IllegalOperation
from kprod.compat.aiokafka.errors import ProducerFenced, OutOfOrderSequenceNumber, CorruptRecordException

async def main():
    async with AIOKafkaProducer(bootstrap_servers={cluster.bootstrap_servers!r}) as producer:
        metadata = await producer.send_and_wait("t", b"v")
        assert isinstance(metadata, RecordMetadata), metadata
        assert metadata.topic_partition == TopicPartition("t", 0)
        try:
            await producer.begin_transaction()
        except IllegalOperation:
            pass
    try:
        await producer.send("t", b"v")
    except ProducerClosed:
        print("fine")

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
