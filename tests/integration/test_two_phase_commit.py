"""Two-phase commit (KIP-939) on real Kafka 4.1, which has it as an unstable feature."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from kprod import KafkaProducer, PreparedTxnState, errors
from tests.integration.conftest import MakeProducer
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent


@pytest.fixture(scope="module")
def two_phase(kafka: KafkaCluster) -> Iterator[KafkaCluster]:
    """A broker that takes part in two-phase commits; it needs what ``kafka`` needs."""
    with KafkaCluster(
        1,
        distribution=kafka.distribution,
        unstable_api_versions_enable=True,
        unstable_feature_versions_enable=True,
        transaction_two_phase_commit_enable=True,
    ) as cluster:
        yield cluster


@pytest.fixture
def transactional_id() -> str:
    """One that no other test has."""
    return f"2pc-{secrets.token_hex(4)}"


def make_topic(cluster: KafkaCluster) -> str:
    return cluster.create_topic(f"2pc-{secrets.token_hex(4)}")


def read(cluster: KafkaCluster, topic: str, isolation: str = "read_committed") -> list[bytes | None]:
    return [record.value for record in read_confluent(cluster.bootstrap_servers, topic, isolation=isolation)]


def test_a_broker_as_it_comes_does_not_offer_it(
    kafka: KafkaCluster, make_producer: MakeProducer, transactional_id: str
) -> None:
    producer = make_producer(
        kafka, transactional_id=transactional_id, transaction_two_phase_commit_enable=True
    )
    with pytest.raises(errors.UnsupportedVersionError) as caught:
        producer.init_transactions(30)
    said = str(caught.value)
    assert "transaction_two_phase_commit_enable=True needs InitProducerId version 6" in said
    assert "unstable.api.versions.enable=true" in said
    assert kafka.address() in said


def test_a_broker_with_the_versions_that_has_it_off(
    kafka: KafkaCluster, make_producer: MakeProducer, transactional_id: str
) -> None:
    with KafkaCluster(1, distribution=kafka.distribution, unstable_api_versions_enable=True) as cluster:
        producer = make_producer(
            cluster, transactional_id=transactional_id, transaction_two_phase_commit_enable=True
        )
        with pytest.raises(errors.TransactionalIdAuthorizationFailedError) as caught:
            producer.init_transactions(30)
    assert "brokers with transaction.two.phase.commit.enable=true" in str(caught.value)


@pytest.fixture
def tx(two_phase: KafkaCluster, make_producer: MakeProducer, transactional_id: str) -> KafkaProducer:
    """A producer that is ready for transactions of a two-phase commit."""
    producer = make_producer(
        two_phase, transactional_id=transactional_id, transaction_two_phase_commit_enable=True
    )
    producer.init_transactions()
    return producer


def test_a_prepared_transaction_ends_as_the_other_side_did(
    two_phase: KafkaCluster, tx: KafkaProducer
) -> None:
    topic = make_topic(two_phase)
    expected: list[bytes] = []
    last_committed = PreparedTxnState()
    for round_ in range(6):
        tx.begin_transaction()
        values = [b"%d-%d" % (round_, i) for i in range(3)]
        for value in values:
            tx.send(topic, value)
        prepared = tx.prepare_transaction()
        assert prepared.has_transaction and prepared != last_committed
        with pytest.raises(errors.IllegalStateError, match="in a prepared transaction"):
            tx.send(topic, b"too late")
        assert read(two_phase, topic) == expected, "prepared is not committed"
        if round_ % 3 != 2:
            # The other side has committed, and kept this.
            last_committed = PreparedTxnState.parse(str(prepared))
            expected += values
        tx.complete_transaction(last_committed)
        assert read(two_phase, topic) == expected
    assert len(read(two_phase, topic, "read_uncommitted")) == 18, "the aborted ones are in the log"


def test_a_prepared_transaction_outlives_a_producer_that_closes(
    two_phase: KafkaCluster, tx: KafkaProducer, make_producer: MakeProducer, transactional_id: str
) -> None:
    topic = make_topic(two_phase)
    tx.begin_transaction()
    tx.send(topic, b"prepared")
    tx.prepare_transaction()
    tx.close()
    successor = make_producer(
        two_phase, transactional_id=transactional_id, transaction_two_phase_commit_enable=True
    )
    # What a release answers that cannot keep it yet.
    with pytest.raises(errors.UnsupportedVersionError, match="cannot keep a prepared transaction yet"):
        successor.init_transactions(30, keep_prepared_txn=True)
    assert read(two_phase, topic) == []
    assert read(two_phase, topic, "read_uncommitted") == [b"prepared"], "no marker: it is still open"
    successor.init_transactions()
    with successor.transaction():
        successor.send(topic, b"next")
    assert read(two_phase, topic) == [b"next"], "without keep_prepared_txn it was aborted"


def test_the_option_changes_nothing_for_others(
    two_phase: KafkaCluster, make_producer: MakeProducer, transactional_id: str
) -> None:
    topic = make_topic(two_phase)
    producer = make_producer(two_phase, transactional_id=transactional_id)
    producer.init_transactions()
    with producer.transaction():
        producer.send(topic, b"1")
    with pytest.raises(
        errors.IllegalStateError, match="needs the option transaction_two_phase_commit_enable"
    ):
        producer.prepare_transaction()
    assert read(two_phase, topic) == [b"1"]
