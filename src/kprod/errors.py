"""Everything kprod raises, and the one table of Kafka's broker error codes.

The names are kafka-python's, so that existing ``except`` clauses keep working. Three families share the root
:class:`KafkaError`:

* errors of the client itself (:class:`KafkaTimeoutError`, :class:`KafkaConfigurationError`, ...);
* :class:`BrokerResponseError`: a broker answered with an error code; one class per code of Apache Kafka 4.4;
* base classes that say what can be done: :class:`RetriableError`, :class:`InvalidMetadataError`,
  :class:`AuthorizationError`, :class:`AuthenticationFailedError`.

The class statements of the broker errors *are* the table of codes: each gives its code, Kafka's own name of
it and how a producer treats it. :data:`BROKER_ERRORS`, :func:`for_code`, :func:`name_for_code` and
:func:`error_flags` are views of it. The classification is the Java client's
(``org.apache.kafka.common.protocol.Errors`` and the producer's ``TransactionManager``, 4.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

if TYPE_CHECKING:
    from kprod._core.bulk_future import BulkDeliveryFuture

Persisted = Literal["no", "possibly", "yes"]
"""Whether a failed record is in the partition's log: surely not, perhaps (the broker got the request but its
answer did not arrive), or surely."""

_PERSISTED_TEXT: Mapping[str, str] = {
    "no": "record not written",
    "possibly": "record may have been written",
    "yes": "record was written",
}


class KafkaError(RuntimeError):
    """Root of everything kprod raises.

    It is a ``RuntimeError``, as in kafka-python 2 and aiokafka. Two errors are equal when class and arguments
    are; they are hashable, can be pickled and copied, and keep their context then.

    Args:
        *args: the message, usually one string.
        topic: the topic the failed record or request was for.
        partition: the partition, if one was chosen.
        broker: the broker as text, for example ``"1 at kafka-1:9092"``.
        persisted: whether the record may be in the log all the same (see :data:`Persisted`).

    Raises:
        ValueError: ``persisted`` is not one of ``'no'``, ``'possibly'``, ``'yes'``, ``None``.
    """

    retriable: ClassVar[bool] = False
    """Whether the same operation can succeed when it is tried again."""

    invalid_metadata: ClassVar[bool] = False
    """Whether the error means that the client's picture of the cluster is out of date."""

    topic: str | None
    partition: int | None
    broker: str | None
    persisted: Persisted | None

    appended: int | None = None
    """How many records ``send_many()``, ``send_columns()`` or ``send_table()`` had appended when this error
    ended the call; ``None``: the error is not from there, or came before the first record."""

    future: BulkDeliveryFuture | None = None
    """What becomes of those records; the others have failed in it with this error."""

    def __init__(
        self,
        *args: object,
        topic: str | None = None,
        partition: int | None = None,
        broker: str | None = None,
        persisted: Persisted | None = None,
    ) -> None:
        if persisted is not None and persisted not in _PERSISTED_TEXT:
            raise ValueError(f"persisted must be 'no', 'possibly', 'yes' or None, not {persisted!r}")
        super().__init__(*args)
        self.topic = topic
        self.partition = partition
        self.broker = broker
        self.persisted = persisted

    def _message(self) -> str:
        """The message without class name and context."""
        return super().__str__()

    def _context(self) -> str:
        """The context as text, '' when there is none."""
        parts = []
        if self.topic is not None:
            parts.append(f"topic {self.topic}")
        if self.partition is not None:
            parts.append(f"partition {self.partition}")
        if self.broker is not None:
            parts.append(f"broker {self.broker}")
        if self.persisted is not None:
            parts.append(_PERSISTED_TEXT[self.persisted])
        if not parts:
            return ""
        if self.persisted == "yes":
            parts.append("do not send it again")
        elif not self.retriable:
            parts.append("a retry will not help")
        elif self.persisted == "possibly":
            parts.append("a retry may help but could write it twice")
        else:
            parts.append("a retry may help")
        return f" ({', '.join(parts)})"

    def __str__(self) -> str:
        message = self._message()
        name = type(self).__name__
        return f"{name}: {message}{self._context()}" if message else f"{name}{self._context()}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KafkaError):
            return NotImplemented
        return type(self) is type(other) and self.args == other.args

    def __hash__(self) -> int:
        try:
            return hash((type(self), self.args))
        except TypeError:  # an argument is unhashable, for example a list of hosts
            return hash(type(self))


# --- What can be done about it ------------------------------------------------------------------------------


class RetriableError(KafkaError):
    """The same operation can succeed when it is tried again."""

    retriable = True


class InvalidMetadataError(RetriableError):
    """The client's picture of the cluster is out of date: refresh it, then try again."""

    invalid_metadata = True


# --- Errors of the client -----------------------------------------------------------------------------------


class KafkaConfigurationError(KafkaError, ValueError):
    """An option has a value that is not accepted, or options contradict each other. Constructors raise it."""


class UnknownOptionError(KafkaConfigurationError):
    """There is no option of this name. The message gives the nearest name there is."""


class IllegalArgumentError(KafkaError, ValueError):
    """A method was given an argument that Kafka's rules exclude."""


