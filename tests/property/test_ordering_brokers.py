"""Invariants 1 and 2 while leaders move, brokers go away and come back, and records expire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kprod import DeliveryFuture, KafkaError, KafkaProducer
from kprod.testing import MockCluster
from tests.property.disturbances import BROKERS, Disturbed, brokers, injected, pauses

PARTITIONS = 4

Step = Callable[["Run"], object]


class Run(Disturbed):
    """A producer, its cluster, and what was sent so far."""

    def __init__(self, cluster: MockCluster, producer: KafkaProducer) -> None:
        super().__init__(cluster, producer)
        self.futures: list[list[DeliveryFuture]] = [[] for _ in range(PARTITIONS)]
        self.reports: list[list[int]] = [[] for _ in range(PARTITIONS)]

    def send(self, count: int) -> None:
        """Some records to each partition; a partition's values are 0, 1, 2 ..."""
        for _ in range(count):
            for partition, futures in enumerate(self.futures):
                number = len(futures)
                futures.append(
                    self.producer.send(
                        "t", b"%d" % number, partition=partition,
                        on_delivery=lambda error, _, p=partition, n=number: self.reports[p].append(n),  # type: ignore[misc]
                    )
                )  # fmt: skip

    def check(self, doubtful_in_order: bool) -> None:
        """Every record was decided once; the log has no duplicates, is in order, and is what was reported.

        Args:
            doubtful_in_order: also records that were given up, and are written all the same.
        """
        for partition, futures in enumerate(self.futures):
            assert all(future.done() for future in futures)
            assert sorted(self.reports[partition]) == list(range(len(futures))), "one report for each"
            records = self.cluster.records("t", partition)
            found = [int(record.value or b"") for record in records]
            assert len(found) == len(set(found)), f"partition {partition}: {found}"
            doubtful = {n for n in found if futures[n].failed()}
            settled = [n for n in found if doubtful_in_order or n not in doubtful]
            assert settled == sorted(settled), f"partition {partition}: {found}"
            assert {record.producer_id >= 0 for record in records} <= {True}
            for number, future in enumerate(futures):
                error = future.exception if future.failed() else None
                if error is None:
                    assert number in found
                    if (offset := future.get().offset) >= 0:
                        assert found[offset] == number
                elif number in found:
                    assert isinstance(error, KafkaError) and error.persisted == "possibly"


sends = st.integers(1, 12).map(lambda n: lambda run: run.send(n))
faults: list[dict[str, Any]] = [
    {"error": "NOT_ENOUGH_REPLICAS"},
    {"error": "REQUEST_TIMED_OUT", "applied": True},
    {"error": "INVALID_RECORD"},
    {"close_connection": "after"},
    {"drop_response": True},
    {"handle_after_ms": 200},
    {"delay_ms": 200},
]


disturbances = st.one_of(
    brokers("t", PARTITIONS),
    st.sampled_from(faults).flatmap(lambda fault: injected("Produce", fault, 4)),
)
refused_epochs = injected("Produce", {"error": "INVALID_PRODUCER_EPOCH"}, 4)


def plans(*disturbances: st.SearchStrategy[Step]) -> st.SearchStrategy[list[Step]]:
    return st.lists(st.one_of(sends, pauses(0.01, 0.1, 0.3), *disturbances), min_size=15, max_size=60)


options = st.fixed_dictionaries(
    {
        "max_in_flight_requests_per_connection": st.sampled_from([1, 5]),
        "delivery_timeout_ms": st.sampled_from([200, 500, 120_000]),
        "batch_size": st.sampled_from([1, 200]),
    }
)


def carry_out(plan: list[Step], options: dict[str, Any], doubtful_in_order: bool) -> None:
    with MockCluster(BROKERS) as cluster:
        cluster.create_topic("t", partitions=PARTITIONS, replication_factor=BROKERS)
        with KafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, request_timeout_ms=150, linger_ms=0,
            retry_backoff_ms=1, retry_backoff_max_ms=20, reconnect_backoff_ms=1, reconnect_backoff_max_ms=20,
            metadata_max_age_ms=1000, **options,
        ) as producer:  # fmt: skip
            producer.partitions_for("t")
            cluster.set_latency(1)
            run = Run(cluster, producer)
            for step in plan:
                step(run)
            run.heal()
            producer.flush(20)
            run.check(doubtful_in_order)
        assert cluster.problems == []


quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(plans(disturbances), options)
def test_records_are_written_once_in_order_wherever_their_leaders_go(
    plan: list[Step], options: dict[str, Any]
) -> None:
    carry_out(plan, options, doubtful_in_order=True)


@quick
@given(plans(disturbances, refused_epochs), options)
def test_refused_epochs_make_no_duplicates_wherever_leaders_go(
    plan: list[Step], options: dict[str, Any]
) -> None:
    """What was given up has another producer id than what follows: a late broker may write it afterwards."""
    carry_out(plan, options, doubtful_in_order=False)
