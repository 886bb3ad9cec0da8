"""Certificates made for one test run: an authority, brokers, clients, and broken ones."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PASSWORD = "key-password"


class Certificate(NamedTuple):
    """Files of one certificate, all PEM."""

    certificate: Path
    """The certificate, followed by the authority's."""
    key: Path
    """The private key (PKCS#8), not encrypted."""
    encrypted_key: Path
    """The same, encrypted with :data:`PASSWORD`."""
    store: Path
    """Key and chain in one file: a PEM key store of Kafka (KIP-651)."""


class CertificateAuthority:
    """Signs certificates with a key of its own.

    Args:
        folder: where the files go.
        name: common name of the authority, and part of its file's name.
    """

    def __init__(self, folder: Path, name: str = "kprod test authority") -> None:
        self.folder = folder
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_days(-2))
            .not_valid_after(_days(30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_KEY_CERT_SIGN, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(self.pem)
        self.revocations = self.file.with_suffix(".crl")
        """Where :meth:`revoke` puts the list of revoked certificates."""

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        name: str,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1"),
        days: tuple[float, float] = (-1, 30),
        revocable: bool = False,
    ) -> Certificate:
        """Make a key and a certificate for it.

        Args:
            name: common name, and part of the files' names.
            hosts: the names and addresses that it is for.
            days: from when until when it is valid, in days from now.
            revocable: it says that :attr:`revocations` tells whether it is revoked.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_days(days[0]))
            .not_valid_after(_days(days[1]))
            .add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if revocable:
            uri = x509.UniformResourceIdentifier(self.revocations.as_uri())
            place = x509.DistributionPoint([uri], relative_name=None, reasons=None, crl_issuer=None)
            builder = builder.add_extension(x509.CRLDistributionPoints([place]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        chain = certificate.public_bytes(serialization.Encoding.PEM) + self.pem
        plain = _key_pem(key, serialization.NoEncryption())
        base = self.folder / name.replace(" ", "-")
        files = Certificate(
            base.with_suffix(".crt"),
            base.with_suffix(".key"),
            base.with_suffix(".encrypted.key"),
            base.with_suffix(".store.pem"),
        )
        files.certificate.write_bytes(chain)
        files.key.write_bytes(plain)
        files.encrypted_key.write_bytes(
            _key_pem(key, serialization.BestAvailableEncryption(PASSWORD.encode()))
        )
        files.store.write_bytes(plain + chain)
        return files

    def revoke(self, *certificates: Certificate) -> Path:
        """Write the list of revoked certificates (CRL, PEM) with these in it; returns :attr:`revocations`."""
        crl = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(_days(-1))
            .next_update(_days(30))
        )
        for certificate in certificates:
            revoked = x509.load_pem_x509_certificate(certificate.certificate.read_bytes())
            crl = crl.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(revoked.serial_number)
                .revocation_date(_days(-1))
                .build()
            )
        signed = crl.sign(self._key, hashes.SHA256())
        self.revocations.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return self.revocations


_KEY_CERT_SIGN = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _key_pem(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _days(days: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
