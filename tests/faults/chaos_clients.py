"""The two clients of a chaos run behind one small interface: kprod, and confluent-kafka as the control."""

from __future__ import annotations

import contextlib
import enum
import functools
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from kprod import KafkaProducer
from kprod.errors import KafkaError, KafkaTimeoutError

Done = Callable[[object], None]
"""Called with a record's error, or None when it was acknowledged."""


class Advice(enum.Enum):
    """What an application has to do after an error of a transactional call, by what the client says."""

    AGAIN = "call it again"
    ABORT = "abort the transaction"
    NEW_PRODUCER = "close the producer, make another"


class Failed(Exception):
    """A transactional call did not do its work."""

    def __init__(self, advice: Advice, call: str, error: BaseException) -> None:
        super().__init__(f"{call}: {error}")
        self.advice = advice
        self.reason = f"{call}: {_kind(error)}"


class Offsets(NamedTuple):
    """The next offset of a partition that a group is to read."""

    group: str
    topic: str
    partition: int
    offset: int


class Client(Protocol):
    """What a worker does with a producer. Calls raise :class:`Failed`, ``send`` too."""

    def send(self, topic: str, partition: int, value: bytes, done: Done) -> None: ...
    def poll(self) -> None: ...
    def flush(self, timeout: float) -> None: ...
    def close(self) -> None: ...
    def init(self, timeout: float) -> None: ...
    def begin(self) -> None: ...
    def offsets(self, offsets: Offsets, timeout: float) -> None: ...
    def commit(self, timeout: float) -> None: ...
    def abort(self, timeout: float) -> None: ...


def make_client(name: str, servers: str, request_timeout_ms: int, transactional_id: str | None) -> Client:
    """A producer of ``kprod`` or ``confluent`` with the same settings, else the client's defaults."""
    return _CLIENTS[name](servers, request_timeout_ms, transactional_id)


def _kind(error: BaseException) -> str:
    """What errors are counted by: no numbers, no addresses."""
    told = error.args[0] if error.args else None
    name = getattr(told, "name", None)
    return str(name()) if callable(name) else type(error).__name__


