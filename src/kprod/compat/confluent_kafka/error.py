"""Errors as confluent-kafka has them: one class with librdkafka's codes, and an exception that carries it."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from kprod import errors

LOCAL_TEXT = {
    "_BAD_MSG": (-199, "Bad message format"),
    "_BAD_COMPRESSION": (-198, "Invalid compressed data"),
    "_DESTROY": (-197, "Broker handle destroyed for termination"),
    "_FAIL": (-196, "Communication failure with broker"),
    "_TRANSPORT": (-195, "Broker transport failure"),
    "_CRIT_SYS_RESOURCE": (-194, "Critical system resource failure"),
    "_RESOLVE": (-193, "Host resolution failure"),
    "_MSG_TIMED_OUT": (-192, "Message timed out"),
    "_PARTITION_EOF": (-191, "No more messages"),
    "_UNKNOWN_PARTITION": (-190, "Unknown partition"),
    "_FS": (-189, "File or filesystem error"),
    "_UNKNOWN_TOPIC": (-188, "Unknown topic"),
    "_ALL_BROKERS_DOWN": (-187, "All broker connections are down"),
    "_INVALID_ARG": (-186, "Invalid argument or configuration"),
    "_TIMED_OUT": (-185, "Timed out"),
    "_QUEUE_FULL": (-184, "Queue full"),
    "_ISR_INSUFF": (-183, "ISR count insufficient"),
    "_NODE_UPDATE": (-182, "Broker node update"),
    "_SSL": (-181, "SSL error"),
    "_WAIT_COORD": (-180, "Waiting for coordinator"),
    "_UNKNOWN_GROUP": (-179, "Unknown group"),
    "_IN_PROGRESS": (-178, "Operation in progress"),
    "_PREV_IN_PROGRESS": (-177, "Previous operation in progress"),
    "_EXISTING_SUBSCRIPTION": (-176, "Existing subscription"),
    "_ASSIGN_PARTITIONS": (-175, "Assign partitions"),
    "_REVOKE_PARTITIONS": (-174, "Revoke partitions"),
    "_CONFLICT": (-173, "Conflicting use"),
    "_STATE": (-172, "Erroneous state"),
    "_UNKNOWN_PROTOCOL": (-171, "Unknown protocol"),
    "_NOT_IMPLEMENTED": (-170, "Not implemented"),
    "_AUTHENTICATION": (-169, "Authentication failure"),
    "_NO_OFFSET": (-168, "No offset stored"),
    "_OUTDATED": (-167, "Outdated"),
    "_TIMED_OUT_QUEUE": (-166, "Timed out in queue"),
    "_UNSUPPORTED_FEATURE": (-165, "Required feature not supported by broker"),
    "_WAIT_CACHE": (-164, "Awaiting cache update"),
    "_INTR": (-163, "Operation interrupted"),
    "_KEY_SERIALIZATION": (-162, "Key serialization error"),
    "_VALUE_SERIALIZATION": (-161, "Value serialization error"),
    "_KEY_DESERIALIZATION": (-160, "Key deserialization error"),
    "_VALUE_DESERIALIZATION": (-159, "Value deserialization error"),
    "_PARTIAL": (-158, "Partial response"),
    "_READ_ONLY": (-157, "Read-only object"),
    "_NOENT": (-156, "No such entry"),
    "_UNDERFLOW": (-155, "Read underflow"),
    "_INVALID_TYPE": (-154, "Invalid type"),
    "_RETRY": (-153, "Retry operation"),
    "_PURGE_QUEUE": (-152, "Purged in queue"),
    "_PURGE_INFLIGHT": (-151, "Purged in flight"),
    "_FATAL": (-150, "Fatal error"),
    "_INCONSISTENT": (-149, "Inconsistent state"),
    "_GAPLESS_GUARANTEE": (-148, "Gap-less ordering would not be guaranteed if proceeding"),
    "_MAX_POLL_EXCEEDED": (-147, "Maximum application poll interval (max.poll.interval.ms) exceeded"),
    "_UNKNOWN_BROKER": (-146, "Unknown broker"),
    "_NOT_CONFIGURED": (-145, "Functionality not configured"),
    "_FENCED": (-144, "This instance has been fenced by a newer instance"),
    "_APPLICATION": (-143, "Application generated error"),
    "_ASSIGNMENT_LOST": (-142, "Group partition assignment lost"),
    "_NOOP": (-141, "No operation performed"),
    "_AUTO_OFFSET_RESET": (-140, "No offset to automatically reset to"),
    "_LOG_TRUNCATION": (-139, "Partition log truncation detected"),
    "_INVALID_DIFFERENT_RECORD": (-138, "Another record of the same batch was refused"),
    "_DESTROY_BROKER": (-137, "Broker handle destroyed without termination"),
}
"""The codes of errors that no broker sends: name, code, words. From librdkafka's rdkafka.h."""

