"""AWS MSK IAM: OAUTHBEARER with tokens that AWS's own package signs with AWS credentials."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

from kprod.errors import TokenUnavailableError
from kprod.security.oauthbearer import Token, TokenProvider, checked

# Loggers of AWS's library that write, at the level DEBUG, what is signed with which signature, and the
# answers of STS: the token, and secret keys.
_TALKATIVE: Final = (
    "botocore.auth",
    "botocore.endpoint",
    "botocore.hooks",
    "botocore.httpsession",
    "botocore.parsers",
    "botocore.retryhandler",
)


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
            with _without_debug_records():
                if role_arn is not None:
                    value, _ = signer.generate_auth_token_from_role_arn(region, role_arn, "kprod")
                elif profile is not None:
                    value, _ = signer.generate_auth_token_from_profile(region, profile)
                else:
                    value, _ = signer.generate_auth_token(region)
        except Exception as error:
            raise TokenUnavailableError(_reason(error, profile, role_arn)) from error
        return checked(value, {}, "AWS's signer")

    return provide


def _reason(error: Exception, profile: str | None, role_arn: str | None) -> str:
    """Why there is no token, and what to do.

    By the names of botocore's exceptions: their texts may have more in them than should be shown.
    """
    name = type(error).__name__
    if name == "ProfileNotFound":
        return f"the AWS configuration has no profile sasl_aws_profile={profile!r}: see ~/.aws/config"
    if name == "NoRegionError":
        return (
            f"to assume sasl_aws_role_arn={role_arn!r} AWS's library needs a region of its own: set "
            "AWS_DEFAULT_REGION, or region in ~/.aws/config"
        )
    if name == "ClientError":
        code = getattr(error, "response", {}).get("Error", {}).get("Code", "no reason")
        return (
            f"AWS refuses sasl_aws_role_arn={role_arn!r} ({code}): the role's trust policy must name who "
            "assumes it, and that one needs the permission sts:AssumeRole"
        )
    # Where there are no credentials at all, AWS's signer fails on None.
    found = "no AWS credentials" if isinstance(error, AttributeError) else f"no AWS credentials ({name})"
    return (
        f"{found} to sign a token with: AWS's package searches the environment (AWS_ACCESS_KEY_ID), the "
        "files in ~/.aws, and the instance's or container's role; sasl_aws_profile and sasl_aws_role_arn "
        "name others"
    )


@contextlib.contextmanager
def _without_debug_records() -> Iterator[None]:
    """In this thread, botocore's loggers write nothing below INFO that could have secrets in it."""
    thread = threading.get_ident()

    def is_shown(record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG or record.thread != thread

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(is_shown)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_shown)
