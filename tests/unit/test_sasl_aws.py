"""Tokens for AWS MSK, signed by AWS's own package (offline: signing asks nobody)."""

from __future__ import annotations

import calendar
import hashlib
import hmac
import logging
import os
import re
import time
from base64 import urlsafe_b64decode
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError, NoRegionError

from kprod import KafkaProducer
from kprod.errors import TokenUnavailableError
from kprod.security import aws_msk_iam
from kprod.testing import MockCluster
from kprod.testing.broker.sasl import SaslSession


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("b-1.demo.abc123.c2.kafka.eu-central-1.amazonaws.com", "eu-central-1"),
        ("boot-x.c1.kafka-serverless.us-east-1.amazonaws.com", "us-east-1"),
        ("localhost", None),
    ],
)
def test_the_region_is_in_the_host_name(
    host: str, region: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    assert aws_msk_iam.region_of([host]) == region
    monkeypatch.setenv("AWS_REGION", "from-environment")
    assert aws_msk_iam.region_of(["localhost"]) == "from-environment"


# --- the token: a signed URL, computed once more by hand from AWS's description of Signature Version 4


def signing_key(secret: str, *scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def signature(secret: str, date: str, scope: tuple[str, ...], canonical_request: str) -> str:
    digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", date, "/".join(scope), digest))
    return hmac.new(signing_key(secret, *scope), text.encode(), "sha256").hexdigest()


def test_the_computation_by_hand_gives_what_aws_has_published() -> None:
    """AWS General Reference, Signature Version 4: the example ListUsers of IAM."""
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    scope = ("20150830", "us-east-1", "iam", "aws4_request")
    key = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
    assert signing_key(secret, *scope).hex() == key
    request = "\n".join(
        (
            "GET",
            "/",
            "Action=ListUsers&Version=2010-05-08",
            "content-type:application/x-www-form-urlencoded; charset=utf-8",
            "host:iam.amazonaws.com",
            "x-amz-date:20150830T123600Z",
            "",
            "content-type;host;x-amz-date",
            hashlib.sha256(b"").hexdigest(),
        )
    )
    expected = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    assert signature(secret, "20150830T123600Z", scope, request) == expected


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No credentials anywhere; returns the path of the file for them."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # keeps what it has found
    return tmp_path / "credentials"


def signed_url(token: str) -> str:
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)  # base64url without padding
    return urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()


@pytest.mark.parametrize("region", ["eu-central-1", "us-gov-west-1"])
@pytest.mark.parametrize("session", [None, "session+token/with==characters"])
def test_the_signature_is_that_of_aws(
    aws: Path, monkeypatch: pytest.MonkeyPatch, region: str, session: str | None
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    if session is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", session)
    before = int(time.time())
    url = urlsplit(signed_url(aws_msk_iam.aws_tokens(region, None, None)().value))
    fields = {name: values[0] for name, values in parse_qs(url.query, strict_parsing=True).items()}
    assert (url.scheme, url.netloc, url.path) == ("https", f"kafka.{region}.amazonaws.com", "/")
    date = fields["X-Amz-Date"]
    assert before <= calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ")) <= time.time()
    scope = (date[:8], region, "kafka-cluster", "aws4_request")
    found = fields.pop("X-Amz-Signature")
    assert fields.pop("User-Agent").startswith("aws-msk-iam-sasl-signer-python/")  # after signing
    assert fields == {
        "Action": "kafka-cluster:Connect",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": "/".join(("AKIDEXAMPLE", *scope)),
        "X-Amz-Date": date,
        "X-Amz-Expires": "900",
        "X-Amz-SignedHeaders": "host",
        **({"X-Amz-Security-Token": session} if session is not None else {}),
    }
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(fields.items()))
    empty = hashlib.sha256(b"").hexdigest()
    request = "\n".join(("GET", "/", query, f"host:{url.netloc}", "", "host", empty))
    assert found == signature("wJalrXUtnFEMI/K7MDENG", date, scope, request)


def test_a_profile_is_taken_from_the_files_of_aws(aws: Path) -> None:
    aws.write_text("[orders]\naws_access_key_id = AKIDORDERS\naws_secret_access_key = hunter2\n")
    url = signed_url(aws_msk_iam.aws_tokens("eu-central-1", "orders", None)().value)
    assert "X-Amz-Credential=AKIDORDERS%2F" in url
    assert "hunter2" not in url


def test_every_authentication_signs_a_token_of_its_own(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are valid for 900 s, sessions for longer (KIP-368): none is kept."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    made: list[str] = []
    received: list[str] = []
    signer = aws_msk_iam.load()
    generate = signer.generate_auth_token

    def record(region: str) -> tuple[str, int]:
        token, expires_at = generate(region)
        made.append(token)
        # A role's keys change while a producer runs, too: the next token is signed with the new ones.
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"AKIDEXAMPLE{len(made)}")
        return token, expires_at

    def accept(self: SaslSession, token: bytes) -> None:
        received.append(token.decode().split("auth=Bearer ")[1].split("\x01")[0])
        self._exchange = None

    monkeypatch.setattr(signer, "generate_auth_token", record)
    monkeypatch.setattr(SaslSession, "_oauthbearer", accept)
    with MockCluster(sasl_users={}, max_reauth_ms=300) as cluster:
        cluster.create_topic("t")
        with KafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="AWS_MSK_IAM",
            sasl_aws_region="eu-central-1",
        ) as producer:
            deadline = time.monotonic() + 20
            sent = 0
            while len(received) < 4:
                producer.send("t", b"x").get(20)
                sent += 1
                assert time.monotonic() < deadline
        assert cluster.count("t") == sent
    # Two connections may authenticate at a time, with the same keys in the same second.
    assert len(made) >= len(received)
    assert set(received) <= set(made)
    assert "AKIDEXAMPLE%2F" in signed_url(made[0])
    assert "AKIDEXAMPLE%2F" not in signed_url(made[-1])


