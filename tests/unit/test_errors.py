"""kprod.errors: the table of broker codes against kafka-python's, context, text, pickling."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading
from typing import Any

import kafka.errors as kafka_python
import pytest

from kprod import errors
from kprod.errors import BROKER_ERRORS, BrokerResponseError, KafkaError, for_code, name_for_code

PEER_CLASSES: dict[str, Any] = {
    name: cls
    for name, cls in vars(kafka_python).items()
    if inspect.isclass(cls) and issubclass(cls, kafka_python.KafkaError)
}
PEER_CODES = {
    cls.errno: cls
    for cls in PEER_CLASSES.values()
    if issubclass(cls, kafka_python.BrokerResponseError)
    and cls.errno is not None
    and cls is not kafka_python.IncompatibleBrokerVersion
}

# Where kafka-python and Kafka's own table (the Java client) differ, we follow Kafka's.
JAVA_NOT_PEER_NAME = {
    -1: "UNKNOWN_SERVER_ERROR",
    0: "NONE",
    6: "NOT_LEADER_OR_FOLLOWER",
    10: "MESSAGE_TOO_LARGE",
    17: "INVALID_TOPIC_EXCEPTION",
    39: "INVALID_REPLICA_ASSIGNMENT",
}
JAVA_NOT_PEER_FLAGS = {
    2: (True, False),  # CorruptRecordException is a RetriableException
    75: (True, False),  # UnknownLeaderEpochException is not an InvalidMetadataException
}
CONSUMER_ONLY = {"NoOffsetForPartitionError", "LogTruncationError"}


def test_every_code_of_kafka_python_is_known_by_the_same_class_name() -> None:
    assert len(PEER_CODES) >= 129
    for code, peer in PEER_CODES.items():
        ours = getattr(errors, peer.__name__)
        assert for_code(code) is ours
        assert ours.errno == code


@pytest.mark.parametrize("code", sorted(PEER_CODES))
def test_names_and_flags_agree_with_kafka_python_or_with_java(code: int) -> None:
    peer = PEER_CODES[code]
    entry = BROKER_ERRORS[code]
    assert entry.name == JAVA_NOT_PEER_NAME.get(code, peer.message)
    expected = JAVA_NOT_PEER_FLAGS.get(code, (peer.retriable, peer.invalid_metadata))
    assert (entry.retriable, entry.refresh_metadata) == expected


def test_every_exception_name_of_kafka_python_exists() -> None:
    missing = {name for name in PEER_CLASSES if not hasattr(errors, name)} - CONSUMER_ONLY
    assert missing == set()


@pytest.mark.parametrize(
    "name",
    [
        "NoBrokersAvailable",
        "NotLeaderForPartitionError",
        "InvalidMessageError",
        "KafkaUnavailableError",
        "AuthenticationFailedError",
        "AuthenticationMethodNotSupported",
        "AsyncProducerQueueFull",
        "GroupLoadInProgressError",
        "GroupCoordinatorNotAvailableError",
        "NotCoordinatorForGroupError",
        "ProtocolError",
        "StaleLeaderEpochCodeError",
        "FailedPayloadsError",
    ],
)
def test_names_that_kafka_python_dropped_still_import(name: str) -> None:
    assert issubclass(getattr(errors, name), KafkaError)


def test_codes_are_consecutive_up_to_those_of_kafka_4_4() -> None:
    assert list(BROKER_ERRORS) == list(range(-1, 137))
    assert len({entry.name for entry in BROKER_ERRORS.values()}) == len(BROKER_ERRORS)
    assert len({entry.error for entry in BROKER_ERRORS.values()}) == len(BROKER_ERRORS)


def test_a_code_cannot_be_declared_twice() -> None:
    with pytest.raises(TypeError, match="error code 6 is declared twice"):

        class Second(BrokerResponseError, code=6, name="SECOND"):
            pass

    assert BROKER_ERRORS[6].error is errors.NotLeaderOrFollowerError


def test_every_entry_describes_itself() -> None:
    for entry in BROKER_ERRORS.values():
        assert entry.description.endswith("."), entry.name
        assert entry.error.__doc__ == entry.description
        assert entry.name in f"{entry.error.message}"
        assert not (entry.fatal and (entry.abortable or entry.retriable)), entry.name


def test_producer_classification_is_the_java_producers() -> None:
    """But for INVALID_PRODUCER_ID_MAPPING, fatal there: the coordinator gives a new id, unless fenced."""
    fatal = {entry.name for entry in BROKER_ERRORS.values() if entry.fatal}
    assert fatal == {
        "CLUSTER_AUTHORIZATION_FAILED",
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        "PRODUCER_FENCED",
        "UNSUPPORTED_VERSION",
    }
    abortable = {code for code, entry in BROKER_ERRORS.items() if entry.abortable}
    assert {29, 43, 47, 48, 120} <= abortable


def test_error_flags_are_the_table_as_bytes() -> None:
    flags = errors.error_flags()
    assert len(flags) == max(BROKER_ERRORS) + 2
    for code, entry in BROKER_ERRORS.items():
        byte = flags[code + 1]
        assert bool(byte & 1) == entry.retriable
        assert bool(byte & 2) == entry.refresh_metadata
        assert bool(byte & 4) == entry.fatal
        assert bool(byte & 8) == entry.abortable
    # Spot values, so that a change of the bit layout is noticed here and not in C.
    assert flags[6 + 1] == 3
    assert flags[7 + 1] == 1
    assert flags[90 + 1] == 4
    assert flags[120 + 1] == 8
    assert flags[10 + 1] == 0


def test_refresh_implies_retriable() -> None:
    for entry in BROKER_ERRORS.values():
        assert entry.retriable or not entry.refresh_metadata


def test_names_for_codes() -> None:
    assert name_for_code(6) == "NOT_LEADER_OR_FOLLOWER"
    assert name_for_code(-1) == "UNKNOWN_SERVER_ERROR"
    assert name_for_code(4711) == "UNRECOGNIZED_4711"


@pytest.mark.parametrize("code", [137, 4711, -2, 32767, -32768])
def test_unknown_codes_give_one_class_each(code: int) -> None:
    cls = for_code(code)
    assert issubclass(cls, errors.UnrecognizedBrokerError)
    assert issubclass(cls, errors.UnknownError)
    assert cls.errno == code
    assert not cls.retriable
    assert for_code(code) is cls
    assert code not in BROKER_ERRORS
    assert str(code) in str(cls())
    restored = pickle.loads(pickle.dumps(cls("text", topic="t")))
    assert type(restored) is cls
    assert restored.topic == "t"


def test_unknown_codes_are_one_class_also_when_threads_race() -> None:
    barrier = threading.Barrier(8)
    seen: list[type[BrokerResponseError]] = []

    def ask() -> None:
        barrier.wait()
        seen.append(for_code(20_001))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_text_is_class_name_and_message() -> None:
    assert str(KafkaError("boo")) == "KafkaError: boo"
    assert str(KafkaError()) == "KafkaError"
    assert str(errors.NotLeaderOrFollowerError("boo")) == "[Error 6] NotLeaderOrFollowerError: boo"


def test_broker_error_without_message_says_what_the_code_means() -> None:
    text = str(errors.TopicAuthorizationFailedError())
    assert text.startswith("[Error 29] TopicAuthorizationFailedError: Not authorized for this topic")


def test_context_is_readable_in_the_text() -> None:
    error = errors.RequestTimedOutError(
        "no answer", topic="orders", partition=3, broker="1 at kafka-1:9092", persisted="possibly"
    )
    assert str(error) == (
        "[Error 7] RequestTimedOutError: no answer (topic orders, partition 3, broker 1 at kafka-1:9092, "
        "record may have been written, a retry may help but could write it twice)"
    )


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (errors.KafkaTimeoutError("m", persisted="no"), "(record not written, a retry may help)"),
        (errors.InvalidRecordError("m", persisted="no"), "(record not written, a retry will not help)"),
        (errors.KafkaTimeoutError("m", persisted="yes"), "(record was written, do not send it again)"),
        (errors.KafkaTimeoutError("m", partition=0), "(partition 0, a retry may help)"),
    ],
)
def test_text_says_whether_a_retry_can_help(error: KafkaError, ending: str) -> None:
    assert str(error).endswith(ending)


def test_context_defaults_to_none_and_can_be_added_later() -> None:
    error = errors.KafkaTimeoutError("m")
    assert (error.topic, error.partition, error.broker, error.persisted) == (None, None, None, None)
    error.broker = "2 at kafka-2:9092"
    assert "broker 2 at kafka-2:9092" in str(error)


def test_persisted_is_validated() -> None:
    with pytest.raises(ValueError, match="persisted must be 'no', 'possibly', 'yes' or None, not 'maybe'"):
        KafkaError("m", persisted="maybe")  # type: ignore[arg-type]


ALL_CLASSES = sorted(
    {cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, KafkaError)},
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", ALL_CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_class_is_picklable_and_copyable_with_its_context(cls: type[KafkaError], protocol: int) -> None:
    error = cls("message", topic="t", partition=5, broker="1 at h:9092", persisted="possibly")
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert twin == error
        assert vars(twin) == vars(error)
        assert str(twin) == str(error)


def test_equality_and_hash_follow_class_and_arguments() -> None:
    assert KafkaError("a") == KafkaError("a", topic="t")
    assert hash(KafkaError("a")) == hash(KafkaError("a", topic="t"))
    assert KafkaError("a") != KafkaError("b")
    assert KafkaError("a") != errors.RetriableError("a")
    assert KafkaError("a") != RuntimeError("a")
    assert len({KafkaError("a"), KafkaError("a"), KafkaError("b")}) == 2
    assert hash(KafkaError(["unhashable"])) == hash(KafkaError(["unhashable"]))


@pytest.mark.parametrize(
    ("cls", "caught_by"),
    [
        (errors.KafkaError, RuntimeError),
        (errors.NoBrokersAvailable, errors.KafkaTimeoutError),
        (errors.BufferExhaustedError, errors.KafkaTimeoutError),
        (errors.KafkaTimeoutError, errors.RetriableError),
        (errors.KafkaConnectionError, errors.InvalidMetadataError),
        (errors.UnknownOptionError, ValueError),
        (errors.KafkaConfigurationError, ValueError),
        (errors.IllegalArgumentError, ValueError),
        (errors.ProducerClosedError, errors.IllegalStateError),
        (errors.ForkedProcessError, errors.IllegalStateError),
        (errors.SaslAuthenticationFailedError, errors.AuthenticationFailedError),
        (errors.TopicAuthorizationFailedError, errors.AuthorizationError),
        (errors.IncompatibleBrokerVersion, errors.UnsupportedVersionError),
    ],
)
def test_except_clauses_catch(cls: type[KafkaError], caught_by: type[Exception]) -> None:
    with pytest.raises(caught_by):
        raise cls("m")


def test_client_side_subclass_does_not_replace_its_code() -> None:
    assert for_code(35) is errors.UnsupportedVersionError
    assert errors.IncompatibleBrokerVersion.errno == 35
