"""PartitionSink: each partition of a job is written once, however often its task runs."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from kprod import KafkaProducer, errors
from kprod.partition_sink import PartitionSink, PartitionWritten
from kprod.testing import MockCluster


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster(brokers=2) as cluster:
        cluster.create_topic("t", partitions=3)
        yield cluster


def table(first: int, count: int = 100) -> pa.Table:
    numbers = range(first, first + count)
    return pa.table({"value": [f"v{n}" for n in numbers], "key": [f"k{n % 7}" for n in numbers]})


def sink(cluster: MockCluster, **settings: Any) -> PartitionSink:
    options = {"bootstrap_servers": cluster.bootstrap_servers, "max_block_ms": 20_000}
    return PartitionSink("t", options, keys="key", **settings)


def values(cluster: MockCluster) -> list[int]:
    return sorted(int((record.value or b"")[1:]) for record in cluster.records("t"))


def test_a_partition_is_written_once(cluster: MockCluster) -> None:
    job = pickle.loads(pickle.dumps(sink(cluster, partitions=2)))
    assert job.write(0, [table(0), table(100)]) == PartitionWritten(0, 200, True)
    assert job.write(1, iter([table(200)])) == PartitionWritten(1, 100, True)
    assert job.write(0, [table(0), table(100)]) == PartitionWritten(0, 200, False)
    assert job.write(1, [table(200)]) == PartitionWritten(1, 100, False)
    assert values(cluster) == list(range(300))
    assert cluster.committed_offsets(f"{job.job_id}-0") == {("t", 0): 200}


def test_an_empty_partition_is_remembered_too(cluster: MockCluster) -> None:
    job = sink(cluster)
    assert job.write(0, []) == PartitionWritten(0, 0, True)
    assert job.write(0, [table(0)]) == PartitionWritten(0, 0, False)
    assert values(cluster) == []


def test_another_job_writes_again(cluster: MockCluster) -> None:
    for _ in range(2):
        assert sink(cluster).write(0, [table(0, 5)]).by_this_attempt
    assert values(cluster) == sorted([*range(5)] * 2)


def test_an_attempt_that_fails_leaves_no_record_of_completion(cluster: MockCluster) -> None:
    job = sink(cluster)

    def failing() -> Iterator[pa.Table]:
        yield table(0)
        raise LookupError("the rows cannot be read")

    with pytest.raises(LookupError, match="cannot be read"):
        job.write(0, failing())
    assert cluster.committed_offsets(f"{job.job_id}-0") == {}
    assert job.write(0, [table(0)]) == PartitionWritten(0, 100, True)


def test_an_attempt_that_was_overtaken_cannot_commit(cluster: MockCluster) -> None:
    """The first one is slow: a second one writes the partition while the first one reads its rows."""
    job = sink(cluster)
    later = []

    def slow() -> Iterator[pa.Table]:
        yield table(0)
        later.append(job.write(0, [table(0)]))
        yield table(100)

    with pytest.raises(errors.KafkaError) as caught:
        job.write(0, slow())
    assert isinstance(caught.value, (errors.ProducerFencedError, errors.TransactionAbortableError))
    assert later == [PartitionWritten(0, 100, True)]
    assert cluster.committed_offsets(f"{job.job_id}-0") == {("t", 0): 100}


def test_other_partitions_under_the_same_job_id_are_refused(cluster: MockCluster) -> None:
    sink(cluster, job_id="nightly", partitions=2).write(0, [table(0)])
    with pytest.raises(errors.IllegalStateError, match="'nightly' was begun with 2 partitions and has 3 now"):
        sink(cluster, job_id="nightly", partitions=3).write(0, [table(0)])


def test_a_consumer_group_of_somebody_else_is_no_record(cluster: MockCluster) -> None:
    with KafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers, transactional_id="of-somebody-else"
    ) as producer:
        producer.init_transactions()
        with producer.transaction():
            producer.send_offsets_to_transaction({("t", 0): 7}, "used-0")
    with pytest.raises(errors.IllegalStateError, match="'used-0' has an offset in t that is not a record"):
        sink(cluster, job_id="used").write(0, [table(0)])


def test_without_exactly_once_every_attempt_writes(cluster: MockCluster) -> None:
    job = sink(cluster, exactly_once=False)
    for _ in range(2):
        assert job.write(0, [table(0, 5), table(5, 5)]) == PartitionWritten(0, 10, True)
    assert values(cluster) == sorted([*range(10)] * 2)
    assert cluster.committed_offsets(f"{job.job_id}-0") == {}


@pytest.mark.parametrize("name", ["transactional_id", "transactional.id"])
def test_a_transactional_id_is_refused(name: str) -> None:
    with pytest.raises(errors.KafkaConfigurationError, match="set job_id"):
        PartitionSink("t", {name: "mine"})


def test_columns_by_name() -> None:
    assert PartitionSink("t", {}, values="v", keys="k", timestamps="k").columns == ["v", "k"]


def test_the_coordinator_moves_while_it_is_asked(cluster: MockCluster) -> None:
    job = sink(cluster)
    job.write(0, [table(0)])
    cluster.inject("OffsetFetch", "NOT_COORDINATOR", times=2)
    assert job.write(0, [table(0)]) == PartitionWritten(0, 100, False)


def test_missing_permission(cluster: MockCluster) -> None:
    cluster.inject("OffsetFetch", "GROUP_AUTHORIZATION_FAILED")
    with pytest.raises(errors.GroupAuthorizationFailedError, match="group 'j-0'"):
        sink(cluster, job_id="j").write(0, [table(0)])
    assert values(cluster) == []
