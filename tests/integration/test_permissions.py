"""ACLs on every listener: what is documented as needed is enough, and what is missing has its own error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from kprod import errors
from tests.conftest import TopicFactory
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.readers import read_confluent

from .conftest import MakeProducer
from .secure import MECHANISMS, SASL_LISTENERS, Acls, commit_one_and_abort_one, sasl_options, tls_options

CERTIFICATE = "orders service"
WAYS = ["MTLS", *(f"{listener} {mechanism}" for listener in SASL_LISTENERS for mechanism in MECHANISMS)]


class Client(NamedTuple):
    """Somebody without permissions."""

    options: dict[str, Any]
    """How it authenticates."""
    acls: Acls


@pytest.fixture(params=WAYS)
def client(kafka_secure: KafkaCluster, request: pytest.FixtureRequest) -> Iterator[Client]:
    listener, _, mechanism = request.param.partition(" ")
    if mechanism:
        options = sasl_options(kafka_secure, listener, mechanism, "alice")
        acls = Acls(kafka_secure, "User:alice")
    else:
        certificate = kafka_secure.certificates.issue(CERTIFICATE, hosts=("client",), revocable=True)
        options = tls_options(kafka_secure, listener, certificate)
        acls = Acls(kafka_secure, f"User:CN={CERTIFICATE}")
    yield Client(options, acls)
    acls.end()


def _goes_through(call: Callable[[], object]) -> bool:
    try:
        call()
    except errors.AuthorizationError:
        return False
    return True


def test_what_is_needed_is_enough(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer, client: Client
) -> None:
    """Records, idempotence and transactions with Write on the topic, Write and Describe on the id."""
    name = secure_topic()
    client.acls.allow(ResourceType.TRANSACTIONAL_ID, f"tx-{name}", AclOperation.WRITE, AclOperation.DESCRIBE)
    client.acls.allow(ResourceType.TOPIC, name, AclOperation.WRITE)
    plain = make_producer(kafka_secure, **client.options, enable_idempotence=False)
    # The broker has learnt of the last permission, so of all.
    wait_until(lambda: _goes_through(lambda: plain.send(name, b"0").get(30)), "the ACLs to be known")
    producer = make_producer(kafka_secure, **client.options)
    for future in [producer.send(name, str(n).encode()) for n in range(1, 100)]:
        future.get(30)
    transactional = make_producer(kafka_secure, **client.options, transactional_id=f"tx-{name}")
    commit_one_and_abort_one(transactional, name)
    found = read_confluent(kafka_secure.bootstrap_servers, name, isolation="read_committed")
    assert [record.value for record in found] == [str(n).encode() for n in range(100)] + [b"committed"]
    idempotent = [batch for batch in kafka_secure.log_batches(name) if batch.producer_id >= 0]
    assert sum(batch.records for batch in idempotent if not batch.is_transactional) == 99


def test_what_is_missing_has_an_error_of_its_own(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer, client: Client
) -> None:
    name = secure_topic()

    def send(**options: Any) -> Callable[[], object]:
        return lambda: make_producer(kafka_secure, **client.options, **options).send(name, b"x").get(30)

    def begin() -> None:
        make_producer(kafka_secure, **client.options, transactional_id="not-allowed").init_transactions()

    _fails(send(enable_idempotence=False), errors.TopicAuthorizationFailedError, f"--topic {name}")
    _fails(begin, errors.TransactionalIdAuthorizationFailedError, "--transactional-id not-allowed")
    client.acls.allow(ResourceType.TOPIC, name, AclOperation.DESCRIBE)
    described = make_producer(kafka_secure, **client.options, enable_idempotence=False)
    wait_until(lambda: _goes_through(lambda: described.partitions_for(name)), "the ACL to be known")
    _fails(
        send(enable_idempotence=False),
        errors.TopicAuthorizationFailedError,
        f"--operation Write .*--topic {name}",
    )
    _fails(send(), errors.ClusterAuthorizationFailedError, "--operation IdempotentWrite --cluster")


def _fails(call: Callable[[], object], kind: type[errors.KafkaError], text: str) -> None:
    began = time.monotonic()
    with pytest.raises(kind, match=text) as caught:
        call()
    assert type(caught.value) is kind
    assert time.monotonic() - began < 10
