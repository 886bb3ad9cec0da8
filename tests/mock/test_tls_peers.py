"""Who is on the other end of a TLS connection, as each side sees it: names, certificates, cipher suites."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from kprod import KafkaProducer, errors
from kprod.testing import MockCluster
from tests.certificates import PASSWORD, Certificate, CertificateAuthority

from .conftest import Eventually, MakeCluster, MakeProducer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def make_cluster() -> Iterator[MakeCluster]:
    """Other than that of conftest it lets handshakes be cut off, as a producer that is closed may do."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> MockCluster:
            return stack.enter_context(MockCluster(**options))

        yield make


class Broker:
    """A broker's side of TLS, which remembers the connections that were made to it."""

    def __init__(self, authority: CertificateAuthority, *hosts: str, clients: bool = False) -> None:
        certificate = authority.issue("broker", hosts=hosts or ("localhost", "127.0.0.1"))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate.certificate, certificate.key)
        if clients:
            self.context.load_verify_locations(authority.file)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.names: list[str | None] = []
        """What clients said whom they want to speak with (SNI)."""
        self.connections: list[ssl.SSLObject | ssl.SSLSocket] = []

        def note(
            connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
        ) -> None:
            self.names.append(name)
            self.connections.append(connection)

        self.context.sni_callback = note

    def client(self) -> str:
        """The common name in the certificate of the client that connected last; "": there is none yet."""
        for connection in reversed(self.connections):
            try:
                shown: Any = connection.getpeercert()
            except ValueError:  # in the middle of its handshake
                continue
            if shown:
                return str(dict(pair for part in shown["subject"] for pair in part)["commonName"])
        return ""


def trusting(authority: CertificateAuthority, **options: Any) -> dict[str, Any]:
    return {"security_protocol": "SSL", "ssl_cafile": str(authority.file), **options}


# --- names