# --- what is missing


@pytest.mark.parametrize(
    ("profile", "role", "text"),
    [
        (None, None, r"no AWS credentials to sign a token with: .* \(AWS_ACCESS_KEY_ID\).*~/\.aws"),
        ("no-such-profile", None, r"no profile sasl_aws_profile='no-such-profile': see ~/\.aws/config"),
        (None, "arn:aws:iam::1:role/r", r"no AWS credentials \(NoCredentialsError\)"),
    ],
)
def test_without_aws_credentials_the_error_says_what_to_do(
    aws: Path, profile: str | None, role: str | None, text: str
) -> None:
    with pytest.raises(TokenUnavailableError, match=text) as caught:
        aws_msk_iam.aws_tokens("eu-central-1", profile, role)()
    assert caught.value.retriable
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NoRegionError(), "set AWS_DEFAULT_REGION, or region in ~/.aws/config"),
        (
            ClientError({"Error": {"Code": "AccessDenied", "Message": "hunter2"}}, "AssumeRole"),
            r"AWS refuses sasl_aws_role_arn='arn:r' \(AccessDenied\): .* the permission sts:AssumeRole",
        ),
    ],
)
def test_a_role_that_cannot_be_assumed(monkeypatch: pytest.MonkeyPatch, error: Exception, text: str) -> None:
    def fails(*_: str) -> None:
        raise error

    monkeypatch.setattr(aws_msk_iam.load(), "generate_auth_token_from_role_arn", fails)
    with pytest.raises(TokenUnavailableError, match=text) as caught:
        aws_msk_iam.aws_tokens("eu-central-1", None, "arn:r")()
    assert "hunter2" not in str(caught.value)


def test_botocore_logs_again_afterwards(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    before = {name: list(logging.getLogger(name).filters) for name in aws_msk_iam._TALKATIVE}
    aws_msk_iam.aws_tokens("eu-central-1", None, None)()
    assert {name: logging.getLogger(name).filters for name in before} == before