class IllegalStateError(KafkaError):
    """The method is not allowed in the producer's present state."""


class ProducerClosedError(IllegalStateError):
    """The producer is closed, or was closed before the record was delivered."""


class ForkedProcessError(IllegalStateError):
    """The producer was made in another process, before a fork: its threads and connections stayed there."""


class KafkaTimeoutError(RetriableError):
    """``max_block_ms``, ``delivery_timeout_ms`` or the ``timeout`` of a call ran out."""


class NoBrokersAvailable(KafkaTimeoutError):
    """None of the bootstrap servers could be reached. The message gives the reason for each."""


class BufferExhaustedError(KafkaTimeoutError):
    """``buffer_memory`` stayed full for ``max_block_ms``: records come faster than the brokers take them."""


class KafkaConnectionError(InvalidMetadataError):
    """A connection could not be made, or was lost."""


class NodeNotReadyError(RetriableError):
    """There is no usable connection to the broker yet."""


class TooManyInFlightRequests(RetriableError):
    """``max_in_flight_requests_per_connection`` requests are waiting for answers of the broker already."""


class StaleMetadata(InvalidMetadataError):
    """The metadata used are no longer the current ones."""


class MetadataEmptyBrokerList(RetriableError):
    """A broker answered with metadata that list no brokers."""


class UnknownBrokerIdError(KafkaError):
    """The metadata do not contain a broker with this id."""


class QuotaViolationError(KafkaError):
    """A metric went over its quota."""


class UnrecognizedBrokerVersion(KafkaError):
    """The broker's version could not be determined."""


class UnsupportedCodecError(KafkaError):
    """The compression codec is not known or its library is missing."""


class KafkaProtocolError(KafkaError):
    """A peer sent bytes that are not a valid Kafka message. The connection is closed."""


class CorrelationIdError(RetriableError, KafkaProtocolError):
    """A response does not belong to the request that was expected to be answered next."""


class InvalidReceiveError(KafkaProtocolError):
    """A peer announced a frame with an impossible length."""


class PurgedError(KafkaError):
    """The record was dropped by ``purge()`` before it was delivered."""


class InvalidDifferentRecordError(RetriableError):
    """The record was not written because *another* record of its batch was refused (KIP-467).

    Nothing is known to be wrong with this one: it can be sent again.
    """


class TransactionAbortedError(KafkaError):
    """The record was dropped because its transaction was aborted (KIP-654). The producer remains usable."""


class Cancelled(RetriableError):
    """The request was cancelled before it was sent or answered."""


class CommitFailedError(KafkaError):
    """Offsets could not be committed: the group has given the partitions to another member."""


class AuthenticationFailedError(KafkaError):
    """The broker did not accept the client's credentials, or SASL could not be agreed upon."""


class TlsError(AuthenticationFailedError):
    """TLS could not be agreed upon with a broker. Subclasses say what was wrong."""


class CertificateNotTrustedError(TlsError):
    """The broker's certificate is not signed by an authority that this client trusts."""


class CertificateExpiredError(TlsError):
    """The broker's certificate, or one it depends on, is not valid any more, or not yet."""


class CertificateRevokedError(TlsError):
    """The broker's certificate is in the list of revoked certificates, or there is no list for it."""


class HostNameMismatchError(TlsError):
    """The broker's certificate is for another host than the one connected to."""


class ClientCertificateRequiredError(TlsError):
    """The broker asks for a client certificate, and there is none: ssl_certfile is not set."""


class ClientCertificateRefusedError(TlsError):
    """The broker does not accept the client's certificate."""


class TlsNegotiationError(TlsError):
    """Client and broker have no TLS version, or no cipher suite, in common."""


class PlaintextListenerError(TlsError):
    """security_protocol asks for TLS, and the listener does not speak it."""


class TlsListenerError(TlsError):
    """security_protocol asks for plaintext, and the listener speaks TLS."""


class FailedPayloadsError(KafkaError):
    """Kept for old imports (kafka-python 1); kprod reports each record's own error instead."""


# --- Errors brokers answer with -----------------------------------------------------------------------------


class BrokerError(NamedTuple):
    """A line of the table of broker error codes."""

    code: int
    """The number on the wire."""
    name: str
    """Kafka's own name, for example ``NOT_LEADER_OR_FOLLOWER``."""
    error: type[BrokerResponseError]
    """The exception class."""
    retriable: bool
    """The request can be repeated."""
    refresh_metadata: bool
    """Metadata must be refreshed before it is."""
    fatal: bool
    """An idempotent or transactional producer cannot go on after it."""
    abortable: bool
    """A transactional producer must abort its transaction, and can then go on."""
    description: str
    """One sentence about what it means."""


_registry: dict[int, BrokerError] = {}


