"""kprod.compat.kafka against the mock cluster, and against the original where that matters."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import kafka as peer
import kafka.errors
import pytest

from kprod import errors as own
from kprod.compat import kafka as compat
from kprod.testing import MockCluster
from tests.mock.conftest import MakeCluster


@pytest.fixture
def make(cluster: MockCluster) -> Iterator[Callable[..., compat.KafkaProducer]]:
    producers: list[compat.KafkaProducer] = []

    def build(**configs: Any) -> compat.KafkaProducer:
        configs.setdefault("bootstrap_servers", cluster.bootstrap_servers)
        producers.append(compat.KafkaProducer(**configs))
        return producers[-1]

    yield build
    for producer in producers:
        producer.close(timeout=0)


Make = Callable[..., compat.KafkaProducer]


def test_futures_and_metadata_have_the_original_shape(cluster: MockCluster, make: Make) -> None:
    producer = make()
    future = producer.send("t", b"value", b"key", [("h", b"v")], 0, 1234)
    metadata = future.get(timeout=10)
    assert tuple(metadata) == ("t", 0, ("t", 0), 0, 1234, None, 3, 5, 2)
    assert metadata._fields == peer.producer.future.RecordMetadata._fields
    assert future.is_done
    assert future.succeeded()
    assert not future.failed()
    assert future.exception is None
    assert future.value == metadata
    seen: list[Any] = []
    assert future.add_callback(lambda *args, **kwargs: seen.append((args, kwargs)), 1, two=2) is future
    assert seen == [((1, metadata), {"two": 2})]
    assert [record.value for record in cluster.records("t", 0)] == [b"value"]


def test_what_send_raises_is_caught_by_the_original_names(make: Make) -> None:
    producer = make(max_request_size=1000)
    with pytest.raises(kafka.errors.MessageSizeTooLargeError) as caught:
        producer.send("t", bytes(2000))
    assert isinstance(caught.value, own.MessageSizeTooLargeError)
    assert caught.value.errno == 10
    with pytest.raises(ValueError, match="Need at least one: key or value"):
        producer.send("t")
    with pytest.raises(ValueError, match="partition"):
        producer.send("t", b"v", partition=9)
    producer.close()
    with pytest.raises(kafka.errors.IllegalStateError):
        producer.send("t", b"v")


def test_a_failed_delivery_has_the_original_class_everywhere(cluster: MockCluster, make: Make) -> None:
    producer = make(retries=0, enable_idempotence=False)
    cluster.inject("Produce", error=19)
    failures: list[Any] = []
    future = producer.send("t", b"v").add_errback(failures.append)
    with pytest.raises(kafka.errors.NotEnoughReplicasError) as caught:
        future.get(timeout=10)
    assert isinstance(caught.value, own.NotEnoughReplicasError)
    assert caught.value.topic == "t"
    producer.flush()
    assert failures == [future.exception]
    assert isinstance(failures[0], kafka.errors.NotEnoughReplicasError)
    assert future.failed()
    assert future.value is None
    assert future.retriable()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copy, kafka.errors.NotEnoughReplicasError)
    assert str(copy) == str(caught.value)


def test_time_that_ran_out_is_the_original_timeout(cluster: MockCluster, make: Make) -> None:
    producer = make()
    lost = cluster.inject("Produce", drop_response=True, times=None)
    future = producer.send("t", b"v")
    with pytest.raises(kafka.errors.KafkaTimeoutError):
        future.get(timeout=0.01)
    with pytest.raises(kafka.errors.KafkaTimeoutError):
        producer.flush(timeout=0.01)
    assert not future.is_done
    lost.remove()


def test_a_topic_that_is_refused_fails_the_future(make_cluster: MakeCluster, make: Make) -> None:
    cluster = make_cluster()
    cluster.inject("Metadata", topic="secret", error=29, times=None)
    future = make(bootstrap_servers=cluster.bootstrap_servers).send("secret", b"v")
    assert future.failed()
    failures: list[Any] = []
    future.add_both(failures.append)
    assert isinstance(failures[0], kafka.errors.TopicAuthorizationFailedError)
    with pytest.raises(kafka.errors.TopicAuthorizationFailedError):
        future.get()


@pytest.mark.parametrize(
    "configs",
    [
        {"enable_idempotence": True, "acks": 1},
        {"no_such_option": 1},
        {"transactional_id": "x", "enable_idempotence": False},
    ],
)
def test_bad_options_are_configuration_errors(configs: dict[str, Any]) -> None:
    with pytest.raises(kafka.errors.KafkaConfigurationError) as caught:
        compat.KafkaProducer(bootstrap_servers="127.0.0.1:1", **configs)
    assert isinstance(caught.value, ValueError)


def test_defaults_are_the_original_ones(make: Make) -> None:
    config = make().config
    for name in (
        "linger_ms",
        "reconnect_backoff_max_ms",
        "batch_size",
        "max_request_size",
        "retry_backoff_ms",
    ):
        assert config[name] == peer.KafkaProducer.DEFAULT_CONFIG[name], name
    assert make(linger_ms=7).config["linger_ms"] == 7


def test_transactions_raise_the_original_exceptions(cluster: MockCluster, make: Make) -> None:
    producer = make(transactional_id="tx")
    with pytest.raises(kafka.errors.KafkaError):
        producer.begin_transaction()
    producer.init_transactions()
    producer.begin_transaction()
    producer.send("t", b"v")
    producer.commit_transaction()
    second = make(transactional_id="tx")
    second.init_transactions()
    producer.begin_transaction()
    producer.send("t", b"late")
    with pytest.raises(kafka.errors.KafkaError):
        producer.commit_transaction()


def test_futures_can_be_awaited(make: Make) -> None:
    producer = make()

    async def main() -> compat.RecordMetadata:
        return await producer.send("t", b"v")

    assert asyncio.run(main()).offset == 0


def test_every_name_of_the_original_errors_is_there() -> None:
    for name in vars(kafka.errors):
        if name.endswith("Error"):
            assert getattr(compat.errors, name) is getattr(kafka.errors, name)
    assert compat.errors.NoBrokersAvailable is own.NoBrokersAvailable
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = compat.errors.no_such_name


@pytest.mark.parametrize(
    ("configs", "named"),
    [
        ({"enable_idempotence": True, "acks": 1, "retries": 0}, ["acks=1", "retries=0"]),
        ({"enable_idempotence": True, "api_version": (0, 10)}, ["api_version=(0, 10)"]),
        ({"transactional_id": "t", "acks": 0, "api_version": (0, 10)}, ["acks=0", "api_version"]),
        (
            {"transactional_id": "t", "max_in_flight_requests_per_connection": 10},
            ["max_in_flight_requests_per_connection=10"],
        ),
        (
            {"transactional_id": "t", "enable_idempotence": False},
            ["transactional_id without enable_idempotence"],
        ),
    ],
)
def test_everything_that_contradicts_idempotence_is_named(configs: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(kafka.errors.KafkaConfigurationError) as caught:
        compat.KafkaProducer(**configs)
    assert [text for text in named if text not in str(caught.value)] == []


class Snapshot:
    """What a partitioner asks about a cluster."""

    def __init__(self, partitions: set[int], available: set[int]) -> None:
        self.partitions = partitions
        self.available = available

    def topics(self) -> set[str]:
        return {"t"} if self.partitions else set()

    def partitions_for_topic(self, topic: str) -> set[int]:
        return self.partitions

    def available_partitions_for_topic(self, topic: str) -> set[int]:
        return self.available


def test_partitioners_choose_as_the_original() -> None:
    cluster = Snapshot(set(range(23)), set(range(23)))
    for kind in ("DefaultPartitioner", "StickyPartitioner"):
        ours, theirs = getattr(compat.partitioner, kind)(), getattr(peer.partitioner, kind)()
        for key in (b"", b"a", b"key", bytes(range(256))):
            arguments = ("t", key, key, None, None, cluster)
            assert ours.partition(*arguments) == theirs.partition(*arguments)
        with pytest.raises(ValueError, match="not found"):
            ours.partition("other", None, None, b"v", b"v", cluster)
    assert compat.partitioner.murmur2(b"abc") == peer.partitioner.murmur2(b"abc")


def test_the_sticky_partitioner_moves_on_with_a_new_batch_only() -> None:
    sticky = compat.partitioner.StickyPartitioner()
    cluster = Snapshot(set(range(5)), {1, 3})

    def choose() -> int:
        return sticky.partition("t", None, None, b"v", b"v", cluster)

    first = choose()
    assert {choose() for _ in range(20)} == {first}
    sticky.on_new_batch("t", cluster, first)
    (second,) = {1, 3} - {first}
    assert choose() == second
    sticky.on_new_batch("t", cluster, first)  # too late: it has moved on already
    assert choose() == second
    cluster.available = {first}
    assert choose() == first
    cluster.available = set()
    sticky.on_new_batch("t", cluster, first)
    assert choose() in range(5)
    sticky.on_new_batch("t", Snapshot(set(), set()), choose())


def test_a_partitioner_in_the_original_form_is_asked(cluster: MockCluster, make: Make) -> None:
    class Last(compat.partitioner.Partitioner):
        def partition(
            self,
            topic: str,
            key: Any,
            serialized_key: bytes | None,
            value: Any,
            serialized_value: bytes | None,
            cluster: Any,
        ) -> int:
            return int(max(cluster.partitions_for_topic(topic)))

    cluster.create_topic("three", 3)
    producer = make(partitioner=Last())
    assert producer.send("three", b"v").get(timeout=10).partition == 2
