"""Files with secrets in them: keys and stores of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.certificates import Certificate, CertificateAuthority
from tests.secrets.disclosure import distinct

PASSWORD: Final = distinct("password")
"""Of all files."""


class Files(NamedTuple):
    """Certificates and stores, all with :data:`PASSWORD`, and the text of the private key."""

    authority: CertificateAuthority
    client: Certificate
    encrypted: Path
    keys: Path
    trust: Path
    damaged: Path
    key: str
    encrypted_text: str

    @property
    def secrets(self) -> dict[str, str]:
        return {"password": PASSWORD, "key": self.key, "encrypted key": self.encrypted_text}


def make_files(folder: Path) -> Files:
    """Make an authority, a certificate of a client, and stores with that, in a folder."""
    authority = CertificateAuthority(folder)
    client = authority.issue("client")
    key: Any = serialization.load_pem_private_key(client.key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
    encrypted = folder / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    chain = x509.load_pem_x509_certificates(client.certificate.read_bytes())
    keys, trust, damaged = folder / "keys.p12", folder / "trust.p12", folder / "damaged.p12"
    keys.write_bytes(pkcs12.serialize_key_and_certificates(b"c", key, chain[0], chain[1:], encryption))
    trust.write_bytes(pkcs12.serialize_key_and_certificates(None, None, None, [chain[1]], encryption))
    damaged.write_bytes(keys.read_bytes()[:200])
    return Files(
        authority, client, encrypted, keys, trust, damaged, client.key.read_text(), encrypted.read_text()
    )
