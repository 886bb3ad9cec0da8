"""SASL against real Kafka: mechanisms, ACLs, sessions that end, an error for all that is wrong."""

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError as ConfluentError
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from kprod import KafkaProducer, errors
from kprod.security.oauthbearer import UnsecuredTokens
from tests.conftest import TopicFactory
from tests.kafka.cluster import USERS, KafkaCluster, wait_until
from tests.kafka.readers import read_confluent

from .conftest import MakeProducer
from .secure import (
    MECHANISMS,
    SASL_LISTENERS,
    Acls,
    commit_one_and_abort_one,
    is_written,
    sasl_options,
)


def reader_settings(cluster: KafkaCluster, listener: str, mechanism: str, user: str) -> dict[str, str]:
    """confluent-kafka's options for the same credentials."""
    settings = {
        "security.protocol": listener,
        "ssl.ca.location": str(cluster.certificates.file),
        "sasl.mechanism": mechanism,
    }
    if mechanism == "OAUTHBEARER":
        settings["enable.sasl.oauthbearer.unsecure.jwt"] = "true"
        settings["sasl.oauthbearer.config"] = f"principal={user}"
    else:
        settings["sasl.username"] = user
        settings["sasl.password"] = USERS[user]
    return settings


def values_in(
    cluster: KafkaCluster, topic: str, listener: str, mechanism: str, isolation: str = "read_uncommitted"
) -> list[bytes | None]:
    settings = reader_settings(cluster, listener, mechanism, "admin")
    found = read_confluent(cluster.servers(listener), topic, isolation=isolation, settings=settings)
    return [record.value for record in found]


