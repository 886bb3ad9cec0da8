"""The requests that carry SASL tokens, and a broker's answers to them."""

from __future__ import annotations

import pytest

from kprod import errors
from kprod.protocol import (
    SASL_AUTHENTICATE,
    SASL_HANDSHAKE,
    Body,
    ProtocolError,
    decode_request,
    encode_response,
)
from kprod.security.credentials import Credentials
from kprod.security.exchange import Exchange
from kprod.security.oauthbearer import OAuthBearer, Token
from kprod.security.plain import Plain


def shaken(body: Body) -> bytes:
    return encode_response(SASL_HANDSHAKE, 1, 0, body)[4:]


def answered(version: int = 2, **fields: object) -> bytes:
    body: Body = {
        "error_code": 0,
        "error_message": None,
        "auth_bytes": b"",
        "session_lifetime_ms": 0,
        **fields,
    }
    if version == 0:
        del body["session_lifetime_ms"]
    return encode_response(SASL_AUTHENTICATE, version, 0, body)[4:]


def plain(version: int = 2) -> Exchange:
    exchange = Exchange(Plain(Credentials("u", "p")), version, "me")
    exchange.prepare()
    return exchange


@pytest.mark.parametrize(("version", "lifetime"), [(0, 0.0), (1, 3600.0), (2, 3600.0)])
def test_an_exchange_goes_through(version: int, lifetime: float) -> None:
    exchange = plain(version)
    handshake = exchange.handshake()
    header, body = decode_request(handshake.data[4:])
    assert (header.api_key, header.api_version, body) == (17, 1, {"mechanism": "PLAIN"})
    assert exchange.receive(shaken({"error_code": 0, "mechanisms": ["PLAIN"]})) is None
    first = exchange.first()
    header, body = decode_request(first.data[4:])
    assert (header.api_key, header.api_version, body) == (36, version, {"auth_bytes": b"\0u\0p"})
    fields = {} if version == 0 else {"session_lifetime_ms": 3_600_000}
    challenge = exchange.receive(answered(version, **fields))
    assert challenge == b""
    assert exchange.step(challenge) is None
    assert exchange.done
    assert exchange.session_lifetime_s == lifetime


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (
            33,
            errors.UnsupportedSaslMechanismError,
            "PLAIN here, only SCRAM-SHA-512, OAUTHBEARER: set sasl_mechanism",
        ),
        (34, errors.IllegalSaslStateError, "set security_protocol to PLAINTEXT or SSL"),
        (58, errors.SaslAuthenticationFailedError, "the broker gives no reason"),
        (-1, errors.SaslAuthenticationFailedError, "UNKNOWN_SERVER_ERROR"),
    ],
)
def test_a_handshake_may_be_refused(code: int, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        plain().receive(shaken({"error_code": code, "mechanisms": ["SCRAM-SHA-512", "OAUTHBEARER"]}))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (58, errors.SaslAuthenticationFailedError),
        (34, errors.IllegalSaslStateError),
        (35, errors.SaslAuthenticationFailedError),
    ],
)
def test_the_brokers_reason_is_in_the_error(code: int, kind: type[Exception]) -> None:
    exchange = plain()
    exchange.receive(shaken({"error_code": 0, "mechanisms": []}))
    with pytest.raises(kind, match="wrong, said the broker") as caught:
        exchange.receive(answered(error_code=code, error_message="wrong, said the broker"))
    assert type(caught.value) is kind


def test_what_the_broker_said_about_the_token_comes_first() -> None:
    exchange = Exchange(OAuthBearer(lambda: Token("abc", {})), 2, "me")
    exchange.prepare()
    exchange.receive(shaken({"error_code": 0, "mechanisms": []}))
    exchange.first()
    challenge = exchange.receive(answered(auth_bytes=b'{"status":"insufficient_scope"}'))
    assert challenge is not None
    again = exchange.step(challenge)
    assert again is not None
    assert decode_request(again.data[4:])[1] == {"auth_bytes": b"\x01"}
    with pytest.raises(errors.SaslAuthenticationFailedError, match="insufficient_scope"):
        exchange.receive(answered(error_code=58, error_message="failed"))
    assert not exchange.done


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\0\0\0\0\0\0\x7f", bytes(64)])
def test_an_answer_that_is_none_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        plain().receive(data)


def test_a_negative_lifetime_is_none() -> None:
    exchange = plain()
    exchange.receive(shaken({"error_code": 0, "mechanisms": []}))
    exchange.receive(answered(session_lifetime_ms=-5))
    assert exchange.session_lifetime_s == 0
