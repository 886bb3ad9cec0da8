"""From what OpenSSL says to exceptions that say what is wrong and what to change."""

from __future__ import annotations

import ssl
from typing import Final

from kprod import errors
from kprod.errors import TlsError

# Results of the verification of a certificate, X509_V_ERR_* of openssl/x509_vfy.h.
_UNABLE_TO_GET_CRL: Final = 3
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_SELF_SIGNED: Final = (18, 19)
_REVOKED: Final = 23
_HOST_NAME_MISMATCH: Final = 62
_ADDRESS_MISMATCH: Final = 64

# Alerts as OpenSSL names them: version 1.1 and 3 write "sslv3 alert x" or "tlsv1 alert x", newer ones
# "ssl/tls alert x". RFC 8446, section 6.2.
_REQUIRED_ALERTS: Final = ("alert certificate required", "alert handshake failure", "alert bad certificate")
_REFUSED_ALERTS: Final = (
    "alert bad certificate",
    "alert unsupported certificate",
    "alert certificate revoked",
    "alert certificate expired",
    "alert certificate unknown",
    "alert unknown ca",
    "alert access denied",
    "alert decrypt error",
)
_VERSION_REASONS: Final = ("protocol version", "unsupported protocol", "wrong ssl version")
# The first bytes of the answer are no TLS record.
_NOT_TLS_REASONS: Final = ("wrong version number", "packet length too long", "http request")
_CIPHER_REASONS: Final = (
    "alert handshake failure",
    "no shared cipher",
    "no ciphers available",
    "alert insufficient",
)


def from_verification(code: int, words: str, broker: str, host: str) -> TlsError:
    """The broker's certificate was not accepted.

    Args:
        code: OpenSSL's result of the verification.
        words: the same in OpenSSL's words.
        broker: the broker in words.
        host: the host name that the certificate should be for.
    """
    if code in (_HOST_NAME_MISMATCH, _ADDRESS_MISMATCH):
        return errors.HostNameMismatchError(
            f"the broker's certificate is not for the host {host!r} ({words.rstrip('.')}). Use one of the "
            "names in it in bootstrap_servers and in the broker's advertised.listeners, or give the broker a "
            "certificate for this one; ssl_check_hostname=False switches the check off, and with it the "
            "protection against somebody in between",
            broker=broker,
        )
    if code in (_EXPIRED, _NOT_YET_VALID):
        return errors.CertificateExpiredError(
            f"the broker's certificate is not valid at this time ({words}). Renew it; if it is valid, the "
            "clock of this machine is wrong",
            broker=broker,
        )
    if code in (_REVOKED, _UNABLE_TO_GET_CRL):
        return errors.CertificateRevokedError(
            f"the broker's certificate fails the check against ssl_crlfile ({words}). "
            + (
                "It was revoked: the broker needs a new one"
                if code == _REVOKED
                else "The file has no list of the authority that signed it: add that"
            ),
            broker=broker,
        )
    return errors.CertificateNotTrustedError(
        f"the broker's certificate is not signed by an authority that this client trusts ({words}). Name the "
        "PEM file with the authority's certificate in ssl_cafile (Java: ssl.truststore.location)"
        + (
            "; the broker's is signed by itself, so it is its own authority"
            if code == _SELF_SIGNED[0]
            else ""
        ),
        broker=broker,
    )


def from_reason(reason: str, broker: str, has_certificate: bool, agreed: bool = True) -> TlsError:
    """TLS failed otherwise: an alert of the broker, or no agreement.

    Args:
        reason: OpenSSL's words for it.
        broker: the broker in words.
        has_certificate: whether this client has a certificate to show.
        agreed: whether a cipher suite was agreed upon before; certificates come after that.
    """
    said = reason.lower().replace("_", " ")
    if agreed and not has_certificate and any(alert in said for alert in _REQUIRED_ALERTS):
        return errors.ClientCertificateRequiredError(
            f"the broker ended the connection ({said}), most likely because it asks for a client certificate "
            "(ssl.client.auth=required) and none is configured. Set ssl_certfile and ssl_keyfile (Java: "
            "ssl.keystore.location)",
            broker=broker,
        )
    if has_certificate and any(alert in said for alert in _REFUSED_ALERTS):
        return errors.ClientCertificateRefusedError(
            f"the broker does not accept the client certificate ({said}). It must be valid at this time, not "
            "revoked, and signed by an authority in the broker's trust store; ssl_certfile must hold the "
            "intermediate certificates too",
            broker=broker,
        )
    if any(words in said for words in _VERSION_REASONS):
        return errors.TlsNegotiationError(
            f"client and broker have no TLS version in common ({said}). This client offers what "
            "ssl_enabled_protocols says, TLS 1.2 or newer: see the broker's ssl.enabled.protocols",
            broker=broker,
        )
    if any(words in said for words in _CIPHER_REASONS):
        return errors.TlsNegotiationError(
            f"client and broker have no cipher suite in common ({said}). See ssl_ciphers here and "
            "ssl.cipher.suites of the broker",
            broker=broker,
        )
    return errors.TlsError(
        f"TLS failed ({said}). See the broker's log for its side of it, and the options that begin with ssl_",
        broker=broker,
    )


def from_exception(
    error: ssl.SSLError, broker: str, host: str, has_certificate: bool, agreed: bool, protocol: str
) -> TlsError:
    """What an exception of a handshake by Python's ``ssl`` means.

    Args:
        error: the exception.
        broker: the broker in words.
        host: the host name that the certificate should be for.
        has_certificate: whether this client has a certificate to show.
        agreed: whether a cipher suite was agreed upon before.
        protocol: the option ``security_protocol``.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return from_verification(error.verify_code, error.verify_message, broker, host)
    reason = error.reason or str(error)
    if any(words in reason.lower().replace("_", " ") for words in _NOT_TLS_REASONS):
        return plaintext_listener(broker, protocol)
    return from_reason(reason, broker, has_certificate, agreed)


def plaintext_listener(broker: str, protocol: str) -> TlsError:
    """A listener that answers in plaintext was met with TLS."""
    plain = "SASL_PLAINTEXT" if protocol.startswith("SASL") else "PLAINTEXT"
    return errors.PlaintextListenerError(
        f"the listener speaks Kafka without TLS, and security_protocol is {protocol!r}. Connect to the port "
        f"of the broker's TLS listener; security_protocol={plain!r} would use this one without encryption",
        broker=broker,
    )


def tls_listener(broker: str, protocol: str) -> TlsError:
    """A listener that answers with TLS was met in plaintext."""
    encrypted = "SASL_SSL" if protocol.startswith("SASL") else "SSL"
    return errors.TlsListenerError(
        f"the listener speaks TLS, and security_protocol is {protocol!r}. Set it to {encrypted!r}, or "
        "connect to the port of a listener without TLS",
        broker=broker,
    )
