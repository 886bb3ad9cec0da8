"""GSSAPI: Kerberos 5 (RFC 4752), through the package ``gssapi``, which uses the system's library.

Tickets are the system's: ``kinit``, or a key tab named by ``KRB5_CLIENT_KTNAME``.
"""

from __future__ import annotations

import importlib
import re
from typing import Any, Final

from kprod.errors import SaslAuthenticationFailedError, TokenUnavailableError
from kprod.security.mechanism import Mechanism

_NO_SECURITY_LAYER: Final = 1

# Where the codes of Kerberos begin, MIT's and Heimdal's (krb5_err.et). Those up to 127 are of RFC 4120,
# section 7.5.9, as KDCs and brokers send them; the others are the library's own.
_KRB5_BASE: Final = -1765328384
_CLIENT_UNKNOWN: Final = 6  # KDC_ERR_C_PRINCIPAL_UNKNOWN
_SERVER_UNKNOWN: Final = 7  # KDC_ERR_S_PRINCIPAL_UNKNOWN
_WRONG_KEY: Final = (24, 31)  # KDC_ERR_PREAUTH_FAILED, KRB_AP_ERR_BAD_INTEGRITY
_EXPIRED: Final = 32  # KRB_AP_ERR_TKT_EXPIRED
_CLOCK_SKEW: Final = 37  # KRB_AP_ERR_SKEW
_NO_KDC_KNOWN: Final = (154, 220)  # KRB5_REALM_UNKNOWN, KRB5_REALM_CANT_RESOLVE
_NO_KDC_ANSWERS: Final = 156  # KRB5_KDC_UNREACH

# Routine errors of GSS-API (RFC 2744, section 3.9.1): the upper half of the major status.
_NO_CREDENTIALS: Final = 7
_CREDENTIALS_EXPIRED: Final = 11

_KEY_TAB: Final = "a key tab that KRB5_CLIENT_KTNAME names"


def load() -> Any:
    """The package ``gssapi``.

    Raises:
        ImportError: it, or the system's Kerberos library, is missing; says what to install.
    """
    try:
        return importlib.import_module("gssapi")
    except (ImportError, OSError) as error:
        raise ImportError(
            f"sasl_mechanism='GSSAPI' needs the package gssapi ({error}): pip install 'kprod[gssapi]'; it "
            "takes the Kerberos library of the system (Debian: libkrb5-dev to build it)"
        ) from error


class Gssapi(Mechanism):
    """SASL GSSAPI with Kerberos 5, for authentication only: TLS is what encrypts.

    Args:
        service: Kerberos service of the brokers.
        host: host name of this broker, as in its principal.
        principal: the broker's name instead of both: text, or a ``gssapi.Name``.
    """

    name = "GSSAPI"

    def __init__(self, service: str, host: str, principal: Any = None) -> None:
        self._target = (service, host, principal)
        self._context: Any = None

    def initial(self) -> bytes:
        """The first token of the security context; asks the KDC for a ticket."""
        gssapi = load()
        service, host, principal = self._target
        try:
            if principal is None:
                name = gssapi.Name(f"{service}@{host}", gssapi.NameType.hostbased_service)
            elif isinstance(principal, str):
                name = gssapi.Name(principal, gssapi.NameType.kerberos_principal)
            else:
                name = principal
            self._context = gssapi.SecurityContext(
                name=name.canonicalize(gssapi.MechType.kerberos), usage="initiate"
            )
            return bytes(self._context.step() or b"")
        except gssapi.exceptions.GSSError as error:
            raise _no_ticket(error, f"{service}@{host}" if principal is None else str(principal)) from error

    def is_slow(self, challenge: bytes) -> bool:
        """The library may ask the KDC."""
        return True

    def answer(self, challenge: bytes) -> bytes | None:
        """The context's next token; then the choice of no security layer; then nothing."""
        if self.complete:
            return None
        try:
            if not self._context.complete:
                return bytes(self._context.step(challenge) or b"")
            offer = bytes(self._context.unwrap(challenge).message)
            if len(offer) < 4 or not offer[0] & _NO_SECURITY_LAYER:
                raise SaslAuthenticationFailedError(
                    "the broker offers no GSSAPI exchange without a security layer"
                )
            self.complete = True
            # One byte for the layer, three for the largest message: none without a layer (RFC 4752 3.1).
            return bytes(self._context.wrap(bytes((_NO_SECURITY_LAYER, 0, 0, 0)), False).message)
        except load().exceptions.GSSError as error:
            raise SaslAuthenticationFailedError(
                f"Kerberos does not accept the broker's answer: {_words(error)}"
            ) from error


