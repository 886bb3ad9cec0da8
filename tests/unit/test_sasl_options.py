"""Options of SASL: what each mechanism needs, Java's JAAS text, and other clients' names."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from kprod.config import ProducerConfig
from kprod.errors import KafkaConfigurationError
from kprod.security import jaas
from kprod.security.sasl import Sasl

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"


def make(**options: Any) -> ProducerConfig:
    return ProducerConfig.from_options(None, {"security_protocol": "SASL_PLAINTEXT", **options})


def refused(**options: Any) -> str:
    with pytest.raises(KafkaConfigurationError) as caught:
        Sasl(make(**options))
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "security_protocol='SASL_PLAINTEXT' needs sasl_mechanism: it takes one of 'PLAIN'"),
        ({"sasl_mechanism": "MD5"}, "sasl_mechanism='MD5' is not accepted"),
        ({"sasl_mechanism": "PLAIN"}, "sasl_mechanism='PLAIN' needs sasl_plain_username"),
        (
            {"sasl_mechanism": "SCRAM-SHA-256", "sasl_plain_username": "u"},
            "sasl_mechanism='SCRAM-SHA-256' needs sasl_plain_password",
        ),
        ({"sasl_mechanism": "PLAIN", "sasl_plain_username": ""}, "it takes a non-empty str, a callable"),
        ({"sasl_mechanism": "OAUTHBEARER"}, "needs a source of tokens: one of sasl_oauth_token_provider"),
        (
            {
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth_token_provider": lambda: "t",
                "sasl_oauthbearer_token_endpoint_url": "https://x/",
            },
            "sasl_oauth_token_provider contradicts sasl_oauthbearer_token_endpoint_url",
        ),
        (
            {"sasl_mechanism": "OAUTHBEARER", "sasl_oauthbearer_token_endpoint_url": "https://x/"},
            "needs sasl_oauthbearer_client_credentials_client_id",
        ),
        (
            {
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauthbearer_token_endpoint_url": "https://x/",
                "sasl_oauthbearer_assertion_file": "/a",
                "sasl_oauthbearer_assertion_private_key_file": "/b",
            },
            "sasl_oauthbearer_assertion_file contradicts sasl_oauthbearer_assertion_private_key_file",
        ),
        (
            {
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth_token_provider": lambda: "t",
                "sasl_oauthbearer_extensions": {"auth": "x"},
            },
            "or is 'auth'",
        ),
        (
            {"sasl_mechanism": "PLAIN", "sasl_jaas_config": f"{SCRAM} required;"},
            "contradicts the login module of sasl_jaas_config, which is for SCRAM-SHA-256 and SCRAM-SHA-512",
        ),
        ({"sasl_jaas_config": f"{SCRAM} required;"}, "sasl_mechanism must say which SCRAM"),
        (
            {
                "sasl_jaas_config": f'{PLAIN} required username="a" password="b";',
                "sasl_plain_password": "other",
            },
            "sasl_plain_password contradicts sasl_jaas_config",
        ),
        ({"sasl_jaas_config": "nonsense"}, "sasl_jaas_config is not accepted: it is not written as"),
        ({"sasl_jaas_config": "com.example.Login required;"}, "the login module Login is not known"),
        ({"sasl_jaas_config": f'{PLAIN} required username="a" hunter2;'}, 'must have name="value" pairs'),
    ],
)
def test_what_is_missing_or_contradicts(options: dict[str, Any], text: str) -> None:
    message = refused(**options)
    assert text in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("mechanism", "package", "extra", "options"),
    [
        ("GSSAPI", "gssapi", "gssapi", {}),
        ("AWS_MSK_IAM", "aws_msk_iam_sasl_signer.MSKAuthTokenProvider", "aws", {"sasl_aws_region": "r"}),
        (
            "OAUTHBEARER",
            "authlib.integrations.requests_client",
            "oauth",
            {
                "sasl_oauthbearer_token_endpoint_url": "https://x/",
                "sasl_oauthbearer_client_id": "i",
                "sasl_oauthbearer_client_secret": "s",
            },
        ),
    ],
)
def test_missing_packages_are_named_at_the_start(
    mechanism: str, package: str, extra: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert f"pip install 'kprod[{extra}]'" in refused(sasl_mechanism=mechanism, **options)


def test_aws_needs_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    assert "needs sasl_aws_region" in refused(sasl_mechanism="AWS_MSK_IAM")


def test_names_of_librdkafka_and_java() -> None:
    made = ProducerConfig.from_options(
        {
            "security.protocol": "sasl_plaintext",
            "sasl.mechanisms": "scram-sha-512",
            "sasl.username": "alice",
            "sasl.password": "hunter2",
        }
    )
    assert made.sasl_mechanism == "SCRAM-SHA-512"
    assert (made.sasl_plain_username, made.sasl_plain_password) == ("alice", "hunter2")
    made = ProducerConfig.from_options(
        {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": "id",
            "sasl.oauthbearer.client.secret": "hunter2",
            "sasl.oauthbearer.token.endpoint.url": "https://idp/token",
            "sasl.oauthbearer.scope": "kafka",
            "sasl.oauthbearer.extensions": "logicalCluster=lkc-1,identityPoolId=pool-2",
        }
    )
    assert made.sasl_oauthbearer_client_credentials_client_id == "id"
    assert made.sasl_oauthbearer_extensions == {"logicalCluster": "lkc-1", "identityPoolId": "pool-2"}
    assert "hunter2" not in repr(made)


def test_jaas_of_plain_is_taken_over() -> None:
    made = make(sasl_jaas_config=f'{PLAIN} required username="alice" password="a\\"b;c=\\\\d";')
    assert (made.sasl_mechanism, made.sasl_plain_username) == ("PLAIN", "alice")
    assert made.sasl_plain_password == 'a"b;c=\\d'


@pytest.mark.parametrize(
    ("text", "mechanisms", "options"),
    [
        (
            f"{SCRAM} required\n  username='bob'\n  password=bare-word;",
            ("SCRAM-SHA-256", "SCRAM-SHA-512"),
            {"sasl_plain_username": "bob", "sasl_plain_password": "bare-word"},
        ),
        (
            f'{OAUTH} Required clientId="i" clientSecret="s" scope="kafka" ;',
            ("OAUTHBEARER",),
            {
                "sasl_oauthbearer_client_credentials_client_id": "i",
                "sasl_oauthbearer_client_credentials_client_secret": "s",
                "sasl_oauthbearer_scope": "kafka",
            },
        ),
        (
            'software.amazon.msk.auth.iam.IAMLoginModule required awsProfileName="dev" awsDebugCreds="true";',
            ("AWS_MSK_IAM", "OAUTHBEARER"),
            {"sasl_aws_profile": "dev"},
        ),
        (
            'com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true serviceName="kafka2"',
            ("GSSAPI",),
            {"sasl_kerberos_service_name": "kafka2"},
        ),
    ],
)
def test_jaas_of_other_modules(text: str, mechanisms: tuple[str, ...], options: dict[str, str]) -> None:
    entry = jaas.parse(text)
    assert (entry.mechanisms, entry.options) == (mechanisms, options)


def test_jaas_of_oauthbearer_may_have_extensions_and_unsecured_tokens() -> None:
    entry = jaas.parse(
        f'{OAUTH} required unsecuredLoginStringClaim_sub="alice" extension_logicalCluster="lkc-1";'
    )
    assert (entry.unsecured_subject, entry.extensions) == ("alice", {"logicalCluster": "lkc-1"})
    made = make(sasl_jaas_config=f'{OAUTH} required unsecuredLoginStringClaim_sub="alice";')
    assert made.sasl_oauthbearer_unsecured_subject == "alice"
    assert "<Sasl OAUTHBEARER>" in repr(Sasl(made))


def test_a_password_in_the_clear_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    make(sasl_mechanism="PLAIN", sasl_plain_username="u", sasl_plain_password="hunter2")
    assert "sends the password for everybody to read" in caplog.text
    assert "hunter2" not in caplog.text
