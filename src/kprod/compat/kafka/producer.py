"""kafka-python's ``KafkaProducer`` on kprod's engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kprod import errors as own
from kprod import producer as native
from kprod.compat.kafka.errors import translated
from kprod.compat.kafka.future import FutureRecordMetadata
from kprod.config import MAX_IDEMPOTENT_IN_FLIGHT

if TYPE_CHECKING:
    from kprod._core.future import DeliveryFuture

F = TypeVar("F", bound=Callable[..., Any])


def _raising_theirs(function: F) -> F:
    """The same, with exceptions that kafka-python's are, too."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except own.KafkaError as error:
            raise translated(error) from error.__cause__

    return cast("F", call)


class KafkaProducer(native.KafkaProducer):
    """kafka-python's producer: its arguments, results and exceptions, with kprod behind them.

    It is a :class:`kprod.KafkaProducer`, so what that has beyond kafka-python can be used as well.
    Different from kafka-python: records without a key stay on one partition until its batch is full;
    serializers are not called with None; ``buffer_memory`` bounds what waits. See docs/migration.md.

    Args:
        **configs: kafka-python's options, with its defaults.

    Raises:
        KafkaConfigurationError, ValueError: an option is unknown, out of range, or contradicts another.
        KafkaTimeoutError: no bootstrap server could be reached.
    """

    _DIFFERENT_DEFAULTS: Mapping[str, object] = {
        "linger_ms": 0,
        "reconnect_backoff_max_ms": 30_000,
    }
    """kafka-python's defaults where they are not kprod's."""

    @_raising_theirs
    def __init__(self, **configs: Any) -> None:
        _check_idempotence(configs)
        super().__init__(**{**self._DIFFERENT_DEFAULTS, **configs})

    def send(  # type: ignore[override]
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> FutureRecordMetadata:
        """Send a record.

        Args:
            topic: the topic.
            value, key: bytes, or what the serializers take; one of them at least.
            headers: pairs of str and bytes.
            partition: None: the partitioner chooses.
            timestamp_ms: ms since 1970; None: now.

        Returns:
            A future. A topic that the brokers refuse is reported by it, not raised.

        Raises:
            KafkaTimeoutError: no metadata or no memory within ``max_block_ms``.
            MessageSizeTooLargeError: it is larger than ``max_request_size``.
            TypeError, ValueError: an argument is not accepted.
        """
        if value is None and key is None:
            raise ValueError("Need at least one: key or value")
        try:
            future: DeliveryFuture = super().send(topic, value, key, headers, partition, timestamp_ms)
        except own.MessageSizeTooLargeError as error:
            raise translated(error) from None
        except own.BrokerResponseError as error:
            return FutureRecordMetadata(None, translated(error))
        except own.KafkaError as error:
            raise translated(error) from error.__cause__
        return FutureRecordMetadata(future)

    flush = _raising_theirs(native.KafkaProducer.flush)
    close = _raising_theirs(native.KafkaProducer.close)
    partitions_for = _raising_theirs(native.KafkaProducer.partitions_for)
    init_transactions = _raising_theirs(native.KafkaProducer.init_transactions)
    begin_transaction = _raising_theirs(native.KafkaProducer.begin_transaction)
    send_offsets_to_transaction = _raising_theirs(native.KafkaProducer.send_offsets_to_transaction)
    prepare_transaction = _raising_theirs(native.KafkaProducer.prepare_transaction)
    complete_transaction = _raising_theirs(native.KafkaProducer.complete_transaction)
    commit_transaction = _raising_theirs(native.KafkaProducer.commit_transaction)
    abort_transaction = _raising_theirs(native.KafkaProducer.abort_transaction)

    @classmethod
    def max_usable_produce_magic(cls, api_version: Any = None) -> int:
        """The record format that is written: always 2 (Kafka 0.11)."""
        return 2


def _check_idempotence(configs: Mapping[str, Any]) -> None:
    """All that contradicts idempotence in one message, as kafka-python has it (KIP-679).

    Only where idempotence was asked for; defaults give way to what contradicts them.
    """
    transactional = configs.get("transactional_id") is not None
    idempotent = configs.get("enable_idempotence")
    if not transactional and not idempotent:
        return
    conflicts = []
    if idempotent is not None and not idempotent:
        conflicts.append("transactional_id without enable_idempotence: leave out enable_idempotence=False")
    if "acks" in configs and configs["acks"] not in ("all", -1, "-1"):
        conflicts.append(f"acks={configs['acks']}: only acks='all' is possible")
    if configs.get("retries") == 0:
        conflicts.append("retries=0: leave retries out; delivery_timeout_ms bounds them")
    in_flight = configs.get("max_in_flight_requests_per_connection")
    if isinstance(in_flight, int) and in_flight > MAX_IDEMPOTENT_IN_FLIGHT:
        conflicts.append(
            f"max_in_flight_requests_per_connection={in_flight}: {MAX_IDEMPOTENT_IN_FLIGHT} are the most"
        )
    version = configs.get("api_version")
    if isinstance(version, tuple) and version < (0, 11):
        conflicts.append(f"api_version={version}: brokers know idempotence since (0, 11)")
    if conflicts:
        asked_by = (
            f"transactional_id={configs['transactional_id']!r}"
            if transactional
            else "enable_idempotence=True"
        )
        raise own.KafkaConfigurationError(f"{asked_by} contradicts " + "; ".join(conflicts))
