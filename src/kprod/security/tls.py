"""The SSL context that the options ask for, made again when a file it came from has changed."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import ssl
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Final

from kprod import threads
from kprod.config import ProducerConfig
from kprod.errors import KafkaConfigurationError

logger = logging.getLogger("kprod.security")

_TLS_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_JKS_MAGIC: Final = b"\xfe\xed\xfe\xed"
_PEM_MARK: Final = b"-----BEGIN "
_TLS13_SUITES: Final = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)

_Fingerprint = tuple[tuple[str, int, int, int], ...]


class TlsSettings:
    """TLS as the options of a producer ask for it.

    :meth:`context` may be called from any thread. Files are read again when they have changed, so that
    renewed certificates are used by the next connection.

    Args:
        config: the checked options.

    Raises:
        KafkaConfigurationError: a file cannot be read or holds something else, a password is wrong, a key
            does not belong to its certificate, a cipher suite is not known, or PKCS#12 files are named and
            the package ``cryptography`` is missing.
    """

    def __init__(self, config: ProducerConfig) -> None:
        self._config = config
        self._lock = threads.lock()
        self._files = [
            path
            for path in (
                config.ssl_cafile,
                config.ssl_certfile,
                config.ssl_keyfile,
                config.ssl_crlfile,
                config.ssl_truststore_location,
                config.ssl_keystore_location,
            )
            if path is not None
        ]
        self.has_certificate = config.ssl_context is not None or any(
            (config.ssl_certfile, config.ssl_keystore_location, config.ssl_keystore_certificate_chain)
        )
        """Whether there is a client certificate to show; a context of the user's is taken to have one."""
        self._fingerprint = self._look()
        self._context = config.ssl_context or _make_context(config)

    def context(self) -> ssl.SSLContext:
        """The context for the next connection."""
        if self._config.ssl_context is not None:
            return self._context
        with self._lock:
            now = self._look()
            if now != self._fingerprint:
                try:
                    self._context = _make_context(self._config)
                except KafkaConfigurationError as error:
                    # A file that is being written: it is read again for the next connection.
                    logger.warning(
                        "%s: the changed TLS files are not used yet: %s", self._config.client_id, error
                    )
                else:
                    self._fingerprint = now
                    logger.info("%s: TLS files were read again", self._config.client_id)
            return self._context

    def _look(self) -> _Fingerprint:
        found = []
        for path in self._files:
            with contextlib.suppress(OSError):
                status = os.stat(path)
                found.append((path, status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)


def _make_context(config: ProducerConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Kafka brokers never ask for it, and answering would mix reading and writing.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.check_hostname = config.ssl_check_hostname
    _set_versions(context, config)
    _set_ciphers(context, config)
    _load_trust(context, config)
    _load_identity(context, config)
    return context


def _set_versions(context: ssl.SSLContext, config: ProducerConfig) -> None:
    offered = [_TLS_VERSIONS[name] for name in config.ssl_enabled_protocols]
    context.minimum_version = min(offered)
    context.maximum_version = max(offered)


# --- Cipher suites ------------------------------------------------------------------------------------------


def openssl_cipher_name(suite: str) -> str:
    """OpenSSL's name of a TLS 1.2 cipher suite: ``ECDHE-RSA-AES128-GCM-SHA256`` for
    ``TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256``. Other names are returned as they are.
    """
    found = re.fullmatch(r"TLS_(?P<exchange>[A-Z0-9_]+)_WITH_(?P<cipher>[A-Z0-9_]+)", suite)
    if found is None:
        return suite
    cipher = re.sub(r"(AES|ARIA|CAMELLIA)_(128|256)", r"\1\2", found["cipher"])
    cipher = cipher.replace("_CBC_", "_").replace("CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305")
    exchange = "" if found["exchange"] == "RSA" else found["exchange"] + "_"
    return (exchange + cipher).replace("_", "-")


def _set_ciphers(context: ssl.SSLContext, config: ProducerConfig) -> None:
    if config.ssl_ciphers is not None:
        try:
            context.set_ciphers(config.ssl_ciphers)
        except ssl.SSLError:
            raise KafkaConfigurationError(
                f"ssl_ciphers={config.ssl_ciphers!r} is not accepted: {ssl.OPENSSL_VERSION} knows no such "
                "cipher suite for TLS 1.2. `openssl ciphers -v` lists what it knows"
            ) from None
    if not config.ssl_cipher_suites:
        return
    older = [suite for suite in config.ssl_cipher_suites if suite not in _TLS13_SUITES]
    if older:
        for suite in older:
            try:
                context.set_ciphers(openssl_cipher_name(suite))
            except ssl.SSLError:
                raise KafkaConfigurationError(
                    f"ssl_cipher_suites has {suite!r}, which {ssl.OPENSSL_VERSION} does not know. It takes "
                    "names such as 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256' and 'TLS_AES_128_GCM_SHA256'"
                ) from None
        context.set_ciphers(":".join(map(openssl_cipher_name, older)))
    newest = [suite for suite in config.ssl_cipher_suites if suite in _TLS13_SUITES]
    if not older:
        _restrict(context, config, minimum=ssl.TLSVersion.TLSv1_3)
    if not newest:
        _restrict(context, config, maximum=ssl.TLSVersion.TLSv1_2)
    elif hasattr(context, "set_ciphersuites"):  # from Python 3.15 on
        context.set_ciphersuites(":".join(newest))


def _restrict(
    context: ssl.SSLContext,
    config: ProducerConfig,
    minimum: ssl.TLSVersion | None = None,
    maximum: ssl.TLSVersion | None = None,
) -> None:
    """Suites belong to TLS 1.3, or to TLS 1.2: a version that none was named for is not offered."""
    if minimum is not None:
        context.minimum_version = minimum
    if maximum is not None:
        context.maximum_version = maximum
    if context.minimum_version > context.maximum_version:
        raise KafkaConfigurationError(
            f"ssl_cipher_suites={list(config.ssl_cipher_suites)} and "
            f"ssl_enabled_protocols={list(config.ssl_enabled_protocols)} contradict each other: none of "
            "these suites is for these versions of TLS"
        )


# --- Who is trusted -----------------------------------------------------------------------------------------


def _load_trust(context: ssl.SSLContext, config: ProducerConfig) -> None:
    if config.ssl_cafile is not None:
        _trust(context, _read(config.ssl_cafile, "ssl_cafile"), f"ssl_cafile={config.ssl_cafile!r}")
    elif config.ssl_truststore_certificates is not None:
        _trust(context, config.ssl_truststore_certificates.encode(), "ssl_truststore_certificates")
    elif config.ssl_truststore_location is not None:
        where = f"ssl_truststore_location={config.ssl_truststore_location!r}"
        content = _read(config.ssl_truststore_location, "ssl_truststore_location")
        if _store_format(content, config.ssl_truststore_type, where, "truststore") == "PEM":
            _trust(context, content, where)
        else:
            _, _, certificates = _open_pkcs12(content, config.ssl_truststore_password, where, "truststore")
            _trust(context, b"".join(certificates), where)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if config.ssl_crlfile is not None:
        _read(config.ssl_crlfile, "ssl_crlfile")
        try:
            context.load_verify_locations(config.ssl_crlfile)
        except (ssl.SSLError, OSError) as error:
            raise KafkaConfigurationError(
                f"ssl_crlfile={config.ssl_crlfile!r} cannot be used ({_words(error)}): it takes a PEM file "
                "with lists of revoked certificates ('-----BEGIN X509 CRL-----')"
            ) from None
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _trust(context: ssl.SSLContext, pem: bytes, where: str) -> None:
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise KafkaConfigurationError(
            f"{where} cannot be used ({_words(error)}): it takes certificates as PEM "
            "('-----BEGIN CERTIFICATE-----')"
        ) from None


# --- The client's own certificate ---------------------------------------------------------------------------


def _load_identity(context: ssl.SSLContext, config: ProducerConfig) -> None:
    if config.ssl_certfile is not None:
        _read(config.ssl_certfile, "ssl_certfile")
        if config.ssl_keyfile is not None:
            _read(config.ssl_keyfile, "ssl_keyfile")
        what = f"ssl_certfile={config.ssl_certfile!r}"
        if config.ssl_keyfile is not None:
            what += f", ssl_keyfile={config.ssl_keyfile!r}"
        _load_chain(context, config.ssl_certfile, config.ssl_keyfile, config.ssl_password, what)
    elif config.ssl_keystore_key is not None and config.ssl_keystore_certificate_chain is not None:
        pem = f"{config.ssl_keystore_key}\n{config.ssl_keystore_certificate_chain}\n".encode()
        with _as_file(pem) as path:
            what = "ssl_keystore_key with ssl_keystore_certificate_chain"
            _load_chain(context, path, None, config.ssl_password, what)
    elif config.ssl_keystore_location is not None:
        where = f"ssl_keystore_location={config.ssl_keystore_location!r}"
        content = _read(config.ssl_keystore_location, "ssl_keystore_location")
        if _store_format(content, config.ssl_keystore_type, where, "keystore") == "PEM":
            _load_chain(context, config.ssl_keystore_location, None, config.ssl_password, where)
        else:
            key, password, certificates = _open_pkcs12(
                content, config.ssl_keystore_password, where, "keystore"
            )
            if key is None or not certificates:
                raise KafkaConfigurationError(f"{where} holds no private key with its certificate")
            with _as_file(key + b"".join(certificates)) as path:
                _load_chain(context, path, None, password, where)


def _load_chain(
    context: ssl.SSLContext, certificate: str, key: str | None, password: str | None, what: str
) -> None:
    asked = False

    def give_password() -> str:
        # Without a function OpenSSL would ask on the terminal.
        nonlocal asked
        asked = True
        if password is None:
            raise KafkaConfigurationError(f"{what}: the private key is encrypted. Set ssl_password")
        return password

    try:
        context.load_cert_chain(certificate, key, password=give_password)
    except ssl.SSLError as error:
        said = _words(error)
        if "KEY_VALUES_MISMATCH" in str(error) or "KEY_TYPE_MISMATCH" in str(error):
            advice = "the private key does not belong to the certificate"
        elif asked:
            advice = "most likely ssl_password (Java: ssl.key.password) is wrong"
        else:
            advice = (
                "it takes a certificate ('-----BEGIN CERTIFICATE-----') and its private key "
                "('-----BEGIN PRIVATE KEY-----') as PEM; a key in a file of its own is ssl_keyfile's"
            )
        raise KafkaConfigurationError(f"{what} cannot be used ({said}): {advice}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, KafkaConfigurationError):
            raise
        raise KafkaConfigurationError(f"{what} cannot be used ({_words(error)})") from None


@contextlib.contextmanager
def _as_file(pem: bytes) -> Iterator[str]:
    """A file for OpenSSL, which reads keys from files only: in memory where possible, or gone at once."""
    make: Callable[..., int] | None = getattr(os, "memfd_create", None)
    if make is not None and os.path.isdir("/proc/self/fd"):
        descriptor = make("kprod-key")
        try:
            os.write(descriptor, pem)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    descriptor, path = tempfile.mkstemp(prefix="kprod-")  # readable by this user only
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        yield path
    finally:
        os.unlink(path)


# --- Stores -------------------------------------------------------------------------------------------------


def _store_format(content: bytes, declared: str, where: str, store: str) -> str:
    """PEM or PKCS12, by what is in the file: Java's default type is JKS, and takes PKCS12 too."""
    if content.startswith(_JKS_MAGIC):
        name = where.partition("=")[2].strip("'\"")
        raise KafkaConfigurationError(
            f"{where} is a Java key store (JKS), which only Java reads. Convert it: keytool -importkeystore "
            f"-srckeystore {name} -destkeystore {store}.p12 -deststoretype PKCS12, then set "
            f"ssl_{store}_location to that file and ssl_{store}_type='PKCS12'"
        )
    found = "PEM" if _PEM_MARK in content else "PKCS12" if content.startswith(b"\x30") else None
    if found is None or (declared != found and declared != "JKS"):
        raise KafkaConfigurationError(
            f"{where} is {found or 'neither PEM nor PKCS12'}, and ssl_{store}_type is {declared!r}"
        )
    return found


def _open_pkcs12(
    content: bytes, password: str | None, where: str, store: str
) -> tuple[bytes | None, str, list[bytes]]:
    """What a PKCS#12 file holds, as PEM: the key, encrypted anew; the password for that; the certificates."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.serialization import pkcs12
    except ImportError:
        raise KafkaConfigurationError(
            f"{where} is a PKCS12 file, and the package that reads them is not installed: pip install "
            "'kprod[pkcs12]'. Or convert it to PEM: openssl pkcs12 -in FILE -out FILE.pem"
        ) from None
    try:
        loaded: Any = pkcs12.load_pkcs12(content, password.encode() if password is not None else None)
    except ValueError:
        raise KafkaConfigurationError(
            f"{where} cannot be opened: ssl_{store}_password is "
            + ("not set" if password is None else "wrong")
            + ", or the file is damaged"
        ) from None
    certificates = [loaded.cert, *loaded.additional_certs]
    chain = [c.certificate.public_bytes(serialization.Encoding.PEM) for c in certificates if c is not None]
    again = secrets.token_urlsafe(24)
    key = None
    if loaded.key is not None:
        key = loaded.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(again.encode()),
        )
    if not chain:
        raise KafkaConfigurationError(f"{where} holds no certificates")
    return key, again, chain


def _read(path: str, option: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise KafkaConfigurationError(
            f"{option}={path!r} cannot be read: {error.strerror or error}"
        ) from None


def _words(error: Exception) -> str:
    """OpenSSL's words without the place in its source."""
    return re.sub(r"\s*\(_ssl\.c:\d+\)", "", str(error)).strip("'\"")
