"""Tokens for AWS MSK, signed by AWS's own package (offline: signing asks nobody)."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Any

import pytest

from kprod.errors import TokenUnavailableError
from kprod.security import aws_msk_iam


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


def test_aws_tokens_are_signed_by_aws_own_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    token = aws_msk_iam.aws_tokens("eu-central-1", None, None)()
    url = urlsafe_b64decode(token.value + "=" * (-len(token.value) % 4)).decode()
    assert url.startswith("https://kafka.eu-central-1.amazonaws.com/?Action=kafka-cluster%3AConnect")
    assert "hunter2" not in url


def test_without_aws_credentials_the_error_says_where_they_are_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    with pytest.raises(TokenUnavailableError, match=r"sasl_aws_profile, sasl_aws_role_arn"):
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        aws_msk_iam.aws_tokens("eu-central-1", "no-such-profile", None)()
