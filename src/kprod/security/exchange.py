"""One authentication on one connection: frames in, frames out (KIP-43, KIP-152, KIP-368)."""

from __future__ import annotations

from typing import Final, NamedTuple

from kprod import errors
from kprod.errors import IllegalSaslStateError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError
from kprod.protocol import SASL_AUTHENTICATE, SASL_HANDSHAKE, decode_response, encode_request
from kprod.security.mechanism import Mechanism
from kprod.security.redaction import without_secrets

HANDSHAKE_VERSION: Final = 1
"""Tokens travel in SaslAuthenticate requests after it (KIP-152); after version 0 they travel bare."""

ILLEGAL_SASL_STATE: Final = 34
UNSUPPORTED_SASL_MECHANISM: Final = 33


class Frame(NamedTuple):
    """A request to send, and its version."""

    data: bytes
    version: int

    def __repr__(self) -> str:
        return f"<Frame version={self.version}>"  # the data may be a password


class Exchange:
    """The requests and answers of an authentication.

    Args:
        mechanism: what authenticates; used once.
        authenticate_version: version of SaslAuthenticate that both sides know.
        client_id: the option.
    """

    def __init__(self, mechanism: Mechanism, authenticate_version: int, client_id: str) -> None:
        self.mechanism = mechanism
        self._version = authenticate_version
        self._client_id = client_id
        self._shaken = False
        self._token = b""
        self.done = False
        """Whether the broker has accepted this client."""
        self.session_lifetime_s = 0.0
        """How long it does so, in seconds; 0: for the life of the connection."""

    def prepare(self) -> None:
        """Get the credentials; may take long, and is called first.

        Raises:
            AuthenticationFailedError: there are none.
        """
        self._token = self.mechanism.initial()

    def handshake(self) -> Frame:
        """The request to begin with."""
        body = {"mechanism": self.mechanism.name}
        return Frame(
            encode_request(SASL_HANDSHAKE, HANDSHAKE_VERSION, 0, self._client_id, body), HANDSHAKE_VERSION
        )

    def receive(self, frame: bytes) -> bytes | None:
        """Take the broker's answer.

        Returns:
            The broker's token, to be given to :meth:`step`; None: it has agreed to the mechanism, and
            :meth:`first` is next.

        Raises:
            AuthenticationFailedError: it refuses; the class and the text say what.
            ProtocolError: it is not an answer to what was asked.
        """
        if not self._shaken:
            self._take_handshake(frame)
            return None
        _, body = decode_response(SASL_AUTHENTICATE, self._version, frame)
        code = body["error_code"]
        if code:
            raise self._refused(code, body["error_message"])
        self.session_lifetime_s = max(body.get("session_lifetime_ms", 0), 0) / 1000
        return bytes(body["auth_bytes"] or b"")

    def first(self) -> Frame:
        """The request with the mechanism's first token."""
        token, self._token = self._token, b""
        return self._frame(token)

    def step(self, challenge: bytes) -> Frame | None:
        """The next request; None: the exchange is :attr:`done`. Slow where the mechanism says so.

        Raises:
            AuthenticationFailedError: the broker's token is not acceptable.
        """
        token = self.mechanism.answer(challenge)
        if token is not None:
            return self._frame(token)
        self.done = True
        return None

    def _frame(self, token: bytes) -> Frame:
        body = {"auth_bytes": token}
        return Frame(
            encode_request(SASL_AUTHENTICATE, self._version, 0, self._client_id, body), self._version
        )

    def _take_handshake(self, frame: bytes) -> None:
        _, body = decode_response(SASL_HANDSHAKE, HANDSHAKE_VERSION, frame)
        code = body["error_code"]
        name = self.mechanism.name
        if code == UNSUPPORTED_SASL_MECHANISM:
            raise UnsupportedSaslMechanismError(
                f"the broker does not offer the SASL mechanism {name} here, only "
                f"{', '.join(body['mechanisms']) or 'none'}: set sasl_mechanism to one of these"
            )
        if code == ILLEGAL_SASL_STATE:
            raise IllegalSaslStateError(
                "the listener does not ask for SASL: set security_protocol to PLAINTEXT or SSL, or "
                "bootstrap_servers to the port of a SASL listener"
            )
        if code:
            raise self._refused(code, None)
        self._shaken = True

    def _refused(self, code: int, message: str | None) -> errors.KafkaError:
        kind = errors.for_code(code)
        if not issubclass(kind, errors.AuthenticationFailedError):
            kind = SaslAuthenticationFailedError
            message = f"{errors.name_for_code(code)}{f': {message}' if message else ''}"
        told = getattr(self.mechanism, "broker_error", "") or message or "the broker gives no reason"
        told = without_secrets(told, *self.mechanism.secrets())
        return kind(f"the broker refused the {self.mechanism.name} credentials: {told}")