class BrokerResponseError(KafkaError):
    """A broker answered with an error code.

    Subclasses for a code are declared with class keywords: ``code`` and ``name`` put them into the table,
    ``fatal`` and ``abortable`` say what a producer must do; retriable and refresh follow from the bases.
    """

    errno: ClassVar[int | None] = None
    """The error code."""

    message: ClassVar[str | None] = None
    """Kafka's own name of the code."""

    description: ClassVar[str | None] = None
    """One sentence about what it means."""

    def __init_subclass__(
        cls, *, code: int | None = None, name: str | None = None, fatal: bool = False, abortable: bool = False
    ) -> None:
        super().__init_subclass__()
        if code is None or name is None:
            return
        if code in _registry:
            raise TypeError(
                f"error code {code} is declared twice: {_registry[code].error.__name__}, {cls.__name__}"
            )
        description = cls.description or ""
        cls.errno = code
        cls.message = name
        cls.__doc__ = description
        _registry[code] = BrokerError(
            code, name, cls, cls.retriable, cls.invalid_metadata, fatal, abortable, description
        )

    def _message(self) -> str:
        return super()._message() or self.description or ""

    def __str__(self) -> str:
        return f"[Error {self.errno}] {super().__str__()}"


class AuthorizationError(BrokerResponseError):
    """The principal lacks a permission (base class). The text says which ACL gives it."""

    acl: ClassVar[str] = ""
    """What ``kafka-acls --add`` takes to allow it; ``{}`` stands for the resource."""

    resource: str | None = None
    """The transactional id or group, where it is about one; topics are in :attr:`topic`."""

    def _message(self) -> str:
        message = super()._message()
        if not self.acl or "kafka-acls" in message:
            return message
        resource = self.resource or self.topic or "NAME"
        return (
            f"{message.rstrip('.')}; who administers the cluster can allow it: kafka-acls --bootstrap-server "
            f"HOST:PORT --add --allow-principal User:NAME {self.acl.format(resource)}"
        )


class UnknownError(BrokerResponseError, code=-1, name="UNKNOWN_SERVER_ERROR"):
    description = "The broker failed in a way it has no error code for; its log says more."


class NoError(BrokerResponseError, code=0, name="NONE"):
    description = "No error; never raised."


class OffsetOutOfRangeError(BrokerResponseError, code=1, name="OFFSET_OUT_OF_RANGE"):
    description = "The offset asked for is outside the range the broker keeps for this partition."


class CorruptRecordError(RetriableError, BrokerResponseError, code=2, name="CORRUPT_MESSAGE"):
    description = (
        "The record batch failed its CRC check, or its size or content is malformed; or a "
        "keyless record went to a compacted topic."
    )


class UnknownTopicOrPartitionError(
    InvalidMetadataError, BrokerResponseError, code=3, name="UNKNOWN_TOPIC_OR_PARTITION"
):
    description = "The broker does not host this topic or partition (yet, or any more)."


class InvalidFetchRequestError(BrokerResponseError, code=4, name="INVALID_FETCH_SIZE"):
    description = "The fetch size asked for is invalid."


class LeaderNotAvailableError(InvalidMetadataError, BrokerResponseError, code=5, name="LEADER_NOT_AVAILABLE"):
    description = "The partition has no leader at the moment: an election is under way."


class NotLeaderOrFollowerError(
    InvalidMetadataError, BrokerResponseError, code=6, name="NOT_LEADER_OR_FOLLOWER"
):
    description = "The broker is not the partition's leader: the client's metadata is out of date."


class RequestTimedOutError(RetriableError, BrokerResponseError, code=7, name="REQUEST_TIMED_OUT"):
    description = "The broker could not finish the request in time, for example waiting for replicas."


class BrokerNotAvailableError(BrokerResponseError, code=8, name="BROKER_NOT_AVAILABLE"):
    description = "The broker is not available."


class ReplicaNotAvailableError(
    InvalidMetadataError, BrokerResponseError, code=9, name="REPLICA_NOT_AVAILABLE"
):
    description = "The replica is not available on this broker."


class MessageSizeTooLargeError(BrokerResponseError, code=10, name="MESSAGE_TOO_LARGE"):
    description = (
        "The record or batch is larger than the limit of the topic (max.message.bytes), the "
        "broker or the client accepts."
    )


class StaleControllerEpochError(BrokerResponseError, code=11, name="STALE_CONTROLLER_EPOCH"):
    description = "The controller that asked has been replaced by a newer one."


class OffsetMetadataTooLargeError(BrokerResponseError, code=12, name="OFFSET_METADATA_TOO_LARGE"):
    description = "The metadata text committed with the offset is too long."


class NetworkExceptionError(InvalidMetadataError, BrokerResponseError, code=13, name="NETWORK_EXCEPTION"):
    description = "The broker disconnected before it answered."


class CoordinatorLoadInProgressError(
    RetriableError, BrokerResponseError, code=14, name="COORDINATOR_LOAD_IN_PROGRESS"
):
    description = "The coordinator is still loading its state."


class CoordinatorNotAvailableError(
    RetriableError, BrokerResponseError, code=15, name="COORDINATOR_NOT_AVAILABLE"
):
    description = "The coordinator is not available."


class NotCoordinatorError(RetriableError, BrokerResponseError, code=16, name="NOT_COORDINATOR"):
    description = "This broker is not the coordinator asked for."


class InvalidTopicError(BrokerResponseError, code=17, name="INVALID_TOPIC_EXCEPTION"):
    description = "The topic name is not allowed, or the topic is internal and may not be written."


