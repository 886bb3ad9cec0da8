"""Authentication against the mock cluster: set-up, refusals, sessions that end, credentials that change."""

from __future__ import annotations

import collections
import logging
import re
import threading
import time
from typing import Any

import pytest

from kprod import KafkaProducer, errors
from kprod.security.oauthbearer import UnsecuredTokens
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeCluster, MakeProducer

USERS = {"alice": "wonderland", "b=o,b": "pässwörd ²"}
ALICE = {"sasl_plain_username": "alice", "sasl_plain_password": "wonderland"}
SASL: dict[str, Any] = {"security_protocol": "SASL_PLAINTEXT"}
PLAIN: dict[str, Any] = {**SASL, "sasl_mechanism": "PLAIN"}
WRONG = {"sasl_plain_username": "alice", "sasl_plain_password": "looking glass"}


@pytest.fixture
def sasl_cluster(make_cluster: MakeCluster) -> MockCluster:
    cluster = make_cluster(sasl_users=USERS)
    cluster.create_topic("t")
    return cluster


def handshakes(cluster: MockCluster) -> int:
    return sum(request.api == "SaslHandshake" for request in cluster.requests)


MECHANISMS: dict[str, dict[str, Any]] = {
    "PLAIN": ALICE,
    "SCRAM-SHA-256": ALICE,
    "SCRAM-SHA-512": ALICE,
    "OAUTHBEARER": {"sasl_oauth_token_provider": UnsecuredTokens("alice")},
}


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
@pytest.mark.parametrize("release", ["2.1", "2.4", "4.1"])
def test_every_mechanism_with_old_and_new_brokers(
    make_cluster: MakeCluster, make_producer: MakeProducer, mechanism: str, release: str
) -> None:
    cluster = make_cluster(brokers=2, sasl_users=USERS, as_version=release)
    cluster.create_topic("t", partitions=4)
    producer = make_producer(cluster, **SASL, sasl_mechanism=mechanism, **MECHANISMS[mechanism])
    futures = [producer.send("t", str(n).encode(), partition=n % 4) for n in range(40)]
    for future in futures:
        future.get(10)
    assert cluster.count("t") == 40
    figures = producer.metrics()
    assert figures is not None
    assert figures["producer-metrics"]["successful-authentication-total"] >= 2
    assert figures["producer-metrics"]["failed-authentication-total"] == 0


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_names_and_passwords_may_have_any_characters(
    sasl_cluster: MockCluster, make_producer: MakeProducer, mechanism: str
) -> None:
    (name, password), given = list(USERS.items())[1], {**SASL, "sasl_mechanism": mechanism}
    producer = make_producer(sasl_cluster, **given, sasl_plain_username=name, sasl_plain_password=password)
    producer.send("t", b"x").get(10)


# --- refusals


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        (
            {**PLAIN, **WRONG},
            errors.SaslAuthenticationFailedError,
            "check sasl_plain_username (it is 'alice')",
        ),
        (
            {**SASL, **WRONG, "sasl_mechanism": "SCRAM-SHA-512"},
            errors.SaslAuthenticationFailedError,
            "invalid credentials with SASL mechanism SCRAM-SHA-512",
        ),
        (
            {
                **SASL,
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth_token_provider": UnsecuredTokens("mallory"),
            },
            errors.SaslAuthenticationFailedError,
            'the broker refused the OAUTHBEARER credentials: {"status":"invalid_token"}',
        ),
        (
            {**SASL, **ALICE, "sasl_mechanism": "SCRAM-SHA-256"},
            errors.UnsupportedSaslMechanismError,
            "SCRAM-SHA-256 here, only PLAIN, SCRAM-SHA-512, OAUTHBEARER: set sasl_mechanism to one of these",
        ),
        ({}, errors.IllegalSaslStateError, "security_protocol='PLAINTEXT' nobody is authenticated"),
    ],
)
def test_wrong_settings_have_their_own_error_at_once(
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
    options: dict[str, Any],
    kind: type[Exception],
    text: str,
) -> None:
    cluster = make_cluster(sasl_users=USERS, sasl_mechanisms=("PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"))
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        make_producer(cluster, **options)
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert f"127.0.0.1:{cluster.ports[0]}" in str(caught.value)
    assert time.monotonic() - began < 10
    # The caller was told after the first refusal: the broker was not asked again and again.
    assert handshakes(cluster) <= 2


