"""Secrets are in no output where real Kafka is used with TLS and SASL, and everything is logged."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from kprod import KafkaProducer, errors
from kprod.security.oauthbearer import UnsecuredTokens
from tests.conftest import TopicFactory
from tests.kafka.cluster import USERS, KafkaCluster
from tests.kafka.readers import read_confluent
from tests.secrets.disclosure import Output

WRONG = "Zq7-wrong-password-8xW"


@pytest.fixture
def output(capfd: pytest.CaptureFixture[str]) -> Iterator[Output]:
    with Output(capfd) as everything:
        yield everything


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_sasl_over_tls(
    kafka_secure: KafkaCluster,
    secure_topic: TopicFactory,
    output: Output,
    monkeypatch: pytest.MonkeyPatch,
    mechanism: str,
) -> None:
    name = secure_topic()
    salted: list[bytes] = []
    real = hashlib.pbkdf2_hmac

    def record(*given: Any) -> bytes:
        salted.append(real(*given))
        return salted[-1]

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", record)
    token = UnsecuredTokens("admin", claims={"secret": "Zq7planted8xW"}).token()
    files = kafka_secure.client_certificate
    options: dict[str, Any] = {
        "bootstrap_servers": kafka_secure.servers("SASL_SSL"),
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(kafka_secure.certificates.file),
        # Not asked for by the broker, but read and ready.
        "ssl_keystore_certificate_chain": files.certificate.read_text(),
        "ssl_keystore_key": files.key.read_text(),
        "sasl_mechanism": mechanism,
    }
    if mechanism == "OAUTHBEARER":
        options["sasl_oauth_token_provider"] = lambda: token
    else:
        options |= {"sasl_plain_username": "admin", "sasl_plain_password": USERS["admin"]}
    with KafkaProducer(**options, transactional_id=f"tx-{name}") as producer:
        producer.init_transactions()
        with producer.transaction():
            future = producer.send(name, b"x")
        output.show(future, future.get(30), producer, vars(producer), producer.config)
        output.show(producer.metrics(), producer.metrics(raw=True), producer.healthy())
    if mechanism == "OAUTHBEARER":
        expired = UnsecuredTokens("admin", -600, {"secret": "Zq7planted8xW"}).token()
        options["sasl_oauth_token_provider"] = lambda: expired
    else:
        options["sasl_plain_password"] = WRONG
    with pytest.raises(errors.SaslAuthenticationFailedError) as caught:
        KafkaProducer(**options)
    output.show(caught.value)

    assert "connected to broker" in output.text
    secrets = {"key": files.key.read_text(), "wrong password": WRONG, "token": token}
    secrets |= {f"part of the token {n}": part for n, part in enumerate(token.split(".")) if len(part) > 30}
    # The password is 'admin-secret': nothing else is called so.
    assert output.disclosed({**secrets, "password": USERS["admin"]}) == []
    assert bool(salted) == mechanism.startswith("SCRAM")
    text = output.text
    for each in salted:
        assert all(form not in text for form in (each.hex(), repr(each)[2:-1], each.decode("latin-1")))
        assert b64encode(each).decode().rstrip("=") not in text
    found = read_confluent(kafka_secure.bootstrap_servers, name, isolation="read_committed")
    assert [record.value for record in found] == [b"x"]