class RecordListTooLargeError(BrokerResponseError, code=18, name="RECORD_LIST_TOO_LARGE"):
    description = "The batch is larger than the broker's log segment size."


class NotEnoughReplicasError(RetriableError, BrokerResponseError, code=19, name="NOT_ENOUGH_REPLICAS"):
    description = "Fewer replicas are in sync than min.insync.replicas demands; nothing was written."


class NotEnoughReplicasAfterAppendError(
    RetriableError, BrokerResponseError, code=20, name="NOT_ENOUGH_REPLICAS_AFTER_APPEND"
):
    description = "The record was written, but to fewer in-sync replicas than min.insync.replicas demands."


class InvalidRequiredAcksError(BrokerResponseError, code=21, name="INVALID_REQUIRED_ACKS"):
    description = "The acks value of the produce request is not one of -1, 0 and 1."


class IllegalGenerationError(BrokerResponseError, code=22, name="ILLEGAL_GENERATION", abortable=True):
    description = "The consumer group generation is not the current one."


class InconsistentGroupProtocolError(BrokerResponseError, code=23, name="INCONSISTENT_GROUP_PROTOCOL"):
    description = "The group member's protocols do not match those of the group."


class InvalidGroupIdError(BrokerResponseError, code=24, name="INVALID_GROUP_ID"):
    description = "The group id is invalid."


class UnknownMemberIdError(BrokerResponseError, code=25, name="UNKNOWN_MEMBER_ID", abortable=True):
    description = "The coordinator does not know this group member."


class InvalidSessionTimeoutError(BrokerResponseError, code=26, name="INVALID_SESSION_TIMEOUT"):
    description = "The session timeout is outside the range the broker allows."


class RebalanceInProgressError(BrokerResponseError, code=27, name="REBALANCE_IN_PROGRESS"):
    description = "The group is rebalancing; it must be joined again."


class InvalidCommitOffsetSizeError(BrokerResponseError, code=28, name="INVALID_COMMIT_OFFSET_SIZE"):
    description = "The committed offset data is too large."


class TopicAuthorizationFailedError(
    AuthorizationError, code=29, name="TOPIC_AUTHORIZATION_FAILED", abortable=True
):
    description = (
        "Not authorized for this topic: the principal needs Write, and Create if it does not exist yet."
    )
    acl = "--operation Write --operation Create --topic {}"


class GroupAuthorizationFailedError(
    AuthorizationError, code=30, name="GROUP_AUTHORIZATION_FAILED", abortable=True
):
    description = "Not authorized for this consumer group: the principal needs Read."
    acl = "--operation Read --group {}"


class ClusterAuthorizationFailedError(
    AuthorizationError, code=31, name="CLUSTER_AUTHORIZATION_FAILED", fatal=True
):
    description = (
        "Not authorized at cluster level; an idempotent producer needs Write on any topic, or "
        "IdempotentWrite."
    )
    acl = "--operation IdempotentWrite --cluster"


class InvalidTimestampError(BrokerResponseError, code=32, name="INVALID_TIMESTAMP"):
    description = "The record's timestamp is outside the range the topic accepts."


class UnsupportedSaslMechanismError(
    AuthenticationFailedError, BrokerResponseError, code=33, name="UNSUPPORTED_SASL_MECHANISM"
):
    description = "The broker does not offer the SASL mechanism asked for."


class IllegalSaslStateError(
    AuthenticationFailedError, BrokerResponseError, code=34, name="ILLEGAL_SASL_STATE"
):
    description = "The request is not allowed in the current state of the SASL handshake."


class UnsupportedVersionError(BrokerResponseError, code=35, name="UNSUPPORTED_VERSION", fatal=True):
    description = "The broker does not support the request, or not in the version needed."


class TopicAlreadyExistsError(BrokerResponseError, code=36, name="TOPIC_ALREADY_EXISTS"):
    description = "A topic of this name exists already."


class InvalidPartitionsError(BrokerResponseError, code=37, name="INVALID_PARTITIONS"):
    description = "The number of partitions is invalid."


class InvalidReplicationFactorError(BrokerResponseError, code=38, name="INVALID_REPLICATION_FACTOR"):
    description = "The replication factor is below 1 or above the number of brokers."


class InvalidReplicationAssignmentError(BrokerResponseError, code=39, name="INVALID_REPLICA_ASSIGNMENT"):
    description = "The replica assignment is invalid."


class InvalidConfigurationError(BrokerResponseError, code=40, name="INVALID_CONFIG"):
    description = "The configuration is invalid."


class NotControllerError(RetriableError, BrokerResponseError, code=41, name="NOT_CONTROLLER"):
    description = "This broker is not the controller."


class InvalidRequestError(BrokerResponseError, code=42, name="INVALID_REQUEST"):
    description = "The broker could not make sense of the request."


class UnsupportedForMessageFormatError(
    BrokerResponseError, code=43, name="UNSUPPORTED_FOR_MESSAGE_FORMAT", abortable=True
):
    description = "The topic's message format does not support the request."


class PolicyViolationError(BrokerResponseError, code=44, name="POLICY_VIOLATION"):
    description = "The request violates a policy set on the broker."


