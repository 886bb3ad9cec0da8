"""Tokens from an OpenID provider, which is a small local HTTP server here."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwk, jwt

from kprod.config import ProducerConfig
from kprod.errors import SaslAuthenticationFailedError, TokenUnavailableError
from kprod.security.oauthbearer import UnsecuredTokens
from kprod.security.oidc import Assertion, TokenEndpoint
from kprod.security.sasl import Sasl


class Provider:
    """Answers with :attr:`answers` in turn, the last one for ever; remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str]] = []
        self.asked: list[tuple[dict[str, str], str | None]] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                fields = {name: values[0] for name, values in parse_qs(body).items()}
                provider.asked.append((fields, self.headers.get("Authorization")))
                status, text = provider.answers[0]
                if len(provider.answers) > 1:
                    provider.answers.pop(0)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, status: int = 200, **fields: object) -> None:
        self.answers.append((status, json.dumps(fields)))

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.stop()


def endpoint(provider: Provider, **options: Any) -> TokenEndpoint:
    given = {"client_id": "orders", "client_secret": "hunter2", "scope": "kafka", "wait": lambda _: None}
    return TokenEndpoint(provider.url, **{**given, **options})


def basic(header: str | None) -> str:
    assert header is not None
    return base64.b64decode(header.removeprefix("Basic ")).decode()


def test_client_credentials(provider: Provider) -> None:
    provider.answer(access_token="abc", token_type="Bearer", expires_in=3600)
    tokens = endpoint(provider, extensions={"logicalCluster": "lkc-1"})
    assert [tokens(), tokens()] == [("abc", {"logicalCluster": "lkc-1"})] * 2
    # Asked once: the token is good for most of an hour.
    [(fields, header)] = provider.asked
    assert fields == {"grant_type": "client_credentials", "scope": "kafka"}
    assert basic(header) == "orders:hunter2"
    assert "hunter2" not in repr(tokens)


@pytest.mark.parametrize(("urlencode", "sent"), [(False, "a b:c+d"), (True, "a+b:c%2Bd")])
def test_id_and_secret_are_encoded_where_that_is_asked_for(
    provider: Provider, urlencode: bool, sent: str
) -> None:
    provider.answer(access_token="abc")
    endpoint(provider, client_id="a b", client_secret="c+d", urlencode=urlencode)()
    assert basic(provider.asked[0][1]) == sent


def test_a_token_that_expires_is_replaced(provider: Provider) -> None:
    expired = UnsecuredTokens("a", -10).token()
    provider.answer(access_token=expired)
    provider.answer(access_token="opaque")
    tokens = endpoint(provider)
    # A JWT says itself when it expires; of an opaque token without expires_in nothing is known.
    assert [tokens().value for _ in range(3)] == [expired, "opaque", "opaque"]
    assert len(provider.asked) == 3


def test_a_refusal_is_not_repeated(provider: Provider) -> None:
    provider.answer(401, error="invalid_client", error_description="unknown secret")
    with pytest.raises(
        SaslAuthenticationFailedError, match=r"refused this client: invalid_client \(unknown secret\)"
    ) as caught:
        endpoint(provider)()
    assert not isinstance(caught.value, TokenUnavailableError)
    assert len(provider.asked) == 1
    assert "hunter2" not in str(caught.value)


def test_a_provider_that_fails_for_a_moment_is_asked_again(provider: Provider) -> None:
    provider.answer(503)
    provider.answer(500)
    provider.answer(access_token="abc", expires_in=60)
    pauses: list[float] = []
    assert endpoint(provider, wait=pauses.append, backoff=(0.5, 0.6))().value == "abc"
    assert [0.4 <= pauses[0] <= 0.6, 0.48 <= pauses[1] <= 0.72] == [True, True]