def test_sasl_where_the_broker_has_none(cluster: MockCluster, make_producer: MakeProducer) -> None:
    with pytest.raises(errors.IllegalSaslStateError, match="set security_protocol to PLAINTEXT or SSL"):
        make_producer(cluster, **PLAIN, **ALICE)


def test_send_and_transactions_get_the_refusal_where_the_constructor_did_not_wait(
    sasl_cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(sasl_cluster, **PLAIN, **WRONG, bootstrap_timeout_ms=0)
    with pytest.raises(errors.SaslAuthenticationFailedError, match="refused the PLAIN credentials") as caught:
        producer.send("t", b"x")
    assert (caught.value.topic, caught.value.persisted) == ("t", "no")
    transactional = make_producer(
        sasl_cluster, **PLAIN, **WRONG, bootstrap_timeout_ms=0, transactional_id="tx"
    )
    with pytest.raises(errors.SaslAuthenticationFailedError):
        transactional.init_transactions()


def test_a_broker_that_answers_outdoes_one_that_refuses(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    strict = make_cluster(sasl_users={"alice": "other"})
    good = make_cluster(sasl_users=USERS)
    good.create_topic("t")
    servers = f"{strict.bootstrap_servers},{good.bootstrap_servers}"
    producer = make_producer(good, bootstrap_servers=servers, **PLAIN, **ALICE)
    producer.send("t", b"x").get(10)


def test_a_refused_producer_stops_asking_and_can_be_healed(
    sasl_cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(sasl_cluster, **PLAIN, **ALICE)
    producer.send("t", b"before").get(10)
    sasl_cluster.set_password("alice", "changed")
    sasl_cluster.disconnect_clients()
    before = handshakes(sasl_cluster)
    with pytest.raises(errors.SaslAuthenticationFailedError, match="check sasl_plain_username") as caught:
        producer.send("t", b"lost").get(30)
    assert (caught.value.topic, caught.value.partition, caught.value.persisted) == ("t", 0, "no")
    # Every address was asked five times with growing pauses, and is left alone now; the core may have wanted
    # the broker once more before it knew.
    engine = producer._engine_started
    assert engine is not None
    eventually(lambda: all(node.given_up for node in engine._control.nodes.by_id.values()))
    assert 10 <= handshakes(sasl_cluster) - before <= 12
    producer.set_sasl_credentials("alice", lambda: "changed")
    producer.send("t", b"after").get(30)
    assert [record.value for record in sasl_cluster.records("t")] == [b"before", b"after"]


def test_credentials_can_only_be_set_where_there_are_some(
    sasl_cluster: MockCluster, cluster: MockCluster, make_producer: MakeProducer
) -> None:
    with pytest.raises(errors.IllegalStateError, match="does not authenticate with SASL"):
        make_producer(cluster).set_sasl_credentials("a", "b")
    oauth = make_producer(
        sasl_cluster, **SASL, sasl_mechanism="OAUTHBEARER", sasl_oauthbearer_unsecured_subject="alice"
    )
    with pytest.raises(errors.IllegalStateError, match="sasl_mechanism='OAUTHBEARER' has no user name"):
        oauth.set_sasl_credentials("a", "b")
    plain = make_producer(sasl_cluster, **PLAIN, **ALICE)
    with pytest.raises(TypeError, match="password must be a str that is not empty"):
        plain.set_sasl_credentials("alice", "")


# --- where credentials come from


def test_callables_are_asked_for_every_connection(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(brokers=2, sasl_users=USERS)
    cluster.create_topic("t", partitions=2)
    asked: list[str] = []

    def password() -> str:
        asked.append(threading.current_thread().name)
        return "wonderland"

    producer = make_producer(
        cluster, **PLAIN, sasl_plain_username=lambda: "alice", sasl_plain_password=password
    )
    for partition in range(2):
        producer.send("t", b"x", partition=partition).get(10)
    assert len(asked) == handshakes(cluster) >= 2
    # Not on the thread that everything else needs.
    assert {name.rpartition("-")[2] for name in asked} == {"sasl"}


def test_a_provider_that_fails_is_reported_and_asked_again(
    sasl_cluster: MockCluster, make_producer: MakeProducer
) -> None:
    tokens = UnsecuredTokens("alice")
    calls: list[int] = []

    def provider() -> str:
        calls.append(len(calls))
        if len(calls) < 8:
            raise OSError("identity provider is down, secret=hunter2")
        return tokens.token()

    options = {**SASL, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": provider}
    with pytest.raises(errors.TokenUnavailableError, match="raised OSError") as caught:
        make_producer(sasl_cluster, **options)
    assert isinstance(caught.value.__cause__, OSError)
    producer = make_producer(sasl_cluster, **options, bootstrap_timeout_ms=0)
    deadline = time.monotonic() + 20
    while True:
        try:
            producer.send("t", b"x").get(10)
            break
        except errors.TokenUnavailableError as error:
            assert error.retriable
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert len(calls) >= 8


# --- sessions that end (KIP-368)


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
def test_connections_authenticate_again_while_records_flow(
    make_cluster: MakeCluster, make_producer: MakeProducer, mechanism: str
) -> None:
    cluster = make_cluster(sasl_users=USERS, max_reauth_ms=1000)
    cluster.create_topic("t", partitions=3)
    producer = make_producer(cluster, **SASL, sasl_mechanism=mechanism, linger_ms=0, **MECHANISMS[mechanism])
    futures: list[Any] = []
    deadline = time.monotonic() + 60
    # Twice on one connection; a machine that stands still for long may cost it, which loses no record.
    while reauthentications(producer) < 2 or most_handshakes_of_a_connection(cluster) < 3:
        assert time.monotonic() < deadline
        futures += [producer.send("t", str(len(futures)).encode(), partition=n) for n in range(3)]
        time.sleep(0.001)
    for future in futures:
        future.get(10)
    assert cluster.count("t") == len(futures)
    assert_nothing_between_sasl_requests(cluster)


def most_handshakes_of_a_connection(cluster: MockCluster) -> int:
    shaken = collections.Counter(r.client_address for r in cluster.requests if r.api == "SaslHandshake")
    return max(shaken.values(), default=0)


def reauthentications(producer: KafkaProducer) -> int:
    figures = producer.metrics()
    assert figures is not None
    return int(figures["producer-metrics"]["successful-reauthentication-total"])


def assert_nothing_between_sasl_requests(cluster: MockCluster) -> None:
    """What brokers demand: after SaslHandshake only SaslAuthenticate until the exchange is over."""
    by_connection: dict[str, list[str]] = {}
    for request in cluster.requests:
        by_connection.setdefault(request.client_address, []).append(request.api)
    for apis in by_connection.values():
        assert re.fullmatch(
            "(ApiVersions )+((SaslHandshake (SaslAuthenticate )+)((?!SaslAuthenticate)[A-Z]\\w+ )*)+",
            "".join(f"{api} " for api in apis),
        )


def test_control_requests_wait_for_the_second_authentication_too(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(sasl_users=USERS, max_reauth_ms=300)
    cluster.create_topic("t")
    producer = make_producer(cluster, **SASL, **ALICE, sasl_mechanism="SCRAM-SHA-256", transactional_id="x")
    producer.init_transactions()
    sent = 0
    deadline = time.monotonic() + 30
    while reauthentications(producer) < 4:
        assert time.monotonic() < deadline
        with producer.transaction():
            producer.send("t", str(sent).encode())
        sent += 1
    assert [record.value for record in cluster.records("t")] == [str(n).encode() for n in range(sent)]
    assert_nothing_between_sasl_requests(cluster)


def test_a_connection_that_nobody_uses_is_closed_and_not_kept_alive(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster = make_cluster(sasl_users=USERS, max_reauth_ms=300)
    cluster.create_topic("t")
    producer = make_producer(cluster, **PLAIN, **ALICE)
    producer.send("t", b"x").get(10)
    eventually(lambda: cluster.connection_count() == 0)
    producer.send("t", b"y").get(10)
    assert cluster.count("t") == 2


def test_a_session_lasts_until_its_end_where_no_token_is_to_be_had(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster = make_cluster(sasl_users=USERS, max_reauth_ms=1500)
    cluster.create_topic("t")
    available = threading.Event()
    available.set()
    tokens = UnsecuredTokens("alice")

    def provider() -> str:
        if not available.is_set():
            raise OSError("identity provider is down")
        return tokens.token()

    producer = make_producer(
        cluster, **SASL, sasl_mechanism="OAUTHBEARER", sasl_oauth_token_provider=provider, linger_ms=0
    )
    producer.send("t", b"0").get(10)
    available.clear()
    sent = 1

    def failed_once() -> bool:
        nonlocal sent
        producer.send("t", str(sent).encode())
        sent += 1
        figures = producer.metrics()
        assert figures is not None
        return bool(figures["producer-metrics"]["failed-reauthentication-total"])

    eventually(failed_once)
    available.set()
    producer.flush(20)
    producer.send("t", b"last").get(20)
    assert cluster.count("t") == sent + 1


def test_a_password_that_was_changed_is_used_at_the_next_authentication(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster = make_cluster(sasl_users=USERS, max_reauth_ms=400)
    cluster.create_topic("t")
    producer = make_producer(cluster, **SASL, **ALICE, sasl_mechanism="SCRAM-SHA-256")
    producer.send("t", b"x").get(10)
    cluster.set_password("alice", "changed")
    producer.set_sasl_credentials("alice", "changed")

    def authenticated_again() -> bool:
        producer.send("t", b"y").get(10)
        return reauthentications(producer) >= 2

    eventually(authenticated_again)
    figures = producer.metrics()
    assert figures is not None
    assert figures["producer-metrics"]["failed-reauthentication-total"] == 0


# --- secrets

PLANTED = "hunter2-planted"


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
@pytest.mark.parametrize("wrong", [False, True])
def test_secrets_are_in_no_output(
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
    mechanism: str,
    wrong: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    cluster = make_cluster(sasl_users={"alice": PLANTED}, max_reauth_ms=300)
    cluster.create_topic("t")
    token = UnsecuredTokens("alice", claims={"secret": PLANTED}).token() + ("x=" if wrong else "")
    options: dict[str, Any] = {**ALICE, "sasl_plain_password": f"{PLANTED}{'-not' if wrong else ''}"}
    if mechanism == "OAUTHBEARER":
        options = {"sasl_oauth_token_provider": lambda: token}
        if wrong:
            cluster.set_password("alice", None)
    seen: list[str] = []

    def look_at(thing: object) -> None:
        seen.extend((str(thing), repr(thing)))

    try:
        producer = make_producer(cluster, **SASL, sasl_mechanism=mechanism, **options)
    except errors.KafkaError as error:
        assert wrong
        look_at(error)
        look_at(error.__cause__)
    else:
        assert not wrong
        deadline = time.monotonic() + 20
        while not reauthentications(producer):
            assert time.monotonic() < deadline
            look_at(producer.send("t", b"x").get(10))
        cluster.set_password("alice", "other")
        cluster.disconnect_clients()
        look_at(producer)
        look_at(producer.config)
        look_at(producer.metrics())
        look_at(producer.metrics(raw=True))
        look_at(vars(producer))
    output = capfd.readouterr()
    everything = "\n".join([*seen, caplog.text, output.out, output.err])
    hidden = [PLANTED]
    if mechanism == "OAUTHBEARER":
        hidden.append(token[:40])
    assert "alice" in everything or mechanism == "OAUTHBEARER"
    assert len(caplog.records) > 1
    assert [secret for secret in hidden if secret in everything] == []


# --- the cluster itself


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sasl_users": {}, "sasl_mechanisms": ["MD5"]}, "not 'MD5'"),
        ({"sasl_mechanisms": ["PLAIN"]}, "need sasl_users"),
        ({"max_reauth_ms": 5}, "need sasl_users"),
    ],
)
def test_bad_arguments_of_the_cluster(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        MockCluster(**options)


def test_a_cluster_in_a_process_authenticates_too(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(process=True, sasl_users=USERS)
    cluster.create_topic("t")
    make_producer(cluster, **SASL, **ALICE, sasl_mechanism="SCRAM-SHA-256").send("t", b"x").get(10)
    with pytest.raises(ValueError, match="without sasl_users"):
        make_cluster().set_password("a", "b")