class OutOfOrderSequenceNumberError(BrokerResponseError, code=45, name="OUT_OF_ORDER_SEQUENCE_NUMBER"):
    description = (
        "The broker expected another sequence number from this producer: a batch before this one is missing."
    )


class DuplicateSequenceNumberError(BrokerResponseError, code=46, name="DUPLICATE_SEQUENCE_NUMBER"):
    description = "The broker has this batch already."


class InvalidProducerEpochError(BrokerResponseError, code=47, name="INVALID_PRODUCER_EPOCH", abortable=True):
    description = "A newer producer with the same id, or a newer epoch of it, is in use."


class InvalidTxnStateError(BrokerResponseError, code=48, name="INVALID_TXN_STATE", abortable=True):
    description = "The transaction is not in a state that allows the request."


class InvalidProducerIdMappingError(
    BrokerResponseError, code=49, name="INVALID_PRODUCER_ID_MAPPING", abortable=True
):
    description = "The producer id is not the one assigned to this transactional id."


class InvalidTransactionTimeoutError(BrokerResponseError, code=50, name="INVALID_TRANSACTION_TIMEOUT"):
    description = "The transaction timeout is above the broker's transaction.max.timeout.ms."


class ConcurrentTransactionsError(
    RetriableError, BrokerResponseError, code=51, name="CONCURRENT_TRANSACTIONS"
):
    description = "The previous transaction of this producer is still being completed."


class TransactionCoordinatorFencedError(BrokerResponseError, code=52, name="TRANSACTION_COORDINATOR_FENCED"):
    description = "The transaction coordinator that wrote the marker has been replaced."


class TransactionalIdAuthorizationFailedError(
    AuthorizationError, code=53, name="TRANSACTIONAL_ID_AUTHORIZATION_FAILED", fatal=True
):
    description = "Not authorized for this transactional id: the principal needs Write and Describe."
    acl = "--operation Write --operation Describe --transactional-id {}"


class SecurityDisabledError(BrokerResponseError, code=54, name="SECURITY_DISABLED"):
    description = "Security features are disabled on the broker."


class OperationNotAttemptedError(BrokerResponseError, code=55, name="OPERATION_NOT_ATTEMPTED"):
    description = "Not attempted, because another part of the same request failed."


class KafkaStorageError(InvalidMetadataError, BrokerResponseError, code=56, name="KAFKA_STORAGE_ERROR"):
    description = "The broker's disk failed while it used the partition's log."


class LogDirNotFoundError(BrokerResponseError, code=57, name="LOG_DIR_NOT_FOUND"):
    description = "The log directory is not in the broker's configuration."


class SaslAuthenticationFailedError(
    AuthenticationFailedError, BrokerResponseError, code=58, name="SASL_AUTHENTICATION_FAILED"
):
    description = "SASL authentication failed: check the mechanism, user name and password."


class TokenUnavailableError(SaslAuthenticationFailedError):
    """There is no token to authenticate with now; there may be one later. Brokers were not asked."""

    retriable = True


class UnknownProducerIdError(BrokerResponseError, code=59, name="UNKNOWN_PRODUCER_ID"):
    description = (
        "The broker has no state for this producer id, for example because retention removed its records."
    )


class ReassignmentInProgressError(BrokerResponseError, code=60, name="REASSIGNMENT_IN_PROGRESS"):
    description = "A partition reassignment is in progress."


class DelegationTokenAuthDisabledError(BrokerResponseError, code=61, name="DELEGATION_TOKEN_AUTH_DISABLED"):
    description = "Delegation tokens are not enabled."


class DelegationTokenNotFoundError(BrokerResponseError, code=62, name="DELEGATION_TOKEN_NOT_FOUND"):
    description = "The delegation token does not exist."


class DelegationTokenOwnerMismatchError(BrokerResponseError, code=63, name="DELEGATION_TOKEN_OWNER_MISMATCH"):
    description = "The principal does not own the delegation token."


class DelegationTokenRequestNotAllowedError(
    BrokerResponseError, code=64, name="DELEGATION_TOKEN_REQUEST_NOT_ALLOWED"
):
    description = "Delegation token requests are not allowed on this connection."


class DelegationTokenAuthorizationFailedError(
    AuthorizationError, code=65, name="DELEGATION_TOKEN_AUTHORIZATION_FAILED"
):
    description = "Not authorized for this delegation token."


class DelegationTokenExpiredError(BrokerResponseError, code=66, name="DELEGATION_TOKEN_EXPIRED"):
    description = "The delegation token has expired."


class InvalidPrincipalTypeError(BrokerResponseError, code=67, name="INVALID_PRINCIPAL_TYPE"):
    description = "The principal type is not supported."


class NonEmptyGroupError(BrokerResponseError, code=68, name="NON_EMPTY_GROUP"):
    description = "The group is not empty."


class GroupIdNotFoundError(BrokerResponseError, code=69, name="GROUP_ID_NOT_FOUND"):
    description = "The group does not exist."


class FetchSessionIdNotFoundError(
    RetriableError, BrokerResponseError, code=70, name="FETCH_SESSION_ID_NOT_FOUND"
):
    description = "The broker does not know the fetch session."