def _no_ticket(error: Any, broker: str) -> SaslAuthenticationFailedError:
    """Why there is no ticket for the broker, and what to do.

    Args:
        error: a ``gssapi.exceptions.GSSError``.
        broker: the name of the broker that one was asked for.
    """
    code = (error.min_code - _KRB5_BASE) % 2**32  # min_code has no sign
    routine = error.maj_code >> 16 & 0xFF
    said = _words(error)
    kind: type[SaslAuthenticationFailedError] = SaslAuthenticationFailedError
    if code == _EXPIRED or routine == _CREDENTIALS_EXPIRED:
        text = (
            f"the Kerberos ticket has expired ({said}): get a new one with kinit. From {_KEY_TAB} new ones "
            "are fetched as they are needed"
        )
    elif code == _NO_KDC_ANSWERS:
        # It may answer in a moment, as a provider of tokens may.
        kind = TokenUnavailableError
        text = f"no Kerberos server answers ({said}): see the kdc of the realm in krb5.conf, and the network"
    elif code in _NO_KDC_KNOWN:
        text = f"it is not known where the Kerberos server is ({said}): name the realm's kdc in krb5.conf"
    elif code == _CLIENT_UNKNOWN:
        text = f"the Kerberos server does not know the principal of the key tab ({said}): see klist -k"
    elif code in _WRONG_KEY:
        text = (
            f"the key in the key tab is not the one that the Kerberos server has ({said}): the password was "
            "changed, or ktadd made a newer key. Get a new key tab"
        )
    elif code == _CLOCK_SKEW:
        text = f"the clocks of this machine and of the Kerberos server differ ({said}): set them"
    elif code == _SERVER_UNKNOWN:
        text = _unknown_server(said, broker)
    elif routine == _NO_CREDENTIALS:
        text = (
            f"there is no Kerberos ticket ({said}): get one with kinit, as the user that this program runs "
            f"as, or {_KEY_TAB}"
        )
    else:
        text = f"no Kerberos ticket for {broker}: {said}"
    return kind(text)


def _unknown_server(said: str, broker: str) -> str:
    """The KDC has no key for the broker, or for the realm that it takes the broker to be in."""
    realms = re.search(r"krbtgt/([^@\s]+)@([^\s']+)", said)
    if realms is not None:
        return (
            f"the Kerberos ticket is of the realm {realms[2]}, and that one has no key for {realms[1]}, "
            f"where the broker {broker} is looked for ({said}): get a ticket of the broker's realm (kinit "
            "NAME@REALM), or say in krb5.conf, [domain_realm], which realm the broker's host is in; "
            "sasl_kerberos_domain_name is for a broker whose principal has another host name"
        )
    return (
        f"the Kerberos server knows no broker {broker} ({said}): set sasl_kerberos_service_name to the first "
        "part of the broker's principal (its sasl.kerberos.service.name), and use the host name in it in "
        "bootstrap_servers and advertised.listeners, or set sasl_kerberos_domain_name to that"
    )


def _words(error: Any) -> str:
    """What Kerberos says, or GSS-API where that is nothing, without the numbers."""
    words = error.get_all_statuses(error.min_code, False) if error.min_code else []
    return "; ".join(words or error.get_all_statuses(error.maj_code, True))
