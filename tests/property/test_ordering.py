"""Invariants 1 and 2 under random disturbances: records are decided once, and written once, in send order."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kprod import KafkaError, KafkaProducer
from kprod.testing import MockCluster

RECORDS = 200

refusals = st.sampled_from(
    [
        "NOT_ENOUGH_REPLICAS",
        "NOT_LEADER_OR_FOLLOWER",
        "LEADER_NOT_AVAILABLE",
        "CORRUPT_MESSAGE",
        "KAFKA_STORAGE_ERROR",
    ]
).map(lambda error: {"error": error})
uncertain = st.sampled_from(
    [
        {"error": "REQUEST_TIMED_OUT"},
        {"error": "REQUEST_TIMED_OUT", "applied": True},
        {"error": "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "applied": True},
        {"close_connection": "before"},
        {"close_connection": "after"},
        {"close_connection": "mid_response"},
        {"drop_response": True},
        # Longer than request_timeout_ms: handled when the connection is gone.
        {"handle_after_ms": 200},
    ]
)
refused_epoch = st.just({"error": "INVALID_PRODUCER_EPOCH"})
state_lost = st.one_of(st.just({"error": "UNKNOWN_PRODUCER_ID"}), refused_epoch)
"""Not together with `uncertain`: a broker that has forgotten the producer cannot tell what it has already."""
too_large = st.just({"error": "MESSAGE_TOO_LARGE"})
"""Nor this: what a broker has written was not too large."""
final = st.sampled_from([{"error": "INVALID_RECORD"}, {"error": "INVALID_TIMESTAMP"}])


def faults(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(
        st.tuples(st.one_of(*kinds), st.integers(0, 12), st.integers(1, 3)), min_size=1, max_size=5
    )


def is_doubtful(error: KafkaError | None) -> bool:
    return error is not None and error.persisted == "possibly"


def run(
    disturbances: list[tuple[dict[str, Any], int, int]],
    partitions: int,
    in_order: bool = False,
    **options: Any,
) -> None:
    with MockCluster() as cluster:
        cluster.create_topic("t", partitions=partitions)
        with KafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, batch_size=256, linger_ms=0, request_timeout_ms=150,
            retry_backoff_ms=1, retry_backoff_max_ms=4, reconnect_backoff_ms=1, reconnect_backoff_max_ms=4,
            **options,
        ) as producer:  # fmt: skip
            producer.partitions_for("t")
            cluster.set_latency(1)
            for fault, skip, times in disturbances:
                cluster.inject("Produce", skip=skip, times=times, **fault)
            reports: list[tuple[int, bool]] = []
            futures = [
                producer.send(
                    "t", b"%d" % i, partition=i % partitions,
                    on_delivery=lambda error, metadata, i=i: reports.append((i, error is None)),  # type: ignore[misc]
                )
                for i in range(RECORDS)
            ]  # fmt: skip
            producer.flush(20)
            assert all(future.done() for future in futures)
            assert sorted(i for i, _ in reports) == list(range(RECORDS)), "one report for each"
            assert all(futures[i].succeeded() is good for i, good in reports)
            doubtful = {i for i, f in enumerate(futures) if f.failed() and is_doubtful(f.exception)}
            for partition in range(partitions):
                ours = range(partition, RECORDS, partitions)
                if in_order:
                    assert [i for i, _ in reports if i % partitions == partition] == list(ours)
                found = [int(record.value or b"") for record in cluster.records("t", partition)]
                # What failed may be there when an attempt's fate was not known, and says so.
                assert found == [i for i in ours if futures[i].succeeded() or i in set(found) & doubtful]
                for i in ours:
                    if futures[i].succeeded() and (offset := futures[i].get().offset) >= 0:
                        assert found[offset] == i
            assert all(record.producer_id >= 0 for record in cluster.records("t"))
        assert cluster.problems == []


quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(faults(refusals, uncertain), st.sampled_from([1, 3]), st.sampled_from([1, 2, 5]))
def test_whatever_can_be_retried_is_written_once_in_order(
    disturbances: list[Any], partitions: int, in_flight: int
) -> None:
    run(disturbances, partitions, max_in_flight_requests_per_connection=in_flight)


@quick
@given(faults(refusals, state_lost, too_large), st.sampled_from([1, 3]))
def test_brokers_that_lose_their_state_or_take_only_small_batches(
    disturbances: list[Any], partitions: int
) -> None:
    run(disturbances, partitions, in_order=True)


@quick
@given(faults(uncertain, refused_epoch, final), st.sampled_from([1, 3]))
def test_a_refused_epoch_makes_no_duplicates_of_what_may_be_written(
    disturbances: list[Any], partitions: int
) -> None:
    run(disturbances, partitions)


@quick
@given(faults(refusals, final), st.sampled_from([1, 3]))
def test_records_that_fail_for_good_leave_the_rest_in_order(disturbances: list[Any], partitions: int) -> None:
    run(disturbances, partitions)


@quick
@given(faults(refusals, uncertain, final), st.sampled_from(["none", "lz4"]))
def test_everything_together(disturbances: list[Any], codec: str) -> None:
    run(disturbances, 2, compression_type=codec)