class InvalidFetchSessionEpochError(
    RetriableError, BrokerResponseError, code=71, name="INVALID_FETCH_SESSION_EPOCH"
):
    description = "The fetch session epoch is invalid."


class ListenerNotFoundError(InvalidMetadataError, BrokerResponseError, code=72, name="LISTENER_NOT_FOUND"):
    description = "The partition's leader has no listener of the kind this connection came in on."


class TopicDeletionDisabledError(BrokerResponseError, code=73, name="TOPIC_DELETION_DISABLED"):
    description = "Topic deletion is disabled."


class FencedLeaderEpochError(InvalidMetadataError, BrokerResponseError, code=74, name="FENCED_LEADER_EPOCH"):
    description = "The leader epoch in the request is older than the broker's."


class UnknownLeaderEpochError(RetriableError, BrokerResponseError, code=75, name="UNKNOWN_LEADER_EPOCH"):
    description = "The leader epoch in the request is newer than the broker's."


class UnsupportedCompressionTypeError(BrokerResponseError, code=76, name="UNSUPPORTED_COMPRESSION_TYPE"):
    description = "The broker does not support this compression type for the topic."


class StaleBrokerEpochError(BrokerResponseError, code=77, name="STALE_BROKER_EPOCH"):
    description = "The broker epoch has changed."


class OffsetNotAvailableError(RetriableError, BrokerResponseError, code=78, name="OFFSET_NOT_AVAILABLE"):
    description = "The leader's high watermark has not caught up after an election."


class MemberIdRequiredError(BrokerResponseError, code=79, name="MEMBER_ID_REQUIRED"):
    description = "The group member must join with a member id."


class PreferredLeaderNotAvailableError(
    InvalidMetadataError, BrokerResponseError, code=80, name="PREFERRED_LEADER_NOT_AVAILABLE"
):
    description = "The preferred leader is not available."


class GroupMaxSizeReachedError(BrokerResponseError, code=81, name="GROUP_MAX_SIZE_REACHED"):
    description = "The consumer group is full."


class FencedInstanceIdError(BrokerResponseError, code=82, name="FENCED_INSTANCE_ID", abortable=True):
    description = "Another group member uses the same group.instance.id."


class EligibleLeadersNotAvailableError(
    InvalidMetadataError, BrokerResponseError, code=83, name="ELIGIBLE_LEADERS_NOT_AVAILABLE"
):
    description = "No replica is eligible to become leader."


class ElectionNotNeededError(InvalidMetadataError, BrokerResponseError, code=84, name="ELECTION_NOT_NEEDED"):
    description = "The partition has the leader it should have."


class NoReassignmentInProgressError(BrokerResponseError, code=85, name="NO_REASSIGNMENT_IN_PROGRESS"):
    description = "No partition reassignment is in progress."


class GroupSubscribedToTopicError(BrokerResponseError, code=86, name="GROUP_SUBSCRIBED_TO_TOPIC"):
    description = "The consumer group is subscribed to the topic."


class InvalidRecordError(BrokerResponseError, code=87, name="INVALID_RECORD"):
    description = "The broker refused the record, for example a null key on a compacted topic."


class UnstableOffsetCommitError(RetriableError, BrokerResponseError, code=88, name="UNSTABLE_OFFSET_COMMIT"):
    description = "Some offsets are part of a transaction that is not complete."


class ThrottlingQuotaExceededError(
    RetriableError, BrokerResponseError, code=89, name="THROTTLING_QUOTA_EXCEEDED"
):
    description = "The request exceeded a quota."


class ProducerFencedError(BrokerResponseError, code=90, name="PRODUCER_FENCED", fatal=True):
    description = "A newer producer with the same transactional id has taken over."


class ResourceNotFoundError(BrokerResponseError, code=91, name="RESOURCE_NOT_FOUND"):
    description = "The request refers to something that does not exist."


class DuplicateResourceError(BrokerResponseError, code=92, name="DUPLICATE_RESOURCE"):
    description = "The request names something twice."


class UnacceptableCredentialError(BrokerResponseError, code=93, name="UNACCEPTABLE_CREDENTIAL"):
    description = "The credential does not meet the requirements."


class InconsistentVoterSetError(BrokerResponseError, code=94, name="INCONSISTENT_VOTER_SET"):
    description = "Sender and recipient disagree about the voters."


class InvalidUpdateVersionError(BrokerResponseError, code=95, name="INVALID_UPDATE_VERSION"):
    description = "The update version is invalid."


class FeatureUpdateFailedError(BrokerResponseError, code=96, name="FEATURE_UPDATE_FAILED"):
    description = "Finalized features could not be updated."


class PrincipalDeserializationFailureError(
    BrokerResponseError, code=97, name="PRINCIPAL_DESERIALIZATION_FAILURE"
):
    description = "The forwarded principal could not be decoded."


class SnapshotNotFoundError(BrokerResponseError, code=98, name="SNAPSHOT_NOT_FOUND"):
    description = "The snapshot does not exist."


class PositionOutOfRangeError(BrokerResponseError, code=99, name="POSITION_OUT_OF_RANGE"):
    description = "The position is outside the snapshot."


