"""AWS MSK IAM: OAUTHBEARER with tokens that AWS's own package signs with AWS credentials."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable
from typing import Any

from kprod.errors import TokenUnavailableError
from kprod.security.oauthbearer import Token, TokenProvider, checked


def load() -> Any:
    """AWS's signer.

    Raises:
        ImportError: it is missing; says what to install.
    """
    try:
        return importlib.import_module("aws_msk_iam_sasl_signer.MSKAuthTokenProvider")
    except ImportError as error:
        raise ImportError(
            "sasl_mechanism='AWS_MSK_IAM' needs the package aws-msk-iam-sasl-signer-python: "
            "pip install 'kprod[aws]'"
        ) from error


def region_of(hosts: Iterable[str]) -> str | None:
    """The AWS region that brokers are in, by their host names, or else by the environment."""
    for host in hosts:
        found = re.search(r"\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com", host)
        if found:
            return found[1]
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def aws_tokens(region: str, profile: str | None, role_arn: str | None) -> TokenProvider:
    """Tokens for a region's MSK clusters.

    Args:
        region: AWS region.
        profile: profile of the AWS configuration; None: AWS's usual search for credentials.
        role_arn: a role to assume.
    """
    signer = load()

    def provide() -> Token:
        try:
            if role_arn is not None:
                value, _ = signer.generate_auth_token_from_role_arn(region, role_arn, "kprod")
            elif profile is not None:
                value, _ = signer.generate_auth_token_from_profile(region, profile)
            else:
                value, _ = signer.generate_auth_token(region)
        except Exception as error:
            raise TokenUnavailableError(
                f"no AWS credentials to sign a token with: {type(error).__name__}; AWS's package searches "
                "the environment, the files in ~/.aws, and the instance's or container's role "
                "(sasl_aws_profile, sasl_aws_role_arn)"
            ) from error
        return checked(value, {}, "AWS's signer")

    return provide
