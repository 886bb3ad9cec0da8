"""What the options say about SASL, as something that makes a mechanism for each authentication."""

from __future__ import annotations

from typing import Any

from kprod.config import ProducerConfig
from kprod.errors import IllegalStateError, KafkaConfigurationError
from kprod.security import aws_msk_iam, gssapi
from kprod.security.credentials import Credentials, Source
from kprod.security.gssapi import Gssapi
from kprod.security.mechanism import Mechanism
from kprod.security.oauthbearer import OAuthBearer, TokenProvider, UnsecuredTokens, token_provider
from kprod.security.oidc import Assertion, TokenEndpoint
from kprod.security.plain import Plain
from kprod.security.scram import Scram


class Sasl:
    """Makes mechanisms. Any thread may use it.

    Args:
        config: the checked options.

    Raises:
        KafkaConfigurationError: a package that the mechanism needs is missing.
    """

    def __init__(self, config: ProducerConfig) -> None:
        assert config.sasl_mechanism is not None
        self._config = config
        self._mechanism = config.sasl_mechanism
        self._credentials: Credentials | None = None
        self._tokens: TokenProvider | None = None
        try:
            if self._mechanism == "PLAIN" or self._mechanism.startswith("SCRAM"):
                self._credentials = Credentials(config.sasl_plain_username, config.sasl_plain_password)
            elif self._mechanism == "GSSAPI":
                gssapi.load()
            else:
                self._tokens = _token_provider(config)
        except ImportError as error:
            raise KafkaConfigurationError(str(error)) from error

    def __repr__(self) -> str:
        return f"<Sasl {self._mechanism}>"

    @property
    def takes_time(self) -> bool:
        """Whether getting the credentials may take long."""
        return self._credentials is None or self._credentials.are_asked_for

    @property
    def advice(self) -> str:
        """What to look at when a broker refuses the credentials."""
        if self._mechanism == "GSSAPI":
            return "check the ticket (klist) and sasl_kerberos_service_name"
        if self._mechanism == "AWS_MSK_IAM":
            return "check that the AWS identity has kafka-cluster:Connect on the cluster, and the region"
        if self._credentials is None:
            return "check who issues the tokens, for which audience and scope, and both clocks"
        name = self._config.sasl_plain_username
        who = f" (it is {name!r})" if isinstance(name, str) else ""
        return f"check sasl_plain_username{who} and sasl_plain_password"

    def mechanism(self, host: str) -> Mechanism:
        """A mechanism for one authentication with the broker on this host."""
        config = self._config
        if self._tokens is not None:
            return OAuthBearer(self._tokens)
        if self._credentials is None:
            return Gssapi(
                config.sasl_kerberos_service_name,
                config.sasl_kerberos_domain_name or host,
                config.sasl_kerberos_name,
            )
        if self._mechanism == "PLAIN":
            return Plain(self._credentials)
        return Scram(self._mechanism, self._credentials)

    def set_credentials(self, username: Source, password: Source) -> None:
        """Use these from the next authentication on.

        Raises:
            IllegalStateError: the mechanism has no user name and password.
        """
        if self._credentials is None:
            raise IllegalStateError(
                f"sasl_mechanism={self._mechanism!r} has no user name and password to set"
            )
        self._credentials.set(username, password)


def _token_provider(config: ProducerConfig) -> TokenProvider:
    if config.sasl_mechanism == "AWS_MSK_IAM":
        region = config.sasl_aws_region or aws_msk_iam.region_of(host for host, _ in config.bootstrap_servers)
        if region is None:
            raise KafkaConfigurationError(
                "sasl_mechanism='AWS_MSK_IAM' needs sasl_aws_region: neither bootstrap_servers nor "
                "AWS_REGION tell it"
            )
        return aws_msk_iam.aws_tokens(region, config.sasl_aws_profile, config.sasl_aws_role_arn)
    extensions = config.sasl_oauthbearer_extensions
    given: Any = config.sasl_oauth_token_provider
    if given is None and config.sasl_oauthbearer_unsecured_subject is not None:
        given = UnsecuredTokens(config.sasl_oauthbearer_unsecured_subject)
    if given is not None:
        return token_provider(given, extensions)
    assert config.sasl_oauthbearer_token_endpoint_url is not None
    return TokenEndpoint(
        config.sasl_oauthbearer_token_endpoint_url,
        config.sasl_oauthbearer_client_credentials_client_id,
        config.sasl_oauthbearer_client_credentials_client_secret,
        config.sasl_oauthbearer_scope,
        urlencode=config.sasl_oauthbearer_header_urlencode,
        assertion=_assertion(config),
        extensions=extensions,
        timeouts=(
            _seconds(config.sasl_login_connect_timeout_ms),
            _seconds(config.sasl_login_read_timeout_ms),
        ),
        backoff=(config.sasl_login_retry_backoff_ms / 1000, config.sasl_login_retry_backoff_max_ms / 1000),
    )


def _assertion(config: ProducerConfig) -> Assertion | None:
    file = config.sasl_oauthbearer_assertion_file
    key = config.sasl_oauthbearer_assertion_private_key_file
    if file is None and key is None:
        return None
    claims = {
        "aud": config.sasl_oauthbearer_assertion_claim_aud,
        "iss": config.sasl_oauthbearer_assertion_claim_iss,
        "sub": config.sasl_oauthbearer_assertion_claim_sub,
    }
    return Assertion(
        file,
        key,
        config.sasl_oauthbearer_assertion_private_key_passphrase,
        config.sasl_oauthbearer_assertion_algorithm,
        {name: value for name, value in claims.items() if value is not None},
        config.sasl_oauthbearer_assertion_claim_exp_seconds,
        config.sasl_oauthbearer_assertion_claim_nbf_seconds,
        config.sasl_oauthbearer_assertion_claim_jti_include,
    )


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
