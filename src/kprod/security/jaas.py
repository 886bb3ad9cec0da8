"""Java's ``sasl.jaas.config``: what it says, in this library's options."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_ENTRY: Final = re.compile(
    r"""\s*(?P<module>[\w.$]+)\s+(?:required|requisite|sufficient|optional)(?P<options>.*?);?\s*\Z""",
    re.DOTALL | re.IGNORECASE,
)
_OPTION: Final = re.compile(
    r"""\s*(?P<name>[\w.$-]+)\s*=\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<bare>[^\s;"']+))""",
    re.DOTALL,
)

_RENAMED: Final = {
    "PlainLoginModule": {"username": "sasl_plain_username", "password": "sasl_plain_password"},
    "ScramLoginModule": {"username": "sasl_plain_username", "password": "sasl_plain_password"},
    "OAuthBearerLoginModule": {
        "clientId": "sasl_oauthbearer_client_credentials_client_id",
        "clientSecret": "sasl_oauthbearer_client_credentials_client_secret",
        "scope": "sasl_oauthbearer_scope",
    },
    "IAMLoginModule": {"awsProfileName": "sasl_aws_profile", "awsRoleArn": "sasl_aws_role_arn"},
    "Krb5LoginModule": {"serviceName": "sasl_kerberos_service_name"},
}
_MECHANISMS: Final = {
    "PlainLoginModule": ("PLAIN",),
    "ScramLoginModule": ("SCRAM-SHA-256", "SCRAM-SHA-512"),
    "OAuthBearerLoginModule": ("OAUTHBEARER",),
    "IAMLoginModule": ("AWS_MSK_IAM", "OAUTHBEARER"),
    "Krb5LoginModule": ("GSSAPI",),
}


class JaasError(ValueError):
    """The text cannot be used; the message says why, without values."""


class JaasEntry(NamedTuple):
    """What an entry says."""

    mechanisms: tuple[str, ...]
    """The mechanisms that its login module is for; one of them is meant."""
    options: dict[str, str]
    """By the names of this library's options."""
    extensions: dict[str, str]
    """SASL extensions of OAUTHBEARER."""
    unsecured_subject: str | None
    """Use unsecured tokens for this subject."""

    def __repr__(self) -> str:
        return f"<JaasEntry {', '.join(self.mechanisms)}>"


def parse(text: str) -> JaasEntry:
    """Read one entry, as in ``org...PlainLoginModule required username="..." password="...";``.

    Raises:
        JaasError: it is not written so, or the login module is not known.
    """
    entry = _ENTRY.match(text)
    if entry is None:
        raise JaasError("it is not written as 'module required name=\"value\" ...;'")
    module = entry["module"].rpartition(".")[2]
    if module not in _MECHANISMS:
        raise JaasError(f"the login module {module} is not known, only {', '.join(_MECHANISMS)}")
    given: dict[str, str] = {}
    rest = entry["options"]
    while rest.strip():
        option = _OPTION.match(rest)
        if option is None:
            raise JaasError('after the login module it must have name="value" pairs and end with a semicolon')
        value = option["bare"]
        if value is None:
            value = re.sub(
                r"\\(.)", r"\1", option["double"] if option["double"] is not None else option["single"]
            )
        given[option["name"]] = value
        rest = rest[option.end() :]
    renamed = _RENAMED[module]
    return JaasEntry(
        _MECHANISMS[module],
        {renamed[name]: value for name, value in given.items() if name in renamed},
        {
            name.removeprefix("extension_"): value
            for name, value in given.items()
            if name.startswith("extension_")
        },
        given.get("unsecuredLoginStringClaim_sub"),
    )
