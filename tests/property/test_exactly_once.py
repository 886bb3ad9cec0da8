"""Transactions whose commit succeeded are in the log once and whole, and no others, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kprod import KafkaError, KafkaProducer
from kprod.errors import KafkaTimeoutError
from kprod.testing import MockCluster
from kprod.testing.broker.record_batch import read_records
from tests.property.disturbances import BROKERS, Disturbed, brokers, injected, pauses

PARTITIONS = 2
RELEASES = {"v1": "3.9", "v2": "4.1"}
COMMIT_MARKER = b"\x00\x00\x00\x01"

Step = Callable[["Run"], object]


class Run(Disturbed):
    """A transactional producer, its cluster, and what is committed so far."""

    def __init__(self, cluster: MockCluster, producer: KafkaProducer) -> None:
        super().__init__(cluster, producer)
        self.number = 0
        self.sent: list[list[bytes]] = []
        self.committed: list[list[bytes]] = [[] for _ in range(PARTITIONS)]

    def transaction(self, steps: list[Step], commits: bool) -> None:
        self.sent = [[] for _ in range(PARTITIONS)]
        self.number += 1
        self.until_decided(self.producer.begin_transaction)
        try:
            for step in steps:
                step(self)
            if commits:
                self.until_decided(self.producer.commit_transaction)
        except KafkaError:
            commits = False
        if commits:
            for partition, values in enumerate(self.sent):
                self.committed[partition] += values
        else:
            self.until_decided(self.producer.abort_transaction)

    def until_decided(self, call: Callable[[], object]) -> None:
        """A call that ran out of time goes on when it is repeated; by then the brokers are well again."""
        for _ in range(40):
            try:
                call()
                return
            except KafkaTimeoutError:
                self.heal()
        raise AssertionError(f"{call} never ends")

    def send(self, count: int) -> None:
        for _ in range(count):
            for partition, values in enumerate(self.sent):
                value = b"%d.%d" % (self.number, len(values))
                self.producer.send("t", value, partition=partition)
                values.append(value)

    def visible(self, partition: int) -> list[bytes]:
        """What a consumer with read_committed gets; nothing may be left of which no marker tells."""
        pending: dict[int, list[bytes]] = {}
        found: list[bytes] = []
        for batch in self.cluster.batches("t", partition):
            records = read_records(batch.data, batch.header)
            producer_id = batch.header.producer_id
            if not batch.header.is_control:
                assert batch.header.is_transactional
                pending.setdefault(producer_id, []).extend(value or b"" for _, _, value, _ in records)
                continue
            ended = pending.pop(producer_id, [])
            if records[0][1] == COMMIT_MARKER:
                found += ended
        assert not any(pending.values()), f"no marker for {pending}"
        return found


sends = st.integers(1, 8).map(lambda n: lambda run: run.send(n))
faults: list[dict[str, Any]] = [
    {"error": "NOT_ENOUGH_REPLICAS"},
    {"error": "REQUEST_TIMED_OUT", "applied": True},
    {"error": "INVALID_RECORD"},
    {"error": "INVALID_PRODUCER_EPOCH"},
    {"close_connection": "before"},
    {"close_connection": "after"},
    {"drop_response": True},
    {"handle_after_ms": 150},
    {"delay_ms": 150},
]
coordinator_faults: list[dict[str, Any]] = [
    {"error": "NOT_COORDINATOR"},
    {"error": "COORDINATOR_LOAD_IN_PROGRESS"},
    {"error": "CONCURRENT_TRANSACTIONS"},
    {"close_connection": "before"},
    {"close_connection": "after"},
    {"drop_response": True},
    {"handle_after_ms": 150},
]


disturbances = st.one_of(
    brokers("t", PARTITIONS),
    st.sampled_from(faults).flatmap(lambda fault: injected("Produce", fault, 2)),
    st.tuples(
        st.sampled_from(["InitProducerId", "AddPartitionsToTxn", "EndTxn"]),
        st.sampled_from(coordinator_faults),
    ).flatmap(lambda pair: injected(*pair, 2)),
)
transactions = st.tuples(
    st.lists(st.one_of(sends, sends, pauses(0.01, 0.1), disturbances), min_size=1, max_size=8), st.booleans()
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    plan=st.lists(transactions, min_size=2, max_size=8),
    release=st.sampled_from(list(RELEASES)),
    batch_size=st.sampled_from([1, 200]),
)
def test_committed_transactions_are_there_once_and_whole_and_no_others(
    plan: list[tuple[list[Step], bool]], release: str, batch_size: int
) -> None:
    with MockCluster(BROKERS, replication_factor=BROKERS, as_version=RELEASES[release]) as cluster:
        cluster.create_topic("t", PARTITIONS)
        with KafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, transactional_id="tx", batch_size=batch_size,
            linger_ms=0, request_timeout_ms=100, max_block_ms=500, delivery_timeout_ms=400,
            retry_backoff_ms=1, retry_backoff_max_ms=20, reconnect_backoff_ms=1, reconnect_backoff_max_ms=20,
        ) as producer:  # fmt: skip
            producer.init_transactions()
            run = Run(cluster, producer)
            for steps, commits in plan:
                run.transaction(steps, commits)
            run.heal()
            run.transaction([lambda run: run.send(1)], commits=True)
            assert [run.visible(partition) for partition in range(PARTITIONS)] == run.committed
        assert cluster.problems == []
