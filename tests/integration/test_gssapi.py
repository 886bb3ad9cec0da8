"""GSSAPI with a real KDC (MIT's, on the loopback interface) and real Kafka.

Skipped where the KDC or the package ``gssapi`` is missing; with ``KPROD_REQUIRE_KERBEROS=1`` that is an
error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from kprod import KafkaProducer, errors
from tests.conftest import start_cluster
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.kerberos import OTHER_REALM, REALM, KerberosRealm, what_is_missing
from tests.kafka.readers import read_confluent

from .conftest import MakeProducer
from .secure import commit_one_and_abort_one

pytestmark = pytest.mark.kafka

CLIENT: Final = "client"
REAUTHENTICATION_MS: Final = 2000


class Kerberized(NamedTuple):
    """A cluster, and the realm that its broker and its clients are in."""

    cluster: KafkaCluster
    realm: KerberosRealm
    client: Path
    """Key tab of :data:`CLIENT`, who may do everything."""
    elsewhere: Path
    """Key tab of somebody in the realm that is not trusted."""


@pytest.fixture(scope="module")
def kerberized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kerberized]:
    missing = what_is_missing()
    if missing is not None:
        if os.environ.get("KPROD_REQUIRE_KERBEROS") == "1":
            pytest.fail(f"KPROD_REQUIRE_KERBEROS=1, but {missing}", pytrace=False)
        pytest.skip(f"GSSAPI: {missing}")
    realm = KerberosRealm(tmp_path_factory.mktemp("kerberos"))
    broker = realm.keytab("kafka/localhost")
    realm.keytab("zookeeper/localhost")
    login = (
        "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true "
        f'keyTab="{broker}" principal="kafka/localhost@{REALM}";'
    )
    properties: dict[str, object] = {
        "sasl.enabled.mechanisms": "PLAIN,GSSAPI",
        "sasl.kerberos.service.name": "kafka",
        "super.users": f"User:ANONYMOUS;User:{CLIENT}",
        "listener.name.sasl_plaintext.gssapi.connections.max.reauth.ms": REAUTHENTICATION_MS,
        **{
            f"listener.name.{listener}.gssapi.sasl.jaas.config": login
            for listener in ("sasl_plaintext", "sasl_ssl")
        },
    }
    jvm_options = (f"-Djava.security.krb5.conf={realm.config}",)
    try:
        for cluster in start_cluster("kerberized", 1, secure=True, jvm_options=jvm_options, **properties):
            yield Kerberized(cluster, realm, realm.keytab(CLIENT), realm.keytab(CLIENT, OTHER_REALM))
    finally:
        realm.stop()


@pytest.fixture(autouse=True)
def _environment(kerberized: Kerberized, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without a ticket, that never looks at this machine's own Kerberos."""
    folder = kerberized.realm.folder
    monkeypatch.setenv("KRB5_CONFIG", str(kerberized.realm.config))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{folder / 'none.cache'}")
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", f"FILE:{folder / 'none.keytab'}")


@pytest.fixture
def with_ticket(kerberized: Kerberized, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{kerberized.realm.ticket(kerberized.client)}")


def options_for(cluster: KafkaCluster, listener: str = "SASL_PLAINTEXT") -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": cluster.servers(listener),
        "security_protocol": listener,
        "sasl_mechanism": "GSSAPI",
    }
    if listener == "SASL_SSL":
        options["ssl_cafile"] = str(cluster.certificates.file)
    return options


def values_in(cluster: KafkaCluster, topic: str) -> list[bytes | None]:
    found = read_confluent(cluster.bootstrap_servers, topic, isolation="read_committed")
    return [record.value for record in found]


# --- what works