def test_a_provider_that_stays_away(provider: Provider) -> None:
    provider.answer(503)
    with pytest.raises(TokenUnavailableError, match="answered with HTTP status 503"):
        endpoint(provider)()
    assert len(provider.asked) == 3
    provider.stop()
    with pytest.raises(TokenUnavailableError, match=r"cannot be reached: .*[Rr]efused") as caught:
        endpoint(provider)()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>", "did not answer with a JSON object"),
        ("{}", "has no access_token"),
        ("[]", "did not answer with a JSON object"),
        ('{"access_token": 5}', "gave a int"),
        ('{"access_token": "a b"}', "characters that no token has"),
    ],
)
def test_an_answer_that_is_no_token(provider: Provider, text: str, message: str) -> None:
    provider.answers = [(200, text)]
    with pytest.raises(SaslAuthenticationFailedError, match=message):
        endpoint(provider)()


def test_an_address_that_is_none() -> None:
    with pytest.raises(SaslAuthenticationFailedError, match="is not an address: MissingSchema"):
        TokenEndpoint("idp.example/token", "i", "s", None)()


def write_key(path: Path, algorithm: str, passphrase: str | None) -> Any:
    key: Any = (
        rsa.generate_private_key(65537, 2048)
        if algorithm == "RS256"
        else ec.generate_private_key(ec.SECP256R1())
    )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize(("algorithm", "passphrase"), [("RS256", None), ("ES256", "hunter2")])
def test_jwt_bearer_by_the_options(
    provider: Provider, tmp_path: Path, algorithm: str, passphrase: str | None
) -> None:
    public = write_key(tmp_path / "key.pem", algorithm, passphrase)
    provider.answer(access_token="abc", expires_in=60)
    options = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.token.endpoint.url": provider.url,
        "sasl.oauthbearer.assertion.private.key.file": str(tmp_path / "key.pem"),
        "sasl.oauthbearer.assertion.algorithm": algorithm,
        "sasl.oauthbearer.assertion.claim.iss": "orders",
        "sasl.oauthbearer.assertion.claim.sub": "orders",
        "sasl.oauthbearer.assertion.claim.aud": provider.url,
        "sasl.oauthbearer.assertion.claim.jti.include": "true",
    }
    if passphrase is not None:
        options["sasl.oauthbearer.assertion.private.key.passphrase"] = passphrase
    mechanism = Sasl(ProducerConfig.from_options(options)).mechanism("broker")
    assert mechanism.initial() == b"n,,\x01auth=Bearer abc\x01\x01"
    [(fields, _)] = provider.asked
    assert fields["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    kind: Any = jwk.RSAKey if algorithm == "RS256" else jwk.ECKey
    claims = jwt.decode(fields["assertion"], kind.import_key(public), [algorithm]).claims
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("orders", "orders", provider.url)
    assert claims["exp"] - claims["iat"] == 300
    assert claims["iat"] - claims["nbf"] == 60
    assert claims["jti"]


def make_assertion(**fields: Any) -> Assertion:
    given: dict[str, Any] = {
        "file": None,
        "private_key_file": None,
        "passphrase": None,
        "algorithm": "RS256",
        "claims": {},
        "expires_s": 300,
        "not_before_s": 60,
        "with_id": False,
    }
    return Assertion(**{**given, **fields})


def test_a_ready_assertion_is_read_each_time(provider: Provider, tmp_path: Path) -> None:
    provider.answer(access_token="abc")
    file = tmp_path / "assertion"
    tokens = endpoint(provider, client_secret=None, assertion=make_assertion(file=str(file)))
    for content in ("a.b.c", "d.e.f"):
        file.write_text(content + "\n")
        tokens()
    assert [fields["assertion"] for fields, _ in provider.asked] == ["a.b.c", "d.e.f"]


def test_a_key_that_cannot_sign_is_named_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SaslAuthenticationFailedError, match=r"none\.pem cannot be read: No such file"):
        make_assertion(private_key_file=str(tmp_path / "none.pem")).make()
    path = tmp_path / "key.pem"
    write_key(path, "ES256", "right")
    with pytest.raises(SaslAuthenticationFailedError, match="cannot sign with ES256") as caught:
        make_assertion(private_key_file=str(path), passphrase="hunter2", algorithm="ES256").make()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