RDKAFKA_NAMES = {
    -1: "UNKNOWN",
    0: "NO_ERROR",
    2: "INVALID_MSG",
    3: "UNKNOWN_TOPIC_OR_PART",
    4: "INVALID_MSG_SIZE",
    6: "NOT_LEADER_FOR_PARTITION",
    10: "MSG_SIZE_TOO_LARGE",
    11: "STALE_CTRL_EPOCH",
    17: "TOPIC_EXCEPTION",
    39: "INVALID_REPLICA_ASSIGNMENT",
}
"""Broker errors that librdkafka calls by a name of its own; the others have Kafka's."""


def _broker_names() -> dict[str, int]:
    return {RDKAFKA_NAMES.get(code, entry.name): code for code, entry in errors.BROKER_ERRORS.items()}


@functools.total_ordering
class KafkaError:
    """An error as a value: what delivery reports and ``KafkaException.args[0]`` carry.

    Args:
        error: a code, one of the class's attributes.
        reason: what happened, in words; None: the words for the code.
        fatal: the producer can send nothing more.
        retriable: the same call may succeed when it is made again.
        txn_requires_abort: ``abort_transaction()`` must be called.
    """

    NO_ERROR: ClassVar[int]
    _MSG_TIMED_OUT: ClassVar[int]
    _QUEUE_FULL: ClassVar[int]

    __slots__ = ("_code", "_fatal", "_reason", "_requires_abort", "_retriable")

    def __init__(
        self,
        error: int,
        reason: str | None = None,
        fatal: bool = False,
        retriable: bool = False,
        txn_requires_abort: bool = False,
    ) -> None:
        self._code = int(error)
        self._reason = reason
        self._fatal = bool(fatal)
        self._retriable = bool(retriable)
        self._requires_abort = bool(txn_requires_abort)

    def code(self) -> int:
        """The code."""
        return self._code

    def name(self) -> str:
        """The name of the code, as the class's attributes have it."""
        return _NAMES.get(self._code, f"ERR_{self._code}?")

    def str(self) -> str:
        """What happened, in words."""
        if self._reason is not None:
            return self._reason
        return text_of(self._code)

    def fatal(self) -> bool:
        """Whether the producer can send nothing more."""
        return self._fatal

    def retriable(self) -> bool:
        """Whether the same call may succeed when it is made again."""
        return self._retriable

    def txn_requires_abort(self) -> bool:
        """Whether ``abort_transaction()`` must be called before anything else."""
        return self._requires_abort

    def __repr__(self) -> Any:
        fatal = "FATAL," if self._fatal else ""
        return f'KafkaError{{{fatal}code={self.name()},val={self._code},str="{self.str()}"}}'

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, KafkaError):
            return self._code == other._code
        return self._code == other if isinstance(other, int) else NotImplemented

    def __lt__(self, other: object) -> bool:
        if isinstance(other, KafkaError):
            return self._code < other._code
        return self._code < other if isinstance(other, int) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._code)

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            KafkaError,
            (self._code, self._reason, self._fatal, self._retriable, self._requires_abort),
        )


_CODES = {**{name: code for name, (code, _) in LOCAL_TEXT.items()}, **_broker_names()}
_NAMES = {code: name for name, code in _CODES.items()}
_LOCAL_WORDS = dict(LOCAL_TEXT.values())
for _constant in _CODES.items():
    setattr(KafkaError, *_constant)


def text_of(code: int) -> str:
    """A code in words."""
    if code in _LOCAL_WORDS:
        return f"Local: {_LOCAL_WORDS[code]}"
    if code == 0:
        return "Success"
    if code not in errors.BROKER_ERRORS:
        return f"Err-{code}?"
    return f"Broker: {errors.for_code(code).description or errors.name_for_code(code)}"


