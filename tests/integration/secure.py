"""How to reach the secure cluster: options for each of its listeners, and who may do what there."""

from __future__ import annotations

from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from kprod import KafkaProducer, errors
from kprod.security.oauthbearer import UnsecuredTokens
from tests.certificates import PASSWORD, Certificate
from tests.kafka.cluster import USERS, KafkaCluster

SASL_LISTENERS = ("SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


def tls_options(cluster: KafkaCluster, listener: str, client: Certificate | None = None) -> dict[str, Any]:
    """kprod's options for a listener with TLS and without SASL.

    Args:
        cluster: it must be secure.
        listener: a name of ``SECURE_LISTENERS``.
        client: the certificate to show where MTLS asks for one, if it is not that of ``CLIENT_NAME``.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": cluster.servers(listener),
        "security_protocol": "SSL",
        "ssl_cafile": str(cluster.certificates.file),
    }
    if listener == "MTLS":
        shown = client or cluster.client_certificate
        options["ssl_certfile"] = str(shown.certificate)
        options["ssl_keyfile"] = str(shown.encrypted_key)
        options["ssl_password"] = PASSWORD
    return options


def sasl_options(
    cluster: KafkaCluster, listener: str = "SASL_PLAINTEXT", mechanism: str = "PLAIN", user: str = "admin"
) -> dict[str, Any]:
    """kprod's options for a listener with SASL, as one of ``USERS``."""
    options: dict[str, Any] = {
        "bootstrap_servers": cluster.servers(listener),
        "security_protocol": listener,
        "sasl_mechanism": mechanism,
    }
    if listener == "SASL_SSL":
        options["ssl_cafile"] = str(cluster.certificates.file)
    if mechanism == "OAUTHBEARER":
        options["sasl_oauth_token_provider"] = UnsecuredTokens(user)
    else:
        options["sasl_plain_username"] = user
        options["sasl_plain_password"] = USERS[user]
    return options


class Acls:
    """Gives permissions to somebody who has none, ``User:alice`` for instance; :meth:`end` takes them away.

    Args:
        cluster: it must be secure.
        principal: who gets them.
    """

    def __init__(self, cluster: KafkaCluster, principal: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 2})
        self._principal = principal

    def allow(self, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Allow operations on one resource. Every broker learns of it in its own time, and in order."""
        for operation in operations:
            binding = AclBinding(
                kind,
                name,
                ResourcePatternType.LITERAL,
                self._principal,
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for future in self._admin.create_acls([binding]).values():
                future.result()

    def end(self) -> None:
        """Take everything away."""
        everything = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            self._principal,
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for future in self._admin.delete_acls([everything]).values():
            future.result()


def is_written(producer: KafkaProducer, topic: str) -> bool:
    """Whether a record may be written; a permission is known to every broker in its own time."""
    try:
        producer.send(topic, b"x").get(30)
    except errors.TopicAuthorizationFailedError:
        return False
    return True


def commit_one_and_abort_one(producer: KafkaProducer, topic: str) -> None:
    """Two transactions of a record each; consumers that read what is committed get ``committed`` alone."""
    producer.init_transactions()
    with producer.transaction():
        producer.send(topic, b"committed")
    producer.begin_transaction()
    producer.send(topic, b"aborted").get(30)
    producer.abort_transaction()
