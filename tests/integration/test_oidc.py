"""OAUTHBEARER with tokens that an OpenID provider signs, and a broker that checks them with its key."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import pytest
from joserfc import jwk, jwt

from kprod import KafkaProducer, errors
from tests.conftest import start_cluster
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.readers import read_confluent

pytestmark = pytest.mark.kafka

AUDIENCE: Final = "kafka"
CLIENT: Final = "orders"
SECRET: Final = "orders-secret"
LIFE_S: Final = 10
ISSUER: Final = "https://idp.example"


class Provider:
    """An OpenID provider's token endpoint: client credentials, or a JWT that :data:`CLIENT` has signed.

    Args:
        folder: where the keys go.
    """

    def __init__(self, folder: Path) -> None:
        self.key = jwk.RSAKey.generate_key(2048, {"kid": "provider", "alg": "RS256", "use": "sig"})
        self.key_set = folder / "keys.json"
        """The public key, as brokers read it (``sasl.oauthbearer.jwks.endpoint.url``)."""
        self.key_set.write_text(json.dumps({"keys": [self.key.as_dict(private=False)]}))
        self.client_key = jwk.RSAKey.generate_key(2048)
        self.client_key_file = folder / "client.pem"
        self.client_key_file.write_bytes(self.client_key.as_pem(private=True))
        self.tokens = 0
        """How many were given out."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                fields = {name: values[0] for name, values in parse_qs(body).items()}
                known = provider._knows(fields, self.headers.get("Authorization", ""))
                told = provider._token() if known else {"error": "invalid_client"}
                self.send_response(200 if known else 401)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(told).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _knows(self, fields: dict[str, str], header: str) -> bool:
        if fields["grant_type"] == "client_credentials":
            return base64.b64decode(header.removeprefix("Basic ")).decode() == f"{CLIENT}:{SECRET}"
        claims = jwt.decode(fields["assertion"], self.client_key, ["RS256"]).claims
        return bool(claims["sub"] == CLIENT and claims["aud"] == self.url)

    def _token(self) -> dict[str, object]:
        self.tokens += 1
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": CLIENT, "aud": AUDIENCE, "iat": now, "exp": now + LIFE_S}
        signed = jwt.encode({"alg": "RS256", "kid": "provider"}, claims, self.key)
        return {"access_token": signed, "token_type": "Bearer", "expires_in": LIFE_S}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    made = Provider(tmp_path_factory.mktemp("provider"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def cluster(provider: Provider) -> Iterator[KafkaCluster]:
    """Its brokers take tokens of the provider only; :data:`CLIENT` may do everything."""
    address = provider.key_set.as_uri()
    package = "org.apache.kafka.common.security.oauthbearer"
    properties: dict[str, object] = {
        "super.users": f"User:ANONYMOUS;User:{CLIENT}",
        "sasl.oauthbearer.jwks.endpoint.url": address,
        "sasl.oauthbearer.expected.audience": AUDIENCE,
        "sasl.oauthbearer.expected.issuer": ISSUER,
        # The default validator of Kafka 4.1.1 takes tokens of whatever signature.
        "sasl.oauthbearer.jwt.validator.class": f"{package}.BrokerJwtValidator",
        # A token of a few seconds must not be good for half a minute more.
        "sasl.oauthbearer.clock.skew.seconds": 1,
    }
    for listener in ("sasl_plaintext", "sasl_ssl"):
        of = f"listener.name.{listener}.oauthbearer"
        properties[f"{of}.sasl.server.callback.handler.class"] = (
            f"{package}.OAuthBearerValidatorCallbackHandler"
        )
        properties[f"{of}.sasl.jaas.config"] = f"{package}.OAuthBearerLoginModule required;"
    jvm_options = (
        f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={address}",
        f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.files={provider.key_set}",
    )
    yield from start_cluster("oidc", 1, secure=True, jvm_options=jvm_options, **properties)


def options_for(
    cluster: KafkaCluster, provider: Provider, grant: str = "client credentials"
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap.servers": cluster.servers("SASL_SSL"),
        "security.protocol": "SASL_SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(cluster.certificates.file),
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.token.endpoint.url": provider.url,
    }
    if grant == "client credentials":
        options["sasl.oauthbearer.client.credentials.client.id"] = CLIENT
        options["sasl.oauthbearer.client.credentials.client.secret"] = SECRET
    else:
        options["sasl.oauthbearer.assertion.private.key.file"] = str(provider.client_key_file)
        options["sasl.oauthbearer.assertion.algorithm"] = "RS256"
        options["sasl.oauthbearer.assertion.claim.iss"] = CLIENT
        options["sasl.oauthbearer.assertion.claim.sub"] = CLIENT
        options["sasl.oauthbearer.assertion.claim.aud"] = provider.url
    return options


@pytest.mark.parametrize("grant", ["client credentials", "JWT bearer"])
def test_tokens_are_fetched_and_sessions_renewed_with_new_ones(
    cluster: KafkaCluster, provider: Provider, grant: str
) -> None:
    """A session ends with its token: the producer gets another one in time, and loses no record."""
    name = cluster.create_topic(f"oidc-{grant.replace(' ', '-')}")
    producer = KafkaProducer(options_for(cluster, provider, grant))
    with producer:
        producer.send(name, b"0").get(30)
        given = provider.tokens
        sent = 1

        def renewed() -> bool:
            nonlocal sent
            producer.send(name, str(sent).encode()).get(30)
            sent += 1
            return _figure(producer, "successful-reauthentication-total") >= 1

        wait_until(renewed, "a renewal", timeout=60)
        assert provider.tokens > given
        assert _figure(producer, "failed-reauthentication-total") == 0
    found = read_confluent(cluster.bootstrap_servers, name)
    assert [record.value for record in found] == [str(n).encode() for n in range(sent)]


def test_transactions(cluster: KafkaCluster, provider: Provider) -> None:
    name = cluster.create_topic("oidc-transactions")
    with KafkaProducer({**options_for(cluster, provider), "transactional.id": "oidc"}) as producer:
        producer.init_transactions()
        with producer.transaction():
            producer.send(name, b"x")
    found = read_confluent(cluster.bootstrap_servers, name, isolation="read_committed")
    assert [record.value for record in found] == [b"x"]


def test_a_secret_that_the_provider_does_not_know(cluster: KafkaCluster, provider: Provider) -> None:
    options = options_for(cluster, provider)
    options["sasl.oauthbearer.client.credentials.client.secret"] = "wrong"
    with pytest.raises(errors.SaslAuthenticationFailedError, match="refused this client: invalid_client"):
        KafkaProducer(options)


def test_a_token_that_somebody_else_has_signed(cluster: KafkaCluster, provider: Provider) -> None:
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": CLIENT, "aud": AUDIENCE, "iat": now, "exp": now + 600}
    forged = jwt.encode({"alg": "RS256", "kid": "provider"}, claims, jwk.RSAKey.generate_key(2048))
    with pytest.raises(errors.SaslAuthenticationFailedError, match="the broker refused the OAUTHBEARER"):
        KafkaProducer(
            bootstrap_servers=cluster.servers("SASL_PLAINTEXT"),
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="OAUTHBEARER",
            sasl_oauth_token_provider=lambda: forged,
        )


def _figure(producer: KafkaProducer, name: str) -> float:
    figures = producer.metrics()
    assert figures is not None
    return float(figures["producer-metrics"][name])