class _Kprod:
    def __init__(self, servers: str, request_timeout_ms: int, transactional_id: str | None) -> None:
        options: dict[str, Any] = {"transactional_id": transactional_id} if transactional_id else {}
        self._producer = KafkaProducer(
            bootstrap_servers=servers, request_timeout_ms=request_timeout_ms, **options
        )

    def send(self, topic: str, partition: int, value: bytes, done: Done) -> None:
        def decided(error: object, _: object) -> None:
            done(error)

        try:
            self._producer.send(topic, value, partition=partition, on_delivery=decided)
        except KafkaError as error:
            raise Failed(Advice.ABORT, "send", error) from error

    def poll(self) -> None:
        pass

    def flush(self, timeout: float) -> None:
        try:
            self._producer.flush(timeout)
        except KafkaTimeoutError as error:
            raise Failed(Advice.AGAIN, "flush", error) from error

    def close(self) -> None:
        self._producer.close(10)

    def init(self, timeout: float) -> None:
        self._call("init_transactions", partial(self._producer.init_transactions, timeout))

    def begin(self) -> None:
        self._call("begin_transaction", self._producer.begin_transaction)

    def offsets(self, offsets: Offsets, timeout: float) -> None:
        from kafka import TopicPartition

        where = TopicPartition(offsets.topic, offsets.partition)
        self._call(
            "send_offsets_to_transaction",
            partial(
                self._producer.send_offsets_to_transaction, {where: offsets.offset}, offsets.group, timeout
            ),
        )

    def commit(self, timeout: float) -> None:
        self._call("commit_transaction", partial(self._producer.commit_transaction, timeout))

    def abort(self, timeout: float) -> None:
        self._call("abort_transaction", partial(self._producer.abort_transaction, timeout))

    def _call(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except KafkaTimeoutError as error:
            raise Failed(Advice.AGAIN, name, error) from error
        except KafkaError as error:
            # Whether the transaction can be aborted is told by abort_transaction().
            ended = name in ("abort_transaction", "init_transactions", "begin_transaction")
            raise Failed(Advice.NEW_PRODUCER if ended else Advice.ABORT, name, error) from error


class _Confluent:
    def __init__(self, servers: str, request_timeout_ms: int, transactional_id: str | None) -> None:
        from confluent_kafka import Consumer, Producer

        options: dict[str, Any] = {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "request.timeout.ms": request_timeout_ms,
            "socket.timeout.ms": request_timeout_ms,
            # As kprod's delivery_timeout_ms; at most transaction.timeout.ms.
            "message.timeout.ms": 60_000 if transactional_id else 120_000,
            "queue.buffering.max.messages": 300_000,
            "log_level": 1,
        }
        if transactional_id:
            options["transactional.id"] = transactional_id
        self._producer = Producer(options)

        def group(name: str) -> Any:
            consumer = Consumer({"bootstrap.servers": servers, "group.id": name, "log_level": 1})
            try:
                return consumer.consumer_group_metadata()
            finally:
                consumer.close()

        self._group = functools.cache(group)
        self._sent = itertools.count(1)

    def send(self, topic: str, partition: int, value: bytes, done: Done) -> None:
        from confluent_kafka import KafkaException

        def decided(error: object, _: object) -> None:
            done(error)

        while True:
            try:
                self._producer.produce(topic, value, partition=partition, on_delivery=decided)
                break
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as error:
                raise Failed(Advice.ABORT, "send", error) from error
        if next(self._sent) % 100 == 0:
            self._producer.poll(0)

    def poll(self) -> None:
        self._producer.poll(0)

    def flush(self, timeout: float) -> None:
        left = self._producer.flush(timeout)
        if left:
            raise Failed(Advice.AGAIN, "flush", TimeoutError(f"{left} records are left"))

    def close(self) -> None:
        from confluent_kafka import KafkaException

        # A producer that ended by a fatal error says so once more.
        with contextlib.suppress(KafkaException):
            self._producer.purge()
            self._producer.flush(10)

    def init(self, timeout: float) -> None:
        self._call("init_transactions", partial(self._producer.init_transactions, timeout))

    def begin(self) -> None:
        self._call("begin_transaction", self._producer.begin_transaction)

    def offsets(self, offsets: Offsets, timeout: float) -> None:
        from confluent_kafka import TopicPartition

        metadata = self._group(offsets.group)
        where = [TopicPartition(offsets.topic, offsets.partition, offsets.offset)]
        call = partial(self._producer.send_offsets_to_transaction, where, metadata, timeout)
        self._call("send_offsets_to_transaction", call)

    def commit(self, timeout: float) -> None:
        self._call("commit_transaction", partial(self._producer.commit_transaction, timeout))

    def abort(self, timeout: float) -> None:
        self._call("abort_transaction", partial(self._producer.abort_transaction, timeout))

    def _call(self, name: str, call: Callable[[], None]) -> None:
        from confluent_kafka import KafkaException

        try:
            call()
        except KafkaException as error:
            told = error.args[0]
            if told.retriable():
                advice = Advice.AGAIN
            elif told.txn_requires_abort():
                advice = Advice.ABORT
            else:
                advice = Advice.NEW_PRODUCER
            raise Failed(advice, name, error) from error


_CLIENTS: dict[str, Callable[[str, int, str | None], Client]] = {"kprod": _Kprod, "confluent": _Confluent}


def call_until_decided(call: Callable[[float], None], timeout: float, count: Callable[[str], None]) -> None:
    """Repeat a call that timed out, as applications are to do; ``count`` gets the reason each time.

    Raises:
        Failed: what is not a timeout; or a timeout, after ``timeout`` seconds of repetitions.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            call(10.0)
            return
        except Failed as failed:
            if failed.advice is not Advice.AGAIN or time.monotonic() > deadline:
                raise
            count(failed.reason)
