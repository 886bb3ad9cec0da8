"""SASL mechanisms, token by token: the vectors of the RFCs, and what a broker may not do."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from kprod.errors import SaslAuthenticationFailedError, TokenUnavailableError
from kprod.security.credentials import Credentials
from kprod.security.gssapi import Gssapi
from kprod.security.oauthbearer import OAuthBearer, Token, UnsecuredTokens, expiry, token_provider
from kprod.security.plain import Plain
from kprod.security.scram import MAX_ITERATIONS, Scram

NONCE = "rOprNGfwEbeRWgbNEkqO"


# --- PLAIN


def test_plain_sends_name_and_password() -> None:
    mechanism = Plain(Credentials("tim", "tanstaaftanstaaf"))  # RFC 4616, section 4
    assert mechanism.initial() == b"\0tim\0tanstaaftanstaaf"
    assert not mechanism.complete
    assert mechanism.answer(b"") is None
    assert mechanism.complete


def test_plain_cannot_carry_nul() -> None:
    with pytest.raises(SaslAuthenticationFailedError, match="NUL"):
        Plain(Credentials("a\0b", "c")).initial()


# --- credentials


def test_callables_are_asked_each_time() -> None:
    passwords = iter(["one", "two"])
    credentials = Credentials("u", lambda: next(passwords))
    assert credentials.are_asked_for
    assert [credentials.get(), credentials.get()] == [("u", "one"), ("u", "two")]
    credentials.set("v", "three")
    assert not credentials.are_asked_for
    assert credentials.get() == ("v", "three")


@pytest.mark.parametrize("given", ["", None, 5, b"x"])
def test_a_callable_must_give_text(given: Any) -> None:
    with pytest.raises(SaslAuthenticationFailedError, match="sasl_plain_password must return a str"):
        Credentials("u", lambda: given).get()


def test_the_exception_of_a_callable_is_the_cause_and_not_quoted() -> None:
    def fails() -> str:
        raise LookupError("vault token hunter2")

    with pytest.raises(SaslAuthenticationFailedError, match="raised LookupError") as caught:
        Credentials("u", fails).get()
    assert "hunter2" not in str(caught.value)
    assert isinstance(caught.value.__cause__, LookupError)


def test_credentials_do_not_show() -> None:
    assert "hunter2" not in repr(Credentials("u", "hunter2"))


# --- SCRAM

VECTORS = {
    # RFC 7677, section 3
    "SCRAM-SHA-256": (
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
    # draft-melnikov-scram-sha-512, section 3
    "SCRAM-SHA-512": (
        "r=rOprNGfwEbeRWgbNEkqO02431b08-2f89-4bad-a4e6-80c0564ec865,"
        "s=Yin2FuHTt/M0kJWb0t9OI32n2VmOGi3m+JfjOvuDF88=,i=4096",
        "c=biws,r=rOprNGfwEbeRWgbNEkqO02431b08-2f89-4bad-a4e6-80c0564ec865,"
        "p=Hc5yec3NmCD7t+kFRw4/3yD6/F3SQHc7AVYschRja+Bc3sbdjlA0eH1OjJc0DD4ghn1tnXN5/Wr6qm9xmaHt4A==",
        "v=BQuhnKHqYDwQWS5jAw4sZed+C9KFUALsbrq81bB0mh+bcUUbbMPNNmBIupnS2AmyyDnG5CTBQtkjJ9kyY4kzmw==",
    ),
}


def scram(name: str = "SCRAM-SHA-256", user: str = "user", password: str = "pencil") -> Scram:
    return Scram(name, Credentials(user, password), lambda: NONCE)


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_scram_vectors(name: str) -> None:
    server_first, client_final, server_final = VECTORS[name]
    mechanism = scram(name)
    assert mechanism.initial() == f"n,,n=user,r={NONCE}".encode()
    assert mechanism.answer(server_first.encode()) == client_final.encode()
    assert not mechanism.complete
    assert mechanism.answer(server_final.encode()) is None
    assert mechanism.complete


def test_the_salted_password_is_made_once() -> None:
    credentials = Credentials("user", "pencil")
    server_first, client_final, server_final = (text.encode() for text in VECTORS["SCRAM-SHA-256"])
    slow = []
    for _ in range(2):
        mechanism = Scram("SCRAM-SHA-256", credentials, lambda: NONCE)
        mechanism.initial()
        slow.append(mechanism.is_slow(server_first))
        assert mechanism.answer(server_first) == client_final
        assert not mechanism.is_slow(server_final)
    assert slow == [True, False]
    credentials.set("user", "pencil")
    mechanism = Scram("SCRAM-SHA-256", credentials, lambda: NONCE)
    mechanism.initial()
    assert mechanism.is_slow(server_first)


def test_scram_escapes_names() -> None:
    assert scram(user="a=b,c").initial() == f"n,,n=a=3Db=2Cc,r={NONCE}".encode()


GOOD = VECTORS["SCRAM-SHA-256"][0]


@pytest.mark.parametrize(
    ("server_first", "text"),
    [
        (GOOD.replace("i=4096", "i=4095"), "4095 SCRAM iterations"),
        (GOOD.replace("i=4096", f"i={MAX_ITERATIONS + 1}"), "1000001 SCRAM iterations"),
        (GOOD.replace("i=4096", "i=-1"), "-1 SCRAM iterations"),
        (GOOD.replace("i=4096", "i=many"), "malformed"),
        (GOOD.replace("i=4096", "i=" + "9" * 5000), "malformed"),
        (GOOD.replace(NONCE, "other"), "for somebody else"),
        (f"r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "for somebody else"),
        (GOOD.replace("s=W22Z", "s=!!!!"), "malformed"),
        (GOOD.replace("s=W22ZaJ0SNY7soEsUEjb6gQ==", "s="), "malformed"),
        ("m=must," + GOOD, "extension"),
        (GOOD + "," + GOOD, "malformed"),
        ("", "malformed"),
        ("\xff", "ASCII"),
        ("e=other-error", "malformed"),
    ],
)
def test_a_bad_first_message_of_the_broker_ends_it(server_first: str, text: str) -> None:
    mechanism = scram()
    mechanism.initial()
    with pytest.raises(SaslAuthenticationFailedError, match=text):
        mechanism.answer(server_first.encode("latin-1"))
    assert not mechanism.complete


@pytest.mark.parametrize(
    ("server_final", "text"),
    [
        ("v=" + b64encode(bytes(32)).decode(), "could not prove that it knows the password"),
        ("v=6rri", "could not prove"),
        ("v=", "malformed"),
        ("v=!", "malformed"),
        ("x=1", "could not prove"),
        ("e=invalid-proof", "ended the SCRAM exchange: invalid-proof"),
    ],
)
def test_a_broker_must_prove_that_it_knows_the_password(server_final: str, text: str) -> None:
    mechanism = scram()
    mechanism.initial()
    mechanism.answer(GOOD.encode())
    with pytest.raises(SaslAuthenticationFailedError, match=text):
        mechanism.answer(server_final.encode())
    assert not mechanism.complete


def test_nonces_are_new_each_time() -> None:
    made = {Scram("SCRAM-SHA-256", Credentials("u", "p")).initial() for _ in range(100)}
    assert len(made) == 100


# --- OAUTHBEARER


def test_oauthbearer_sends_the_token_and_its_extensions() -> None:
    mechanism = OAuthBearer(lambda: Token("abc.def", {"logicalCluster": "lkc-1"}))
    assert mechanism.initial() == b"n,,\x01auth=Bearer abc.def\x01logicalCluster=lkc-1\x01\x01"
    assert mechanism.answer(b"") is None
    assert mechanism.complete


def test_a_refused_token_is_answered_as_rfc_7628_wants_it() -> None:
    mechanism = OAuthBearer(lambda: Token("abc", {}))
    mechanism.initial()
    assert mechanism.answer(b'{"status":"invalid_token"}') == b"\x01"
    assert mechanism.broker_error == '{"status":"invalid_token"}'
    assert not mechanism.complete
    with pytest.raises(SaslAuthenticationFailedError, match="invalid_token"):
        mechanism.answer(b"")


class KafkaPythonProvider:
    def token(self) -> str:
        return "from-a-method"

    def extensions(self) -> dict[str, str]:
        return {"traceId": "7"}


async def from_aiokafka() -> str:
    await asyncio.sleep(0)
    return "awaited"


@pytest.mark.parametrize(
    ("given", "token"),
    [
        (lambda: "plain", Token("plain", {"own": "1"})),
        (lambda: b"bytes", Token("bytes", {"own": "1"})),
        (lambda: ("tuple", 1234.5), Token("tuple", {"own": "1"})),
        (from_aiokafka, Token("awaited", {"own": "1"})),
        (KafkaPythonProvider(), Token("from-a-method", {"own": "1", "traceId": "7"})),
    ],
)
def test_shapes_of_token_providers(given: Any, token: Token) -> None:
    assert token_provider(given, {"own": "1"})() == token


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (lambda: "", "an empty str"),
        (lambda: None, "gave a NoneType"),
        (lambda: "hunter2\x01auth=x", "characters that no token has"),
        (lambda: "hunter2\n", "characters that no token has"),
    ],
)
def test_a_token_must_be_one(given: Callable[[], Any], text: str) -> None:
    with pytest.raises(SaslAuthenticationFailedError, match=text) as caught:
        token_provider(given, {})()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "extensions", [{"auth": "x"}, {"a b": "x"}, {"": "x"}, {"a": "\x01"}, {"a": ""}, {"a": 1}]
)
def test_extensions_must_be_what_rfc_7628_allows(extensions: Any) -> None:
    with pytest.raises(SaslAuthenticationFailedError, match="SASL extension"):
        token_provider(lambda: "token", extensions)()


def test_a_provider_that_fails_can_be_asked_again() -> None:
    def fails() -> str:
        raise ConnectionError("hunter2")

    with pytest.raises(TokenUnavailableError, match="raised ConnectionError") as caught:
        token_provider(fails, {})()
    assert caught.value.retriable
    assert "hunter2" not in str(caught.value)


def test_unsecured_tokens_are_jwts_that_nobody_signed() -> None:
    header, claims, signature = UnsecuredTokens("alice", 60, {"scope": "kafka"}).token().split(".")
    assert json.loads(urlsafe_b64decode(header + "==")) == {"alg": "none"}
    content = json.loads(urlsafe_b64decode(claims + "=="))
    assert (content["sub"], content["scope"], signature) == ("alice", "kafka", "")
    assert content["exp"] - content["iat"] == pytest.approx(60)


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "..", "a.e30.c"])
def test_tokens_that_do_not_say_when_they_expire(token: str) -> None:
    assert expiry(token) is None
    assert expiry(UnsecuredTokens("a", 60).token()) is not None


# --- GSSAPI, with a stand-in for the package; with a KDC: tests/integration/test_gssapi.py


class FakeGssError(Exception):
    """An error with the codes and words of Kerberos."""

    def __init__(self, words: str, code: int = 1, routine: int = 13) -> None:
        super().__init__(f"Major (1): Unspecified GSS failure., Minor ({code}): {words}")
        self.maj_code = routine << 16
        self.min_code = (code - 1765328384) % 2**32
        self._words = words

    def get_all_statuses(self, code: int, is_maj: bool) -> list[str]:
        assert (code, is_maj) == (self.min_code, False)
        return [self._words]


class FakeContext:
    """Takes two steps, then wraps by reversing; records what it was made with."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, **options: Any) -> None:
        self.made.append(options)
        self.steps: list[bytes | None] = []
        self.complete = False

    def step(self, token: bytes | None = None) -> bytes | None:
        self.steps.append(token)
        if token == b"bad":
            raise FakeGssError("mutual authentication failed")
        self.complete = len(self.steps) == 2
        return b"ticket" if len(self.steps) == 1 else None

    def unwrap(self, token: bytes) -> Any:
        return types.SimpleNamespace(message=token[::-1])

    def wrap(self, message: bytes, encrypt: bool) -> Any:
        assert encrypt is False
        return types.SimpleNamespace(message=message[::-1])


