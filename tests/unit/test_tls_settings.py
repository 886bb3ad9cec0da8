"""Contexts made of options: what is in them, and what is refused when the producer is made."""

from __future__ import annotations

import contextlib
import os
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from kprod import KafkaProducer
from kprod.config import ProducerConfig
from kprod.errors import KafkaConfigurationError
from kprod.security.tls import TlsSettings, openssl_cipher_name
from tests.certificates import PASSWORD, Certificate, CertificateAuthority

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def client(authority: CertificateAuthority) -> Certificate:
    return authority.issue("client")


def settings(**options: Any) -> TlsSettings:
    return TlsSettings(ProducerConfig.from_options({"security.protocol": "SSL", **options}))


def refused(**options: Any) -> str:
    """The text of the error; the producer's constructor must give it, without trying to connect."""
    with pytest.raises(KafkaConfigurationError) as caught:
        KafkaProducer({"security.protocol": "SSL", "bootstrap.servers": "localhost:1", **options})
    return str(caught.value)


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, Any] | None:
    """Let the two agree, in memory; returns the client's certificate as the server sees it."""
    ends = []
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends.append(client.wrap_bio(to_client, to_server, server_hostname="localhost"))
    ends.append(server.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(10):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[1].getpeercert()


@pytest.fixture(scope="module")
def server(authority: CertificateAuthority) -> Iterator[ssl.SSLContext]:
    certificate = authority.issue("broker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    yield context


def write_pkcs12(folder: Path, authority: CertificateAuthority, client: Certificate) -> tuple[Path, Path]:
    """A key store and a trust store."""
    chain = x509.load_pem_x509_certificates(client.certificate.read_bytes())
    key: Any = serialization.load_pem_private_key(client.key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
    keys, trust = folder / "keys.p12", folder / "trust.p12"
    keys.write_bytes(pkcs12.serialize_key_and_certificates(b"client", key, chain[0], chain[1:], encryption))
    trusted = x509.load_pem_x509_certificate(authority.pem)
    trust.write_bytes(pkcs12.serialize_key_and_certificates(None, None, None, [trusted], encryption))
    return keys, trust


def test_the_defaults_are_safe() -> None:
    context = settings().context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is TLS12
    assert context.maximum_version is TLS13
    default = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    default.load_default_certs()
    assert context.cert_store_stats() == default.cert_store_stats()


def test_every_way_of_naming_a_certificate(
    authority: CertificateAuthority, client: Certificate, server: ssl.SSLContext, tmp_path: Path
) -> None:
    trust = {"ssl_cafile": str(authority.file)}
    keys_p12, trust_p12 = write_pkcs12(tmp_path, authority, client)
    both = tmp_path / "both.pem"
    both.write_bytes(client.key.read_bytes() + client.certificate.read_bytes())
    encrypted_store = tmp_path / "encrypted.pem"
    encrypted_store.write_bytes(client.encrypted_key.read_bytes() + client.certificate.read_bytes())
    pem = {
        "ssl.keystore.key": client.key.read_text(),
        "ssl.keystore.certificate.chain": client.certificate.read_text(),
    }
    ways: list[dict[str, Any]] = [
        {**trust, "ssl_certfile": str(client.certificate), "ssl_keyfile": str(client.key)},
        {
            **trust,
            "ssl_certfile": str(client.certificate),
            "ssl_keyfile": str(client.encrypted_key),
            "ssl_password": PASSWORD,
        },
        {**trust, "ssl_certfile": str(both)},
        {
            "ssl.truststore.type": "PEM",
            "ssl.truststore.certificates": authority.pem.decode(),
            "ssl.keystore.type": "PEM",
            **pem,
        },
        {
            **trust,
            **pem,
            "ssl.keystore.key": client.encrypted_key.read_text(),
            "ssl.key.password": PASSWORD,
        },
        {
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.file),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(client.store),
        },
        {**trust, "ssl.keystore.location": str(encrypted_store), "ssl.key.password": PASSWORD},
        {
            "ssl.truststore.type": "PKCS12",
            "ssl.truststore.location": str(trust_p12),
            "ssl.truststore.password": PASSWORD,
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.location": str(keys_p12),
            "ssl.keystore.password": PASSWORD,
        },
        # Java's default type, JKS, stands for PKCS12 too.
        {
            "ssl.truststore.location": str(trust_p12),
            "ssl.truststore.password": PASSWORD,
            "ssl.keystore.location": str(keys_p12),
            "ssl.keystore.password": PASSWORD,
        },
    ]
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    for options in ways:
        made = settings(**options)
        assert made.has_certificate
        shown = shake_hands(made.context(), server)
        assert shown is not None and (("commonName", "client"),) in shown["subject"], options
    if before:
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_context_is_taken_as_it_is() -> None:
    context = ssl.create_default_context()
    assert settings(ssl_context=context).context() is context


def test_files_are_read_again_when_they_change(
    authority: CertificateAuthority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(authority.pem)
    made = settings(ssl_cafile=str(trusted))
    first = made.context()
    assert made.context() is first
    trusted.write_text("half of a fil")
    assert made.context() is first
    assert "not used yet" in caplog.text
    trusted.unlink()
    assert made.context() is first
    other = CertificateAuthority(tmp_path, "other")
    trusted.write_bytes(other.pem + authority.pem)
    second = made.context()
    assert second is not first
    assert second.cert_store_stats()["x509_ca"] == 2
    assert made.context() is second


# --- Versions and cipher suites -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "lowest", "highest"),
    [
        ({"ssl.enabled.protocols": "TLSv1.3"}, TLS13, TLS13),
        ({"ssl.enabled.protocols": "TLSv1.3,TLSv1.2"}, TLS12, TLS13),
        ({"ssl.enabled.protocols": "TLSv1.2"}, TLS12, TLS12),
        ({"ssl.protocol": "TLSv1.2"}, TLS12, TLS12),
        ({"ssl.protocol": "TLS"}, TLS12, TLS13),
        ({"ssl.cipher.suites": "TLS_AES_128_GCM_SHA256"}, TLS13, TLS13),
        ({"ssl.cipher.suites": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, TLS12, TLS12),
    ],
)
def test_versions(options: dict[str, Any], lowest: ssl.TLSVersion, highest: ssl.TLSVersion) -> None:
    context = settings(**options).context()
    assert (context.minimum_version, context.maximum_version) == (lowest, highest)


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"),
        ("TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", "DHE-RSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", "ECDHE-ECDSA-AES128-SHA256"),
        ("TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("TLS_RSA_WITH_AES_256_CBC_SHA", "AES256-SHA"),
    ],
)
def test_standard_names_of_cipher_suites(suite: str, name: str) -> None:
    assert openssl_cipher_name(suite) == name
    context = settings(ssl_cipher_suites=[suite]).context()
    assert name in {cipher["name"] for cipher in context.get_ciphers()}


def test_old_versions_are_not_offered_and_that_is_said() -> None:
    with pytest.warns(UserWarning, match="TLSv1.1, TLSv1 in ssl_enabled_protocols will not be offered"):
        context = settings(**{"ssl.enabled.protocols": "TLSv1.2,TLSv1.1,TLSv1"}).context()
    assert context.minimum_version is TLS12


# --- What is refused ----------------------------------------------------------------------------------------


def test_wrong_files(authority: CertificateAuthority, client: Certificate, tmp_path: Path) -> None:
    ca = str(authority.file)
    other = authority.issue("other client")
    missing = str(tmp_path / "missing.pem")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("this is not a certificate")
    jks = tmp_path / "store.jks"
    jks.write_bytes(b"\xfe\xed\xfe\xed" + bytes(20))
    keys, _ = write_pkcs12(tmp_path, authority, client)
    assert f"ssl_cafile='{missing}' cannot be read: No such file" in refused(ssl_cafile=missing)
    assert f"ssl_cafile='{garbage}' cannot be used" in refused(ssl_cafile=str(garbage))
    assert "ssl_cafile" in refused(ssl_cafile=str(client.key))
    assert f"ssl_certfile='{missing}' cannot be read" in refused(ssl_certfile=missing)
    assert f"ssl_keyfile='{missing}' cannot be read" in refused(ssl_certfile=ca, ssl_keyfile=missing)
    assert "ssl_keyfile's" in refused(ssl_certfile=str(client.certificate))
    assert f"ssl_crlfile='{garbage}' cannot be used" in refused(ssl_crlfile=str(garbage))
    text = refused(ssl_certfile=str(client.certificate), ssl_keyfile=str(other.key))
    assert "the private key does not belong to the certificate" in text
    files = {"ssl_certfile": str(client.certificate), "ssl_keyfile": str(client.encrypted_key)}
    assert "the private key is encrypted. Set ssl_password" in refused(**files)
    text = refused(**files, ssl_password="hunter2")
    assert "ssl_password (Java: ssl.key.password) is wrong" in text and "hunter2" not in text
    text = refused(**{"ssl.truststore.location": str(jks)})
    assert f"keytool -importkeystore -srckeystore {jks} -destkeystore truststore.p12" in text
    text = refused(**{"ssl.keystore.location": str(keys), "ssl.keystore.password": "hunter2"})
    assert "ssl_keystore_password is wrong" in text and "hunter2" not in text
    assert "ssl_keystore_password is not set" in refused(**{"ssl.keystore.location": str(keys)})
    assert "is PKCS12, and ssl_keystore_type is 'PEM'" in refused(
        **{"ssl.keystore.location": str(keys), "ssl.keystore.type": "PEM"}
    )
    assert "neither PEM nor PKCS12" in refused(**{"ssl.truststore.location": str(garbage)})


def test_pkcs12_without_the_package_that_reads_it(
    authority: CertificateAuthority, client: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, _ = write_pkcs12(tmp_path, authority, client)
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.serialization", None)
    assert "pip install 'kprod[pkcs12]'" in refused(**{"ssl.keystore.location": str(keys)})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"ssl_context": ssl.create_default_context(), "ssl_cafile": "a"},
            "ssl_context contradicts ssl_cafile",
        ),
        (
            {"ssl_cafile": "a", "ssl_truststore_location": "b"},
            "ssl_cafile contradicts ssl_truststore_location",
        ),
        (
            {"ssl_truststore_certificates": "a", "ssl_truststore_location": "b"},
            "ssl_truststore_certificates contradicts ssl_truststore_location",
        ),
        (
            {"ssl_certfile": "a", "ssl_keystore_location": "b"},
            "ssl_certfile contradicts ssl_keystore_location",
        ),
        ({"ssl_keyfile": "a"}, "ssl_keyfile is set and ssl_certfile is not"),
        ({"ssl_keystore_key": "a"}, "ssl_keystore_key is set and ssl_keystore_certificate_chain is not"),
        ({"ssl_keystore_password": "a"}, "ssl_keystore_password is set and ssl_keystore_location is not"),
        (
            {"ssl_keystore_password": "a", "ssl_keystore_location": "b", "ssl_keystore_type": "PEM"},
            "ssl_keystore_password contradicts ssl_keystore_type='PEM'",
        ),
        (
            {"ssl_truststore_certificates": "a", "ssl_truststore_type": "JKS"},
            "ssl_truststore_certificates contradicts ssl_truststore_type='JKS'",
        ),
        ({"ssl_ciphers": "a", "ssl_cipher_suites": "b"}, "ssl_ciphers contradicts ssl_cipher_suites"),
        (
            {"ssl_check_hostname": True, "ssl_endpoint_identification_algorithm": ""},
            "ssl_check_hostname=True contradicts ssl_endpoint_identification_algorithm=''",
        ),
        ({"ssl_enabled_protocols": "TLSv1.1"}, "it takes TLSv1.2, TLSv1.3. Older versions are broken"),
        ({"ssl_enabled_protocols": "TLSv9"}, "it takes TLSv1.2, TLSv1.3"),
        (
            {"ssl_enabled_protocols": "TLSv1.3", "ssl_protocol": "TLSv1.2"},
            "ssl_protocol='TLSv1.2' contradicts",
        ),
        ({"ssl_ciphers": "NO-SUCH-CIPHER"}, "ssl_ciphers='NO-SUCH-CIPHER' is not accepted"),
        ({"ssl_cipher_suites": "TLS_NONE_WITH_NONE"}, "which OpenSSL"),
        (
            {"ssl_cipher_suites": "TLS_AES_128_GCM_SHA256", "ssl_enabled_protocols": "TLSv1.2"},
            "contradict each other",
        ),
    ],
)
def test_contradictions(options: dict[str, Any], text: str) -> None:
    assert text in refused(**options)


@pytest.mark.parametrize(
    "way", [{"ssl_check_hostname": False}, {"ssl.endpoint.identification.algorithm": ""}]
)
def test_the_check_of_host_names_can_be_switched_off(way: dict[str, Any]) -> None:
    context = settings(**way).context()
    assert not context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_what_is_used_gives_no_warning(authority: CertificateAuthority) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings(ssl_cafile=str(authority.file), ssl_check_hostname=True)
