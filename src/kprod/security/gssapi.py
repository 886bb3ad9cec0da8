"""GSSAPI: Kerberos 5 (RFC 4752), through the package ``gssapi``, which uses the system's library.

Tickets are the system's: ``kinit``, or a key tab named by ``KRB5_CLIENT_KTNAME``.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from kprod.errors import SaslAuthenticationFailedError
from kprod.security.mechanism import Mechanism

_NO_SECURITY_LAYER: Final = 1


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
            raise SaslAuthenticationFailedError(
                f"no Kerberos ticket for {service}@{host}: {error}; is there a ticket (klist), and does the "
                "broker's principal have this name (sasl_kerberos_service_name, sasl_kerberos_domain_name)?"
            ) from error

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
            raise SaslAuthenticationFailedError(f"Kerberos does not accept the broker: {error}") from error