class FakeName:
    def __init__(self, text: str, kind: str) -> None:
        self.text, self.kind = text, kind

    def canonicalize(self, mechanism: str) -> tuple[str, str, str]:
        return self.text, self.kind, mechanism


@pytest.fixture
def fake_gssapi(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = types.ModuleType("gssapi")
    module.Name = FakeName
    module.NameType = types.SimpleNamespace(hostbased_service="service", kerberos_principal="principal")
    module.MechType = types.SimpleNamespace(kerberos="kerberos")
    module.SecurityContext = FakeContext
    module.exceptions = types.SimpleNamespace(GSSError=FakeGssError)
    FakeContext.made.clear()
    monkeypatch.setitem(sys.modules, "gssapi", module)
    return module


@pytest.mark.parametrize(
    ("principal", "name"),
    [
        (None, ("kafka@b1.example", "service", "kerberos")),
        ("kafka/b1@REALM", ("kafka/b1@REALM", "principal", "kerberos")),
    ],
)
def test_gssapi_takes_the_steps_of_rfc_4752(
    fake_gssapi: Any, principal: str | None, name: tuple[str, str, str]
) -> None:
    mechanism = Gssapi("kafka", "b1.example", principal)
    assert mechanism.initial() == b"ticket"
    assert FakeContext.made == [{"name": name, "usage": "initiate"}]
    assert mechanism.is_slow(b"x")
    # The context is complete without a token of its own: an empty one asks for the broker's offer.
    assert mechanism.answer(b"challenge") == b""
    assert not mechanism.complete
    # Offers no layer and integrity, at most 64 KiB; the answer chooses no layer.
    assert mechanism.answer(bytes((3, 1, 0, 0))[::-1]) == bytes((1, 0, 0, 0))[::-1]
    assert mechanism.complete
    assert mechanism.answer(b"") is None


def test_gssapi_refuses_a_broker_that_wants_a_security_layer(fake_gssapi: Any) -> None:
    mechanism = Gssapi("kafka", "b1")
    mechanism.initial()
    mechanism.answer(b"challenge")
    with pytest.raises(SaslAuthenticationFailedError, match="security layer"):
        mechanism.answer(bytes((4, 0, 0, 0))[::-1])


def test_gssapi_says_what_kerberos_says(fake_gssapi: Any) -> None:
    mechanism = Gssapi("kafka", "b1")
    mechanism.initial()
    with pytest.raises(SaslAuthenticationFailedError, match=r"answer: mutual authentication failed\Z"):
        mechanism.answer(b"bad")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FakeGssError("Ticket expired", 32), "has expired .*: get a new one with kinit"),
        (FakeGssError("expired", 0, 11), "has expired .*: get a new one with kinit"),
        (FakeGssError("none", 141, 7), "there is no Kerberos ticket .*kinit.*KRB5_CLIENT_KTNAME"),
        (FakeGssError("Cannot find KDC", 154, 7), "name the realm's kdc in krb5.conf"),
        (FakeGssError("Client 'x@Y' not found", 6, 7), "the principal of the key tab"),
        (FakeGssError("Decrypt integrity check failed", 31, 7), "Get a new key tab"),
        (FakeGssError("Preauthentication failed", 24, 7), "Get a new key tab"),
        (FakeGssError("Clock skew too great", 37), "clocks"),
        (FakeGssError("Server kafka/b1@R not found", 7), "knows no broker kafka@b1 .*_service_name"),
        (FakeGssError("Server krbtgt/A@B not found", 7), "is of the realm B, .* no key for A"),
        (FakeGssError("something new", 99), "no Kerberos ticket for kafka@b1: something new"),
    ],
)
def test_gssapi_says_why_there_is_no_ticket(
    fake_gssapi: Any, monkeypatch: pytest.MonkeyPatch, error: FakeGssError, text: str
) -> None:
    def fails(self: FakeContext) -> None:
        raise error

    monkeypatch.setattr(FakeContext, "step", fails)
    with pytest.raises(SaslAuthenticationFailedError, match=text) as caught:
        Gssapi("kafka", "b1").initial()
    assert not caught.value.retriable
    assert caught.value.__cause__ is error


def test_a_kdc_that_does_not_answer_can_be_asked_again(
    fake_gssapi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: FakeContext) -> None:
        raise FakeGssError("Cannot contact any KDC", 156)

    monkeypatch.setattr(FakeContext, "step", fails)
    with pytest.raises(TokenUnavailableError, match="no Kerberos server answers") as caught:
        Gssapi("kafka", "b1").initial()
    assert caught.value.retriable


def test_without_the_package_gssapi_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", None)
    with pytest.raises(ImportError, match=r"pip install 'kprod\[gssapi\]'"):
        Gssapi("kafka", "b1").initial()