@pytest.mark.usefixtures("with_ticket")
@pytest.mark.parametrize("listener", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_records_idempotence_and_transactions(
    kerberized: Kerberized, make_producer: MakeProducer, listener: str
) -> None:
    cluster = kerberized.cluster
    name = cluster.create_topic(f"kerberos-{listener}")
    options = options_for(cluster, listener)
    producer = make_producer(cluster, **options)
    futures = [producer.send(name, str(n).encode()) for n in range(100)]
    assert [future.get(30).offset for future in futures] == list(range(100))
    transactional = make_producer(cluster, **options, transactional_id=f"tx-{name}")
    commit_one_and_abort_one(transactional, name)
    assert values_in(cluster, name) == [str(n).encode() for n in range(100)] + [b"committed"]
    batches = cluster.log_batches(name)
    assert all(batch.producer_id >= 0 and batch.base_sequence >= 0 for batch in batches if batch.records > 1)


def test_a_key_tab_needs_no_kinit(
    kerberized: Kerberized, make_producer: MakeProducer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", f"FILE:{kerberized.client}")
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path / 'fetched.cache'}")
    name = kerberized.cluster.create_topic("kerberos-key-tab")
    make_producer(kerberized.cluster, **options_for(kerberized.cluster)).send(name, b"x").get(30)
    assert values_in(kerberized.cluster, name) == [b"x"]
    assert (tmp_path / "fetched.cache").exists()


@pytest.mark.usefixtures("with_ticket")
@pytest.mark.parametrize(
    "names",
    [
        {"sasl_kerberos_name": f"kafka/localhost@{REALM}"},
        {"sasl_kerberos_service_name": "kafka", "sasl_kerberos_domain_name": "localhost"},
        {
            "sasl.jaas.config": "com.sun.security.auth.module.Krb5LoginModule required "
            'useTicketCache=true serviceName="kafka";'
        },
    ],
    ids=lambda names: next(iter(names)),
)
def test_ways_of_naming_the_broker(kerberized: Kerberized, names: dict[str, Any]) -> None:
    """By the address 127.0.0.1, which is in no principal, where the options say who it is."""
    host = "localhost" if "sasl.jaas.config" in names else "127.0.0.1"
    options = {
        **options_for(kerberized.cluster),
        "bootstrap_servers": kerberized.cluster.servers("SASL_PLAINTEXT", host),
    }
    with KafkaProducer({**options, **names}) as producer:
        assert producer.bootstrap_connected()


@pytest.mark.usefixtures("with_ticket")
def test_sessions_are_renewed_while_records_flow(kerberized: Kerberized, make_producer: MakeProducer) -> None:
    name = kerberized.cluster.create_topic("kerberos-sessions")
    producer = make_producer(kerberized.cluster, **options_for(kerberized.cluster), linger_ms=1)
    sent = 0

    def renewed() -> bool:
        nonlocal sent
        producer.send(name, str(sent).encode()).get(30)
        sent += 1
        figures = producer.metrics()
        assert figures is not None
        assert figures["producer-metrics"]["failed-reauthentication-total"] == 0
        return bool(figures["producer-metrics"]["successful-reauthentication-total"])

    wait_until(renewed, "a second authentication")
    assert values_in(kerberized.cluster, name) == [str(n).encode() for n in range(sent)]


# --- what is wrong has its own error


class Wrong(NamedTuple):
    """What is set up wrongly; everything else is right, with a valid ticket."""

    environment: Callable[[Kerberized], dict[str, str]]
    options: dict[str, Any]
    kind: type[errors.KafkaError]
    text: str


def _as_it_is(kerberized: Kerberized) -> dict[str, str]:
    return {}


def _expired_ticket(kerberized: Kerberized) -> dict[str, str]:
    cache = kerberized.realm.ticket(kerberized.client, lifetime="1s")
    wait_until(lambda: time.time() > cache.stat().st_mtime + 2, "the ticket to expire")
    return {"KRB5CCNAME": f"FILE:{cache}"}


def _silent_kdc(kerberized: Kerberized) -> dict[str, str]:
    # The discard port: nobody listens there.
    return {"KRB5_CONFIG": str(kerberized.realm.write_config("silent.conf", port=9))}


WRONG: dict[str, Wrong] = {
    "no ticket": Wrong(
        lambda k: {"KRB5CCNAME": f"FILE:{k.realm.folder / 'none.cache'}"},
        {},
        errors.SaslAuthenticationFailedError,
        "there is no Kerberos ticket .*: get one with kinit, .* or a key tab that KRB5_CLIENT_KTNAME names",
    ),
    "expired ticket": Wrong(
        _expired_ticket,
        {},
        errors.SaslAuthenticationFailedError,
        r"the Kerberos ticket has expired \(Ticket expired\): get a new one with kinit",
    ),
    "ticket of another realm": Wrong(
        lambda k: {"KRB5CCNAME": f"FILE:{k.realm.ticket(k.elsewhere)}"},
        {},
        errors.SaslAuthenticationFailedError,
        f"ticket is of the realm {OTHER_REALM}, and that one has no key for {REALM}, .*kinit NAME@REALM",
    ),
    "broker in another realm": Wrong(
        _as_it_is,
        {"sasl_kerberos_name": f"kafka/localhost@{OTHER_REALM}"},
        errors.SaslAuthenticationFailedError,
        f"ticket is of the realm {REALM}, and that one has no key for {OTHER_REALM}",
    ),
    "unknown service": Wrong(
        _as_it_is,
        {"sasl_kerberos_service_name": "kafkaesque"},
        errors.SaslAuthenticationFailedError,
        "knows no broker kafkaesque@localhost .*: set sasl_kerberos_service_name to the first part",
    ),
    "another service's name": Wrong(
        _as_it_is,
        {"sasl_kerberos_service_name": "zookeeper"},
        errors.SaslAuthenticationFailedError,
        "the broker refused the GSSAPI credentials: .*check the ticket .* and sasl_kerberos_service_name",
    ),
    "another host's name": Wrong(
        _as_it_is,
        {"sasl_kerberos_domain_name": "localhost.localdomain"},
        errors.SaslAuthenticationFailedError,
        r"where the broker kafka@localhost\.localdomain is looked for .*; sasl_kerberos_domain_name is for",
    ),
    "KDC that does not answer": Wrong(
        _silent_kdc,
        {},
        errors.TokenUnavailableError,
        f"no Kerberos server answers .*{REALM}.*: see the kdc of the realm in krb5.conf",
    ),
    "key tab with an old key": Wrong(
        lambda k: {
            "KRB5CCNAME": f"FILE:{k.realm.folder / 'none.cache'}",
            "KRB5_CLIENT_KTNAME": f"FILE:{k.realm.outdated_keytab('renewed')}",
        },
        {},
        errors.SaslAuthenticationFailedError,
        "the key in the key tab is not the one that the Kerberos server has .*Get a new key tab",
    ),
}


@pytest.mark.usefixtures("with_ticket")
@pytest.mark.parametrize("setting", sorted(WRONG))
def test_each_wrong_setting_has_its_own_error(
    kerberized: Kerberized, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = WRONG[setting]
    for name, value in wrong.environment(kerberized).items():
        monkeypatch.setenv(name, value)
    options = {**options_for(kerberized.cluster), **wrong.options}
    began = time.monotonic()
    with pytest.raises(errors.KafkaError, match=wrong.text) as caught:
        KafkaProducer(**options)
    assert type(caught.value) is wrong.kind
    assert time.monotonic() - began < 20
    assert caught.value.broker == options["bootstrap_servers"]


def test_a_ticket_that_comes_later_heals_the_producer(
    kerberized: Kerberized, make_producer: MakeProducer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "later.cache"
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{cache}")
    name = kerberized.cluster.create_topic("kerberos-later")
    producer = make_producer(kerberized.cluster, **options_for(kerberized.cluster), bootstrap_timeout_ms=0)
    with pytest.raises(errors.SaslAuthenticationFailedError, match="there is no Kerberos ticket"):
        producer.send(name, b"too early")
    kerberized.realm.ticket(kerberized.client).rename(cache)

    def sent() -> bool:
        try:
            producer.send(name, b"x").get(30)
        except errors.SaslAuthenticationFailedError:
            return False
        return True

    wait_until(sent, "the ticket to be used")
    assert values_in(kerberized.cluster, name) == [b"x"]