def code_named(name: str) -> int:
    """The code of a name, for example ``"_TIMED_OUT"``."""
    return _CODES[name]


try:
    from confluent_kafka import KafkaException as _Exception
except ImportError:
    _Exception = Exception


class KafkaException(_Exception):  # type: ignore[misc]
    """Raised for what went wrong; ``args[0]`` is the :class:`KafkaError`.

    Where confluent-kafka is installed it is a subclass of its ``KafkaException``: code that catches that one
    catches this one.
    """


class ProduceError(KafkaException):
    """A record could not be produced.

    Args:
        error: why.
        kafka_message: the message, if there is one.
        exception: what it was caused by.
    """

    def __init__(
        self, error: KafkaError, kafka_message: Any = None, exception: BaseException | None = None
    ) -> None:
        super().__init__(error)
        self.exception = exception
        self.kafka_message = kafka_message

    @property
    def code(self) -> int:
        """The code of the error."""
        return int(self.args[0].code())

    @property
    def name(self) -> str:
        """The name of the code."""
        return str(self.args[0].name())


class KeySerializationError(ProduceError):
    """``key.serializer`` raised an exception."""

    def __init__(self, exception: BaseException | None = None) -> None:
        super().__init__(KafkaError(code_named("_KEY_SERIALIZATION"), str(exception)), exception=exception)


class ValueSerializationError(ProduceError):
    """``value.serializer`` raised an exception."""

    def __init__(self, exception: BaseException | None = None) -> None:
        super().__init__(KafkaError(code_named("_VALUE_SERIALIZATION"), str(exception)), exception=exception)


def _errno(error: errors.BrokerResponseError) -> int:
    return -1 if error.errno is None else error.errno


def delivery_error(error: errors.KafkaError) -> KafkaError:
    """kprod's error for a record, as delivery reports carry it."""
    if isinstance(error, errors.BrokerResponseError):
        return KafkaError(_errno(error), str(error), retriable=error.retriable)
    if isinstance(error, errors.PurgedError):
        name = "_PURGE_QUEUE" if error.persisted == "no" else "_PURGE_INFLIGHT"
    elif isinstance(error, errors.TransactionAbortedError):
        name = "_PURGE_QUEUE"
    elif isinstance(error, errors.KafkaTimeoutError):
        name = "_MSG_TIMED_OUT"
    elif isinstance(error, errors.KafkaConnectionError):
        name = "_TRANSPORT"
    elif isinstance(error, errors.ProducerClosedError):
        name = "_DESTROY"
    elif isinstance(error, errors.AuthenticationFailedError):
        name = "_AUTHENTICATION"
    elif isinstance(error, errors.UnsupportedCodecError):
        name = "_BAD_COMPRESSION"
    else:
        name = "_FAIL"
    return KafkaError(code_named(name), f"{text_of(code_named(name))}: {error}")


def call_error(error: BaseException) -> KafkaException:
    """What a call raises for one of kprod's exceptions."""
    if isinstance(error, (errors.ProducerFencedError, errors.InvalidProducerEpochError)):
        return KafkaException(KafkaError(code_named("_FENCED"), str(error), fatal=True))
    if isinstance(error, errors.BrokerResponseError):
        entry = errors.BROKER_ERRORS.get(_errno(error))
        return KafkaException(
            KafkaError(
                _errno(error),
                str(error),
                fatal=entry is not None and entry.fatal,
                retriable=error.retriable,
                txn_requires_abort=entry is not None and entry.abortable,
            )
        )
    if isinstance(error, errors.KafkaTimeoutError):
        return KafkaException(KafkaError(code_named("_TIMED_OUT"), str(error), retriable=True))
    if isinstance(error, errors.CommitFailedError):
        return KafkaException(KafkaError(code_named("_ASSIGNMENT_LOST"), str(error), txn_requires_abort=True))
    if isinstance(error, errors.IllegalStateError):
        return KafkaException(KafkaError(code_named("_STATE"), str(error)))
    if isinstance(error, errors.AuthenticationFailedError):
        return KafkaException(KafkaError(code_named("_AUTHENTICATION"), str(error)))
    if isinstance(error, ValueError):
        return KafkaException(KafkaError(code_named("_INVALID_ARG"), str(error)))
    return KafkaException(KafkaError(code_named("_FAIL"), str(error)))