def test_the_host_name_is_sent_along_and_addresses_are_not(
    authority: CertificateAuthority, make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    """SNI, RFC 6066: names only. The mock cluster tells addresses in its metadata."""
    broker = Broker(authority)
    cluster = make_cluster(ssl_context=broker.context)
    cluster.create_topic("t")
    port = cluster.bootstrap_servers.rpartition(":")[2]
    producer = make_producer(bootstrap_servers=f"localhost:{port}", **trusting(authority))
    producer.send("t", b"v").get(20)
    assert broker.names[0] == "localhost"
    assert set(broker.names[1:]) <= {"localhost", None}
    broker.names.clear()
    make_producer(cluster, **trusting(authority)).send("t", b"v").get(20)
    assert set(broker.names) == {None}


def test_the_name_is_checked_and_not_what_it_resolves_to(
    authority: CertificateAuthority,
) -> None:
    """A certificate for the address is none for the name."""
    with MockCluster(ssl_context=Broker(authority, "127.0.0.1").context) as cluster:
        port = cluster.bootstrap_servers.rpartition(":")[2]
        with pytest.raises(errors.HostNameMismatchError, match="not for the host 'localhost'"):
            KafkaProducer(bootstrap_servers=f"localhost:{port}", **trusting(authority))


def test_ipv6(
    authority: CertificateAuthority, make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    broker = Broker(authority, "::1")
    cluster = make_cluster(host="::1", ssl_context=broker.context)
    cluster.create_topic("t")
    producer = make_producer(cluster, **trusting(authority))
    producer.send("t", b"v").get(20)
    assert cluster.bootstrap_servers.startswith("[::1]:")
    assert set(broker.names) == {None}


def test_ipv6_with_a_certificate_for_another_address(authority: CertificateAuthority) -> None:
    with (
        MockCluster(host="::1", ssl_context=Broker(authority, "127.0.0.1", "::2").context) as cluster,
        pytest.raises(errors.HostNameMismatchError, match="not for the host '::1'"),
    ):
        KafkaProducer(bootstrap_servers=cluster.bootstrap_servers, **trusting(authority))


# --- versions and cipher suites


@pytest.mark.parametrize(
    ("options", "agreed"),
    [
        ({"ssl_enabled_protocols": ["TLSv1.2"]}, "TLSv1.2, ECDHE-ECDSA-"),
        ({"ssl_protocol": "TLSv1.3"}, "TLSv1.3, TLS_"),
        (
            {"ssl_enabled_protocols": ["TLSv1.2"], "ssl_ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256"},
            "TLSv1.2, ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
        (
            {"ssl_cipher_suites": ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]},
            "TLSv1.2, ECDHE-ECDSA-CHACHA20-POLY1305",
        ),
    ],
)
def test_the_version_and_the_cipher_suite_that_were_asked_for(
    authority: CertificateAuthority,
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    agreed: str,
) -> None:
    caplog.set_level(logging.DEBUG, "kprod")
    cluster = make_cluster(ssl_context=Broker(authority).context)
    cluster.create_topic("t")
    make_producer(cluster, **trusting(authority, **options)).send("t", b"v").get(20)
    assert agreed in caplog.text


# --- the client's certificate


def _pem(authority: CertificateAuthority, client: Certificate, folder: Path) -> dict[str, Any]:
    return {"ssl_certfile": str(client.certificate), "ssl_keyfile": str(client.key)}


def _encrypted(authority: CertificateAuthority, client: Certificate, folder: Path) -> dict[str, Any]:
    return {
        "ssl_certfile": str(client.certificate),
        "ssl_keyfile": str(client.encrypted_key),
        "ssl_password": PASSWORD,
    }


def _text(authority: CertificateAuthority, client: Certificate, folder: Path) -> dict[str, Any]:
    return {
        "ssl_keystore_type": "PEM",
        "ssl_keystore_certificate_chain": client.certificate.read_text(),
        "ssl_keystore_key": client.encrypted_key.read_text(),
        "ssl_key_password": PASSWORD,
    }


def _pem_store(authority: CertificateAuthority, client: Certificate, folder: Path) -> dict[str, Any]:
    return {"ssl_keystore_type": "PEM", "ssl_keystore_location": str(client.store)}


def _pkcs12(authority: CertificateAuthority, client: Certificate, folder: Path) -> dict[str, Any]:
    chain = x509.load_pem_x509_certificates(client.certificate.read_bytes())
    key: Any = serialization.load_pem_private_key(client.key.read_bytes(), None)
    store = folder / "keys.p12"
    encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
    store.write_bytes(pkcs12.serialize_key_and_certificates(b"c", key, chain[0], chain[1:], encryption))
    return {"ssl_keystore_location": str(store), "ssl_keystore_password": PASSWORD}


Way = Callable[[CertificateAuthority, Certificate, Path], dict[str, Any]]
WAYS: dict[str, Way] = {
    "PEM": _pem,
    "encrypted PEM": _encrypted,
    "PEM text": _text,
    "PEM store": _pem_store,
    "PKCS12": _pkcs12,
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_the_broker_sees_the_clients_certificate(
    authority: CertificateAuthority,
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
    tmp_path: Path,
    way: str,
) -> None:
    broker = Broker(authority, clients=True)
    cluster = make_cluster(ssl_context=broker.context)
    cluster.create_topic("t")
    options = WAYS[way](authority, authority.issue("orders service"), tmp_path)
    make_producer(cluster, **trusting(authority, **options)).send("t", b"v").get(20)
    assert broker.client() == "orders service"


@pytest.mark.parametrize("way", ["PEM", "PEM store", "PKCS12"])
def test_a_renewed_client_certificate_is_shown_without_a_restart(
    authority: CertificateAuthority,
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
    eventually: Eventually,
    tmp_path: Path,
    way: str,
) -> None:
    broker = Broker(authority, clients=True)
    cluster = make_cluster(ssl_context=broker.context)
    cluster.create_topic("t")
    old = authority.issue("old client")
    options = WAYS[way](authority, old, tmp_path)
    producer = make_producer(cluster, **trusting(authority, **options))
    producer.send("t", b"0").get(20)
    assert broker.client() == "old client"
    folder = tmp_path / "renewed"
    folder.mkdir()
    renewed = WAYS[way](authority, authority.issue("renewed client"), folder)
    for name, path in renewed.items():
        if name != "ssl_keystore_type" and name != "ssl_keystore_password":
            os.replace(path, options[name])
    cluster.disconnect_clients()
    producer.send("t", b"1").get(20)
    eventually(lambda: broker.client() == "renewed client")
    assert cluster.count("t") == 2
