"""The option gapless: nothing is written behind a record that is lost."""

from __future__ import annotations

import pytest

from kprod import KafkaError, KafkaProducer
from kprod.errors import InvalidRecordError
from kprod.testing import MockCluster


def test_nothing_is_written_behind_a_lost_record(cluster: MockCluster) -> None:
    with KafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers, gapless=True, batch_size=200, linger_ms=0
    ) as producer:
        producer.send("t", b"first").get(timeout=10)
        cluster.inject("Produce", error="INVALID_RECORD", times=1)
        futures = [producer.send("t", b"%03d" % i + b"x" * 150) for i in range(3)]
        outcomes = []
        for future in futures:
            with pytest.raises(KafkaError) as caught:
                future.get(timeout=10)
            outcomes.append(caught.value)
        assert isinstance(outcomes[0], InvalidRecordError)
        assert all("gapless" in str(error) for error in outcomes[1:])
        with pytest.raises(KafkaError, match="gapless"):
            producer.send("t", b"later")
    assert [record.value for record in cluster.records("t")] == [b"first"]


def test_without_the_option_later_records_are_written(cluster: MockCluster) -> None:
    with KafkaProducer(bootstrap_servers=cluster.bootstrap_servers, batch_size=200, linger_ms=0) as producer:
        producer.send("t", b"first").get(timeout=10)
        cluster.inject("Produce", error="INVALID_RECORD", times=1)
        futures = [producer.send("t", b"%03d" % i + b"x" * 150) for i in range(3)]
        with pytest.raises(InvalidRecordError):
            futures[0].get(timeout=10)
        for future in futures[1:]:
            future.get(timeout=10)
    assert [(record.value or b"")[:3] for record in cluster.records("t")] == [b"fir", b"001", b"002"]