@pytest.mark.parametrize("listener", SASL_LISTENERS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_records_idempotence_and_transactions(
    kafka_secure: KafkaCluster,
    secure_topic: TopicFactory,
    make_producer: MakeProducer,
    listener: str,
    mechanism: str,
) -> None:
    name = secure_topic()
    options = sasl_options(kafka_secure, listener, mechanism)
    producer = make_producer(kafka_secure, **options)
    futures = [producer.send(name, str(n).encode()) for n in range(100)]
    assert [future.get(30).offset for future in futures] == list(range(100))
    transactional = make_producer(kafka_secure, **options, transactional_id=f"tx-{name}")
    commit_one_and_abort_one(transactional, name)
    expected = [str(n).encode() for n in range(100)] + [b"committed"]
    assert values_in(kafka_secure, name, listener, mechanism, "read_committed") == expected
    batches = kafka_secure.log_batches(name)
    assert all(batch.producer_id >= 0 and batch.base_sequence >= 0 for batch in batches if batch.records > 1)


def test_settings_of_java_and_of_librdkafka_work_as_they_are(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory
) -> None:
    name = secure_topic()
    shared = {
        "bootstrap.servers": kafka_secure.servers("SASL_PLAINTEXT"),
        "security.protocol": "SASL_PLAINTEXT",
    }
    login = (
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="admin" password="{USERS["admin"]}";'
    )
    oauth = (
        "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="admin";'
    )
    for settings in (
        {"sasl.mechanism": "SCRAM-SHA-512", "sasl.jaas.config": login},
        {"sasl.mechanism": "OAUTHBEARER", "sasl.jaas.config": oauth},
        {"sasl.mechanisms": "PLAIN", "sasl.username": "admin", "sasl.password": USERS["admin"]},
    ):
        with KafkaProducer({**shared, **settings}) as producer:
            producer.send(name, b"x").get(30)


# --- what is wrong has its own error

Wrong = Callable[[KafkaCluster], dict[str, Any]]


def with_wrong_password(listener: str, mechanism: str) -> Wrong:
    return lambda cluster: {**sasl_options(cluster, listener, mechanism), "sasl_plain_password": "wrong"}


def with_fake_kerberos(cluster: KafkaCluster) -> dict[str, Any]:
    return {**sasl_options(cluster), "sasl_mechanism": "GSSAPI"}


def with_expired_token(cluster: KafkaCluster) -> dict[str, Any]:
    return {
        **sasl_options(cluster, mechanism="OAUTHBEARER"),
        "sasl_oauth_token_provider": UnsecuredTokens("admin", lifetime_s=-600),
    }


def with_failing_provider(cluster: KafkaCluster) -> dict[str, Any]:
    return {
        **sasl_options(cluster, mechanism="OAUTHBEARER"),
        "sasl_oauth_token_provider": lambda: os.environ["KPROD_NO_SUCH_TOKEN"],
    }


WRONG: dict[str, tuple[Wrong, type[errors.KafkaError], str]] = {
    **{
        f"wrong password, {mechanism}, {listener}": (
            with_wrong_password(listener, mechanism),
            errors.SaslAuthenticationFailedError,
            rf"the broker refused the {mechanism} credentials: .*[Ii]nvalid.*; check sasl_plain_username "
            r"\(it is 'admin'\) and sasl_plain_password",
        )
        for mechanism in MECHANISMS[:3]
        for listener in SASL_LISTENERS
    },
    "unknown user": (
        lambda c: {**sasl_options(c, mechanism="SCRAM-SHA-256"), "sasl_plain_username": "nobody"},
        errors.SaslAuthenticationFailedError,
        r"check sasl_plain_username \(it is 'nobody'\)",
    ),
    "expired token": (with_expired_token, errors.SaslAuthenticationFailedError, "invalid_token.*both clocks"),
    "failing token provider": (with_failing_provider, errors.TokenUnavailableError, "raised KeyError"),
    "mechanism that the broker has not": (
        with_fake_kerberos,
        errors.UnsupportedSaslMechanismError,
        "GSSAPI here, only (PLAIN|SCRAM-SHA-256|SCRAM-SHA-512|OAUTHBEARER|, )+: set sasl_mechanism to one",
    ),
    "SASL on a port without": (
        lambda c: {**sasl_options(c), "bootstrap_servers": c.bootstrap_servers},
        errors.IllegalSaslStateError,
        "the listener does not ask for SASL: set security_protocol to PLAINTEXT",
    ),
    "SASL_SSL on a TLS port without SASL": (
        lambda c: {**sasl_options(c, "SASL_SSL"), "bootstrap_servers": c.servers("SSL")},
        errors.IllegalSaslStateError,
        "the listener does not ask for SASL: set security_protocol to PLAINTEXT or SSL",
    ),
    "PLAINTEXT on a SASL port": (
        lambda c: {"bootstrap_servers": c.servers("SASL_PLAINTEXT")},
        errors.IllegalSaslStateError,
        "security_protocol='PLAINTEXT' nobody is authenticated. Set it to SASL_PLAINTEXT",
    ),
    "SASL_PLAINTEXT on a SASL_SSL port": (
        lambda c: {**sasl_options(c), "bootstrap_servers": c.servers("SASL_SSL")},
        errors.TlsListenerError,
        "security_protocol is 'SASL_PLAINTEXT'. Set it to 'SASL_SSL'",
    ),
    "SASL_SSL on a SASL_PLAINTEXT port": (
        lambda c: {**sasl_options(c, "SASL_SSL"), "bootstrap_servers": c.servers("SASL_PLAINTEXT")},
        errors.PlaintextListenerError,
        "security_protocol='SASL_PLAINTEXT' would use this one",
    ),
    "SASL_SSL, an authority that is not trusted": (
        lambda c: {**sasl_options(c, "SASL_SSL"), "ssl_cafile": None},
        errors.CertificateNotTrustedError,
        "ssl_cafile",
    ),
    "SASL_SSL, another host name": (
        lambda c: {**sasl_options(c, "SASL_SSL"), "bootstrap_servers": c.servers("SASL_SSL", "127.0.0.1")},
        errors.HostNameMismatchError,
        "not for the host '127.0.0.1'",
    ),
    "SSL on a SASL_SSL port": (
        lambda c: {
            "bootstrap_servers": c.servers("SASL_SSL"),
            "security_protocol": "SSL",
            "ssl_cafile": str(c.certificates.file),
        },
        errors.IllegalSaslStateError,
        "security_protocol='SSL' nobody is authenticated. Set it to SASL_SSL",
    ),
}


@pytest.fixture
def fake_gssapi(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Kerberos with any token: the broker refuses the mechanism before it sees that."""
    module: Any = types.ModuleType("gssapi")
    context = types.SimpleNamespace(step=lambda: b"ticket")
    name = types.SimpleNamespace(canonicalize=lambda mechanism: "name")
    module.Name = lambda *_: name
    module.NameType = types.SimpleNamespace(hostbased_service=1)
    module.MechType = types.SimpleNamespace(kerberos=1)
    module.SecurityContext = lambda **_: context
    module.exceptions = types.SimpleNamespace(GSSError=KeyError)
    monkeypatch.setitem(sys.modules, "gssapi", module)


@pytest.mark.usefixtures("fake_gssapi")
@pytest.mark.parametrize("setting", sorted(WRONG))
def test_each_wrong_setting_has_its_own_error(kafka_secure: KafkaCluster, setting: str) -> None:
    options, kind, text = WRONG[setting]
    given = options(kafka_secure)
    began = time.monotonic()
    with pytest.raises(errors.KafkaError, match=text) as caught:
        KafkaProducer(**given)
    assert type(caught.value) is kind
    assert time.monotonic() - began < 10
    assert caught.value.broker == given["bootstrap_servers"]
    assert "wrong" not in str(caught.value)


# --- ACLs


@pytest.fixture
def acls(kafka_secure: KafkaCluster) -> Iterator[Acls]:
    acls = Acls(kafka_secure, "User:alice")
    yield acls
    acls.end()


def test_a_topic_that_may_not_be_written(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer, acls: Acls
) -> None:
    unseen, seen = secure_topic(), secure_topic()
    acls.allow(ResourceType.TOPIC, seen, AclOperation.DESCRIBE)
    producer = make_producer(
        kafka_secure, **sasl_options(kafka_secure, user="alice"), enable_idempotence=False
    )
    with pytest.raises(errors.TopicAuthorizationFailedError) as caught:
        producer.send(unseen, b"x")
    assert "kafka-acls --bootstrap-server HOST:PORT --add --allow-principal User:NAME" in str(caught.value)
    assert f"--topic {unseen}" in str(caught.value)
    with pytest.raises(errors.TopicAuthorizationFailedError, match=f"--operation Write .*--topic {seen}"):
        producer.send(seen, b"x").get(30)
    acls.allow(ResourceType.TOPIC, seen, AclOperation.WRITE)
    # Every broker learns of it in its own time.
    wait_until(lambda: is_written(producer, seen), "the ACL to be known")


def test_a_topic_that_may_not_be_created(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer, acls: Acls
) -> None:
    missing = secure_topic.name()
    acls.allow(ResourceType.TOPIC, missing, AclOperation.WRITE)
    producer = make_producer(
        kafka_secure, **sasl_options(kafka_secure, user="alice"), enable_idempotence=False
    )
    with pytest.raises(errors.TopicAuthorizationFailedError, match="Create --topic"):
        producer.send(missing, b"x")


def test_idempotence_that_is_not_allowed(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer, acls: Acls
) -> None:
    name = secure_topic()
    acls.allow(ResourceType.TOPIC, name, AclOperation.DESCRIBE)
    producer = make_producer(kafka_secure, **sasl_options(kafka_secure, user="alice"))
    with pytest.raises(errors.ClusterAuthorizationFailedError, match="--operation IdempotentWrite --cluster"):
        producer.send(name, b"x").get(30)
    with pytest.raises(errors.ClusterAuthorizationFailedError):
        producer.send(name, b"x")


def test_a_transactional_id_that_is_not_allowed(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer, acls: Acls
) -> None:
    name = secure_topic()
    options = sasl_options(kafka_secure, mechanism="SCRAM-SHA-512", user="alice")
    producer = make_producer(kafka_secure, **options, transactional_id="not-allowed")
    with pytest.raises(
        errors.TransactionalIdAuthorizationFailedError,
        match="--operation Write --operation Describe --transactional-id not-allowed",
    ):
        producer.init_transactions()
    acls.allow(ResourceType.TRANSACTIONAL_ID, "not-allowed", AclOperation.WRITE, AclOperation.DESCRIBE)
    acls.allow(ResourceType.TOPIC, name, AclOperation.WRITE)

    def initialised() -> bool:
        try:
            producer.init_transactions()
        except errors.TransactionalIdAuthorizationFailedError:
            return False
        return True

    wait_until(initialised, "the ACL to be known")
    with producer.transaction():
        producer.send(name, b"x")


def test_a_group_that_may_not_be_read(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer, acls: Acls
) -> None:
    name = secure_topic()
    acls.allow(ResourceType.TRANSACTIONAL_ID, "allowed", AclOperation.WRITE, AclOperation.DESCRIBE)
    acls.allow(ResourceType.TOPIC, name, AclOperation.WRITE, AclOperation.READ)
    producer = make_producer(
        kafka_secure,
        **sasl_options(kafka_secure, mechanism="OAUTHBEARER", user="alice"),
        transactional_id="allowed",
    )
    wait_until(lambda: _initialised(producer), "the ACL to be known")
    producer.begin_transaction()
    with pytest.raises(errors.GroupAuthorizationFailedError, match="--operation Read --group not-mine"):
        producer.send_offsets_to_transaction({(name, 0): 1}, "not-mine")
    producer.abort_transaction()


def _initialised(producer: KafkaProducer) -> bool:
    try:
        producer.init_transactions()
    except errors.TransactionalIdAuthorizationFailedError:
        return False
    return True


# --- sessions that end, and credentials that change


@pytest.mark.parametrize("listener", SASL_LISTENERS)
def test_sessions_are_renewed_under_load_without_a_loss(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer, listener: str
) -> None:
    """connections.max.reauth.ms=5000 for SCRAM-SHA-256: two renewals take about ten seconds."""
    name = secure_topic(partitions=3)
    producer = make_producer(
        kafka_secure, **sasl_options(kafka_secure, listener, "SCRAM-SHA-256"), linger_ms=1
    )
    sent = 0
    failed: list[object] = []

    def note(error: errors.KafkaError | None, _: object) -> None:
        if error is not None:
            failed.append(error)

    deadline = time.monotonic() + 60
    while _figure(producer, "successful-reauthentication-total") < 2:
        assert time.monotonic() < deadline
        for _ in range(50):
            producer.send(name, str(sent).encode(), on_delivery=note)
            sent += 1
        producer.flush()
    assert failed == []
    assert _figure(producer, "failed-reauthentication-total") == 0
    # 50 ms is what is promised where the machine has the time; here it only must not be a reconnection.
    assert _figure(producer, "reauthentication-latency-max") < 1000
    assert {int(value or b"") for value in values_in(kafka_secure, name, listener, "PLAIN")} == set(
        range(sent)
    )


def _figure(producer: KafkaProducer, name: str) -> float:
    figures = producer.metrics()
    assert figures is not None
    return float(figures["producer-metrics"][name])


@pytest.mark.parametrize("way", ["callable", "set_sasl_credentials"])
def test_a_password_that_changes_under_load(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer, way: str
) -> None:
    """The next renewal of the session, within five seconds, takes the new one."""
    name = secure_topic()
    admin = AdminClient({"bootstrap.servers": kafka_secure.bootstrap_servers, "log_level": 2})
    acls = Acls(kafka_secure, "User:carol")
    acls.allow(ResourceType.TOPIC, name, AclOperation.WRITE)
    _set_password(admin, "carol", "the first")
    current = "the first"
    options = sasl_options(kafka_secure, "SASL_SSL", "SCRAM-SHA-256") | {
        "sasl_plain_username": "carol",
        "sasl_plain_password": (lambda: current) if way == "callable" else current,
    }
    producer = make_producer(kafka_secure, **options, enable_idempotence=False)
    wait_until(lambda: is_written(producer, name), "the ACL to be known")
    current = "the second"
    _set_password(admin, "carol", current)
    if way != "callable":
        producer.set_sasl_credentials("carol", current)
    renewals = _figure(producer, "successful-reauthentication-total")

    def renewed() -> bool:
        producer.send(name, b"x").get(30)
        return _figure(producer, "successful-reauthentication-total") > renewals

    wait_until(renewed, "a renewal with the new password")
    acls.end()
    assert _figure(producer, "failed-reauthentication-total") == 0
    with pytest.raises(errors.SaslAuthenticationFailedError):
        KafkaProducer(**{**options, "sasl_plain_password": "the first"})


def _set_password(admin: AdminClient, user: str, password: str) -> None:
    upsertion = UserScramCredentialUpsertion(
        user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 8192), password.encode()
    )
    for future in admin.alter_user_scram_credentials([upsertion]).values():
        future.result()
    wait_until(lambda: _known(admin, user), "the user to be known")


def test_a_password_that_sasl_prep_would_change(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """Kafka stores passwords as they are given: a client must use them so, see kprod.security.scram."""
    name = secure_topic()
    admin = AdminClient({"bootstrap.servers": kafka_secure.bootstrap_servers, "log_level": 2})
    password = "p²\u00ad ﬁ"  # with a superscript, a soft hyphen and a ligature
    _set_password(admin, "bob", password)
    producer = make_producer(
        kafka_secure,
        bootstrap_servers=kafka_secure.servers("SASL_PLAINTEXT"),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_plain_username="bob",
        sasl_plain_password=password,
        enable_idempotence=False,
    )
    # Authenticated, as somebody without permissions.
    with pytest.raises(errors.TopicAuthorizationFailedError):
        producer.send(name, b"x")


def _known(admin: AdminClient, user: str) -> bool:
    try:
        admin.describe_user_scram_credentials([user])[user].result()
    except KafkaException as error:
        if error.args[0].code() == ConfluentError.RESOURCE_NOT_FOUND:
            return False
        raise
    return True