class UnknownTopicIdError(InvalidMetadataError, BrokerResponseError, code=100, name="UNKNOWN_TOPIC_ID"):
    description = "The broker does not know this topic id: the topic was deleted or created again."


class DuplicateBrokerRegistrationError(BrokerResponseError, code=101, name="DUPLICATE_BROKER_REGISTRATION"):
    description = "A broker with this id is registered already."


class BrokerIdNotRegisteredError(BrokerResponseError, code=102, name="BROKER_ID_NOT_REGISTERED"):
    description = "No broker with this id is registered."


class InconsistentTopicIdError(
    InvalidMetadataError, BrokerResponseError, code=103, name="INCONSISTENT_TOPIC_ID"
):
    description = "The topic id does not match the one in the log."


class InconsistentClusterIdError(BrokerResponseError, code=104, name="INCONSISTENT_CLUSTER_ID"):
    description = "The cluster id does not match."


class TransactionalIdNotFoundError(BrokerResponseError, code=105, name="TRANSACTIONAL_ID_NOT_FOUND"):
    description = "The transactional id does not exist."


class FetchSessionTopicIdError(
    RetriableError, BrokerResponseError, code=106, name="FETCH_SESSION_TOPIC_ID_ERROR"
):
    description = "The fetch session mixes topic ids and topic names."


class IneligibleReplicaError(BrokerResponseError, code=107, name="INELIGIBLE_REPLICA"):
    description = "The replica may not join the in-sync set."


class NewLeaderElectedError(BrokerResponseError, code=108, name="NEW_LEADER_ELECTED"):
    description = "The change made another replica the leader."


class OffsetMovedToTieredStorageError(BrokerResponseError, code=109, name="OFFSET_MOVED_TO_TIERED_STORAGE"):
    description = "The offset is in tiered storage now."


class FencedMemberEpochError(BrokerResponseError, code=110, name="FENCED_MEMBER_EPOCH"):
    description = "The group member's epoch is fenced."


class UnreleasedInstanceIdError(BrokerResponseError, code=111, name="UNRELEASED_INSTANCE_ID"):
    description = "Another member still holds the group.instance.id."


class UnsupportedAssignorError(BrokerResponseError, code=112, name="UNSUPPORTED_ASSIGNOR"):
    description = "The group's members do not share this assignor."


class StaleMemberEpochError(BrokerResponseError, code=113, name="STALE_MEMBER_EPOCH"):
    description = "The group member's epoch is stale."


class MismatchedEndpointTypeError(BrokerResponseError, code=114, name="MISMATCHED_ENDPOINT_TYPE"):
    description = "The request went to the wrong kind of endpoint."


class UnsupportedEndpointTypeError(BrokerResponseError, code=115, name="UNSUPPORTED_ENDPOINT_TYPE"):
    description = "This kind of endpoint is not supported."


class UnknownControllerIdError(BrokerResponseError, code=116, name="UNKNOWN_CONTROLLER_ID"):
    description = "The controller id is unknown."


class UnknownSubscriptionIdError(BrokerResponseError, code=117, name="UNKNOWN_SUBSCRIPTION_ID"):
    description = "The telemetry subscription is out of date."


class TelemetryTooLargeError(BrokerResponseError, code=118, name="TELEMETRY_TOO_LARGE"):
    description = "The telemetry push is larger than the broker accepts."


class InvalidRegistrationError(BrokerResponseError, code=119, name="INVALID_REGISTRATION"):
    description = "The broker registration is invalid."


class TransactionAbortableError(BrokerResponseError, code=120, name="TRANSACTION_ABORTABLE", abortable=True):
    description = "The transaction cannot be committed: abort it and start again."


class InvalidRecordStateError(BrokerResponseError, code=121, name="INVALID_RECORD_STATE"):
    description = "The record's delivery state does not allow the acknowledgement."


class ShareSessionNotFoundError(
    RetriableError, BrokerResponseError, code=122, name="SHARE_SESSION_NOT_FOUND"
):
    description = "The share session does not exist."


class InvalidShareSessionEpochError(
    RetriableError, BrokerResponseError, code=123, name="INVALID_SHARE_SESSION_EPOCH"
):
    description = "The share session epoch is invalid."


class FencedStateEpochError(BrokerResponseError, code=124, name="FENCED_STATE_EPOCH"):
    description = "The share state epoch is out of date."


class InvalidVoterKeyError(BrokerResponseError, code=125, name="INVALID_VOTER_KEY"):
    description = "The voter key does not match."


class DuplicateVoterError(BrokerResponseError, code=126, name="DUPLICATE_VOTER"):
    description = "The voter is in the voter set already."


class VoterNotFoundError(BrokerResponseError, code=127, name="VOTER_NOT_FOUND"):
    description = "The voter is not in the voter set."


class InvalidRegularExpressionError(BrokerResponseError, code=128, name="INVALID_REGULAR_EXPRESSION"):
    description = "The regular expression is invalid."


class RebootstrapRequiredError(BrokerResponseError, code=129, name="REBOOTSTRAP_REQUIRED"):
    description = "The client's metadata is useless: it must start again from its bootstrap servers."


