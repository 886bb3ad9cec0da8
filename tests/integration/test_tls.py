"""TLS against real Kafka: records, transactions, client certificates, and an error for all that is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from kprod import KafkaProducer, errors
from kprod.engine import tls_setup
from tests.certificates import PASSWORD, CertificateAuthority
from tests.conftest import TopicFactory
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.readers import read_confluent

from .conftest import MakeProducer
from .secure import is_written, tls_options

LISTENERS = ("SSL", "MTLS")


def reader_settings(cluster: KafkaCluster) -> dict[str, str]:
    return {"security.protocol": "ssl", "ssl.ca.location": str(cluster.certificates.file)}


def values_in(cluster: KafkaCluster, topic: str, isolation: str = "read_uncommitted") -> list[bytes | None]:
    """What confluent-kafka reads, over TLS."""
    found = read_confluent(
        cluster.servers("SSL"), topic, isolation=isolation, settings=reader_settings(cluster)
    )
    return [record.value for record in found]


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("pump", [False, True], ids=["network loop", "pump"])
def test_records_are_written_in_order_and_once(
    kafka_secure: KafkaCluster,
    secure_topic: TopicFactory,
    make_producer: MakeProducer,
    monkeypatch: pytest.MonkeyPatch,
    listener: str,
    pump: bool,
) -> None:
    monkeypatch.setattr(tls_setup, "PUMP_ONLY", pump)
    name = secure_topic()
    producer = make_producer(kafka_secure, **tls_options(kafka_secure, listener), compression_type="lz4")
    values = [b"%d" % number * (number % 50) for number in range(20_000)] + [b"x" * 700_000] * 2
    futures = [producer.send(name, value) for value in values]
    producer.flush(60)
    assert [future.get(0).offset for future in futures] == list(range(len(values)))
    assert values_in(kafka_secure, name) == values


@pytest.mark.parametrize("listener", LISTENERS)
def test_transactions(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer, listener: str
) -> None:
    name = secure_topic()
    producer = make_producer(
        kafka_secure, **tls_options(kafka_secure, listener), transactional_id=f"tls-{name}"
    )
    producer.init_transactions()
    for number in range(4):
        producer.begin_transaction()
        producer.send(name, b"%d" % number)
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    assert values_in(kafka_secure, name, "read_committed") == [b"0", b"2"]


@pytest.mark.parametrize("store", ["PEM text", "PEM", "PKCS12"])
def test_stores_by_the_names_of_java(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, tmp_path: Path, store: str
) -> None:
    """KIP-651, and key stores as Java's; the broker asks for the client's certificate."""
    name = secure_topic()
    client, authority = kafka_secure.client_certificate, kafka_secure.certificates
    settings = {
        "bootstrap.servers": kafka_secure.servers("MTLS"),
        "security.protocol": "SSL",
        "ssl.truststore.type": store.removesuffix(" text"),
        "ssl.keystore.type": store.removesuffix(" text"),
    }
    if store == "PKCS12":
        keys, trust = tmp_path / "keys.p12", tmp_path / "trust.p12"
        chain = x509.load_pem_x509_certificates(client.certificate.read_bytes())
        key: Any = serialization.load_pem_private_key(client.key.read_bytes(), None)
        encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
        keys.write_bytes(pkcs12.serialize_key_and_certificates(b"c", key, chain[0], chain[1:], encryption))
        trust.write_bytes(pkcs12.serialize_key_and_certificates(None, None, None, [chain[-1]], encryption))
        settings |= {"ssl.truststore.location": str(trust), "ssl.truststore.password": PASSWORD}
        settings |= {"ssl.keystore.location": str(keys), "ssl.keystore.password": PASSWORD}
    elif store == "PEM":
        settings |= {"ssl.truststore.location": str(authority.file)}
        settings |= {"ssl.keystore.location": str(client.store)}
    else:
        settings |= {"ssl.truststore.certificates": authority.pem.decode(), "ssl.key.password": PASSWORD}
        settings |= {"ssl.keystore.certificate.chain": client.certificate.read_text()}
        settings |= {"ssl.keystore.key": client.encrypted_key.read_text()}
    with KafkaProducer(settings) as producer:
        producer.send(name, b"x").get(30)
    assert values_in(kafka_secure, name) == [b"x"]


def test_a_restarted_broker_is_found_again(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = secure_topic()
    producer = make_producer(kafka_secure, **tls_options(kafka_secure, "SSL"))
    producer.send(name, b"0").get(30)
    kafka_secure.kill()
    futures = [producer.send(name, b"%d" % number) for number in range(1, 100)]
    kafka_secure.start()
    for future in futures:
        future.get(60)
    assert values_in(kafka_secure, name) == [b"%d" % number for number in range(100)]


def _stranger(cluster: KafkaCluster, folder: Path) -> dict[str, Any]:
    stranger = CertificateAuthority(folder, "unknown authority").issue("stranger")
    return {
        **tls_options(cluster, "SSL"),
        "bootstrap_servers": cluster.servers("MTLS"),
        "ssl_certfile": str(stranger.certificate),
        "ssl_keyfile": str(stranger.key),
    }


def _wrong_client(cluster: KafkaCluster, what: str) -> dict[str, Any]:
    certificate = cluster.wrong_client_certificates[what]
    return {
        **tls_options(cluster, "MTLS"),
        "ssl_certfile": str(certificate.certificate),
        "ssl_keyfile": str(certificate.encrypted_key),
    }


WRONG: dict[str, tuple[type[errors.KafkaError], str, Callable[[KafkaCluster, Path], dict[str, Any]]]] = {
    "an authority that is not trusted": (
        errors.CertificateNotTrustedError,
        "ssl_cafile",
        lambda cluster, folder: {
            **tls_options(cluster, "SSL"),
            "ssl_cafile": str(CertificateAuthority(folder, "other").file),
        },
    ),
    "no trust configured": (
        errors.CertificateNotTrustedError,
        "ssl_cafile",
        lambda cluster, folder: {
            "bootstrap_servers": cluster.servers("SSL"),
            "security_protocol": "SSL",
        },
    ),
    "another host name": (
        errors.HostNameMismatchError,
        "127.0.0.1",
        lambda cluster, folder: {
            **tls_options(cluster, "SSL"),
            "bootstrap_servers": cluster.servers("SSL", "127.0.0.1"),
        },
    ),
    "another host name in the certificate": (
        errors.HostNameMismatchError,
        "advertised.listeners",
        lambda cluster, folder: tls_options(cluster, "ELSEWHERE"),
    ),
    "an expired certificate": (
        errors.CertificateExpiredError,
        "Renew it",
        lambda cluster, folder: tls_options(cluster, "EXPIRED"),
    ),
    "a revoked certificate": (
        errors.CertificateRevokedError,
        "the broker needs a new one",
        lambda cluster, folder: {
            **tls_options(cluster, "REVOKED"),
            "ssl_crlfile": str(cluster.revocations),
        },
    ),
    "a list of revoked certificates of another authority": (
        errors.CertificateRevokedError,
        "no list of the authority",
        lambda cluster, folder: {
            **tls_options(cluster, "SSL"),
            "ssl_crlfile": str(CertificateAuthority(folder, "other").revoke()),
        },
    ),
    "no client certificate": (
        errors.ClientCertificateRequiredError,
        "ssl_certfile",
        lambda cluster, folder: {
            **tls_options(cluster, "SSL"),
            "bootstrap_servers": cluster.servers("MTLS"),
        },
    ),
    "no client certificate, TLS 1.2": (
        errors.ClientCertificateRequiredError,
        "ssl_certfile",
        lambda cluster, folder: {
            **tls_options(cluster, "SSL"),
            "bootstrap_servers": cluster.servers("MTLS"),
            "ssl_enabled_protocols": "TLSv1.2",
        },
    ),
    "a client certificate of a stranger": (errors.ClientCertificateRefusedError, "trust store", _stranger),
    "an expired client certificate": (
        errors.ClientCertificateRefusedError,
        "valid at this time",
        lambda cluster, folder: _wrong_client(cluster, "expired"),
    ),
    "a revoked client certificate": (
        errors.ClientCertificateRefusedError,
        r"alert certificate (revoked|unknown)\).* not revoked",
        lambda cluster, folder: _wrong_client(cluster, "revoked"),
    ),
    "a revoked client certificate, TLS 1.2": (
        errors.ClientCertificateRefusedError,
        r"alert certificate (revoked|unknown)\).* not revoked",
        lambda cluster, folder: {
            **_wrong_client(cluster, "revoked"),
            "ssl_enabled_protocols": "TLSv1.2",
        },
    ),
    "TLS on the plaintext port": (
        errors.PlaintextListenerError,
        "'PLAINTEXT'",
        lambda cluster, folder: {
            **tls_options(cluster, "SSL"),
            "bootstrap_servers": cluster.bootstrap_servers,
        },
    ),
    "plaintext on the TLS port": (
        errors.TlsListenerError,
        "'SSL'",
        lambda cluster, folder: {"bootstrap_servers": cluster.servers("SSL")},
    ),
    "no cipher suite in common": (
        errors.TlsNegotiationError,
        "ssl_ciphers",
        # The broker's key is an elliptic curve's: suites that need an RSA key fit none of its.
        lambda cluster, folder: {
            **tls_options(cluster, "SSL"),
            "ssl_enabled_protocols": "TLSv1.2",
            "ssl_ciphers": "ECDHE-RSA-AES256-GCM-SHA384",
        },
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_wrong_setting_has_an_error_of_its_own(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, tmp_path: Path, case: str
) -> None:
    kind, text, options_of = WRONG[case]
    options = options_of(kafka_secure, tmp_path)
    name = secure_topic()
    began = time.monotonic()
    with pytest.raises(kind, match=text) as caught:
        KafkaProducer(**options)
    assert time.monotonic() - began < 10
    assert type(caught.value) is kind
    assert str(options["bootstrap_servers"]) in str(caught.value)
    producer = KafkaProducer(**options, bootstrap_timeout_ms=0)
    try:
        with pytest.raises(kind, match=text):
            producer.send(name, b"v")
        with pytest.raises(kind, match=text):
            producer.partitions_for(name)
    finally:
        producer.close(0)


def test_what_is_not_revoked_passes_the_check(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """The twin of the revoked ones: with the same list on both sides, records are written."""
    name = secure_topic()
    options = tls_options(kafka_secure, "MTLS")
    producer = make_producer(kafka_secure, **options, ssl_crlfile=str(kafka_secure.revocations))
    assert producer.send(name, b"v").get(30).offset == 0
    assert values_in(kafka_secure, name) == [b"v"]


def test_a_renewed_client_certificate_is_who_the_client_is(
    kafka_secure: KafkaCluster, secure_topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """Files that change are read for the next connection: the broker then sees somebody who may write."""
    name = secure_topic()
    stranger = kafka_secure.certificates.issue("somebody", hosts=("client",), revocable=True)
    producer = make_producer(
        kafka_secure, **tls_options(kafka_secure, "MTLS", stranger), enable_idempotence=False
    )
    with pytest.raises(errors.TopicAuthorizationFailedError):
        producer.send(name, b"x")
    known = kafka_secure.client_certificate
    stranger.encrypted_key.write_bytes(known.encrypted_key.read_bytes())
    stranger.certificate.write_bytes(known.certificate.read_bytes())
    kafka_secure.restart()
    wait_until(lambda: is_written(producer, name), "the new certificate's turn")
    assert values_in(kafka_secure, name) == [b"x"]


def test_what_the_system_trusts(
    kafka_secure: KafkaCluster,
    secure_topic: TopicFactory,
    make_producer: MakeProducer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without ssl_cafile it is OpenSSL's default file that counts; SSL_CERT_FILE says which that is."""
    name = secure_topic()
    options = tls_options(kafka_secure, "SSL")
    del options["ssl_cafile"]
    with pytest.raises(errors.CertificateNotTrustedError):
        KafkaProducer(**options)
    monkeypatch.setenv("SSL_CERT_FILE", str(kafka_secure.certificates.file))
    make_producer(kafka_secure, **options).send(name, b"x").get(30)
