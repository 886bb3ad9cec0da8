"""What goes wrong between a serializer and a Schema Registry."""

from __future__ import annotations

from kprod.errors import KafkaError, RetriableError

# Confluent's error codes, from the reference of the Schema Registry API.
_ADVICE: dict[int, str] = {
    401: "check basic_auth or bearer_token",
    403: "grant these credentials write access to the subject (read access with auto_register_schemas=False)",
    404: "check that the URL has the path of the registry's Confluent-compatible API",
    409: "the schema breaks the subject's compatibility rule: change the schema, or the rule",
    422: "the registry refuses the schema: see its message",
    429: "the registry limits the rate of requests: share one SchemaRegistryClient between serializers",
    40401: "register a schema under this subject, or set auto_register_schemas=True",
    40402: "register that version, or refer to one that exists",
    40403: "register the schema under this subject, or set auto_register_schemas=True",
    42201: "the registry cannot read the schema or what it refers to: check its text, type and references",
    42205: "the subject is read-only: change its mode in the registry",
}


class SchemaRegistryError(KafkaError):
    """A Schema Registry refused a request, or answered what none answers.

    Args:
        reason: what the registry said.
        url: the request's URL, without credentials.
        subject: the subject it was about, if any.
        schema_id: the schema id it was about, if any.
        http_status: status of the response; None: there was none.
        error_code: Confluent's code, such as 40401; None: the body had none.
    """

    def __init__(
        self,
        reason: str,
        *,
        url: str | None = None,
        subject: str | None = None,
        schema_id: int | None = None,
        http_status: int | None = None,
        error_code: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.url = url
        self.subject = subject
        self.schema_id = schema_id
        self.http_status = http_status
        self.error_code = error_code

    def advice(self) -> str | None:
        """What to do about it, as far as the code tells."""
        for code in (self.error_code, self.http_status):
            if code in _ADVICE:
                return _ADVICE[code]
        return None

    def _message(self) -> str:
        about = [
            f"{name} {value}"
            for name, value in (
                ("subject", self.subject),
                ("schema id", self.schema_id),
                ("HTTP", self.http_status),
                ("error code", self.error_code),
                ("at", self.url),
            )
            if value is not None
        ]
        text = super()._message() + (f" [{', '.join(about)}]" if about else "")
        advice = self.advice()
        return f"{text}: {advice}" if advice else text


class SchemaRegistryUnavailableError(SchemaRegistryError, RetriableError):
    """None of the registry's URLs gave an answer within the retries: not reached, timed out, or HTTP 5xx."""

    def advice(self) -> str | None:
        """What to do about it."""
        return (
            super().advice()
            or "check the URL, that the registry runs and can be reached from here, and its TLS settings"
        )


class SerializationError(KafkaError, ValueError):
    """An object does not fit its schema, or the schema cannot be used; the record was not sent.

    The library's own exception is its ``__cause__``.
    """