class StreamsInvalidTopologyError(BrokerResponseError, code=130, name="STREAMS_INVALID_TOPOLOGY"):
    description = "The streams topology is invalid."


class StreamsInvalidTopologyEpochError(BrokerResponseError, code=131, name="STREAMS_INVALID_TOPOLOGY_EPOCH"):
    description = "The streams topology epoch is invalid."


class StreamsTopologyFencedError(BrokerResponseError, code=132, name="STREAMS_TOPOLOGY_FENCED"):
    description = "The streams topology epoch is out of date."


class ShareSessionLimitReachedError(
    RetriableError, BrokerResponseError, code=133, name="SHARE_SESSION_LIMIT_REACHED"
):
    description = "The broker holds as many share sessions as it may."


class GroupDeletionFailedError(BrokerResponseError, code=134, name="GROUP_DELETION_FAILED"):
    description = "The group could not be deleted."


class StreamsTopologyDescriptionUpdateFailedError(
    BrokerResponseError, code=135, name="STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED"
):
    description = "The streams topology description could not be updated."


class ControllerIdNotRegisteredError(BrokerResponseError, code=136, name="CONTROLLER_ID_NOT_REGISTERED"):
    description = "No controller with this id is registered."


class IncompatibleBrokerVersion(UnsupportedVersionError):
    """The broker is too old for what was asked: raised by the client, before anything is sent."""


class UnrecognizedBrokerError(UnknownError):
    """The broker answered with a code this release does not know. There is one subclass per code."""

    errno = None
    message = None
    description = "The broker answered with an error code that this release does not know."

    def __reduce__(self) -> tuple[Any, ...]:
        # for_code() makes the class of a code at run time, so pickle cannot find it by name.
        if self.errno is None:
            return type(self), self.args, self.__dict__
        return _restore_unrecognized, (self.errno, self.args), self.__dict__


def _restore_unrecognized(code: int, args: tuple[object, ...]) -> BrokerResponseError:
    return for_code(code)(*args)


# --- Names of earlier releases of kafka-python, for except clauses that still use them ----------------------

AsyncProducerQueueFull = BufferExhaustedError
AuthenticationMethodNotSupported = UnsupportedSaslMechanismError
CorruptRecordException = CorruptRecordError
GroupCoordinatorNotAvailableError = CoordinatorNotAvailableError
GroupLoadInProgressError = CoordinatorLoadInProgressError
InvalidMessageError = CorruptRecordError
KafkaUnavailableError = NoBrokersAvailable
NotCoordinatorForGroupError = NotCoordinatorError
NotLeaderForPartitionError = NotLeaderOrFollowerError
ProtocolError = KafkaProtocolError
StaleLeaderEpochCodeError = StaleControllerEpochError


# --- Views of the table -------------------------------------------------------------------------------------

BROKER_ERRORS: Mapping[int, BrokerError] = MappingProxyType(dict(sorted(_registry.items())))
"""All broker error codes, by code."""

RETRIABLE = 1
"""Bit of :func:`error_flags`: the request can be repeated."""
REFRESH_METADATA = 2
"""Bit of :func:`error_flags`: refresh metadata before repeating it."""
FATAL = 4
"""Bit of :func:`error_flags`: an idempotent or transactional producer cannot go on."""
ABORTABLE = 8
"""Bit of :func:`error_flags`: the transaction must be aborted."""

_unrecognized: dict[int, type[BrokerResponseError]] = {}


def for_code(code: int) -> type[BrokerResponseError]:
    """The exception class of a broker error code.

    A code that is not in the table gives a subclass of :class:`UnrecognizedBrokerError` with that ``errno``:
    always the same one for the same code.
    """
    known = _registry.get(code)
    if known is not None:
        return known.error
    made = type(
        "UnrecognizedBrokerError",
        (UnrecognizedBrokerError,),
        {
            "__module__": __name__,
            "__doc__": UnrecognizedBrokerError.__doc__,
            "errno": code,
            "message": f"UNRECOGNIZED_{code}",
            "description": f"The broker answered with error code {code}, which this release does not know.",
        },
    )
    # setdefault is atomic, also without the GIL: threads that race get the same class.
    return _unrecognized.setdefault(code, made)


def name_for_code(code: int) -> str:
    """Kafka's own name of a broker error code, for example ``NOT_LEADER_OR_FOLLOWER`` for 6."""
    known = _registry.get(code)
    return known.name if known is not None else f"UNRECOGNIZED_{code}"


def error_flags() -> bytes:
    """The table as bytes, for the C core: the byte at ``code + 1`` holds the code's flags.

    The flags are :data:`RETRIABLE`, :data:`REFRESH_METADATA`, :data:`FATAL` and :data:`ABORTABLE`. A code
    past the end is unknown and counts as none of them.
    """
    flags = bytearray(max(_registry) + 2)
    for code, entry in _registry.items():
        flags[code + 1] = (
            (RETRIABLE if entry.retriable else 0)
            | (REFRESH_METADATA if entry.refresh_metadata else 0)
            | (FATAL if entry.fatal else 0)
            | (ABORTABLE if entry.abortable else 0)
        )
    return bytes(flags)
