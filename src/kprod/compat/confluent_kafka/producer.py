"""confluent-kafka's ``Producer`` on kprod's engine."""

from __future__ import annotations

import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kprod import errors
from kprod._version import __version__
from kprod.compat.confluent_kafka import cluster, log, statistics
from kprod.compat.confluent_kafka.configuration import Configuration, configure, refused
from kprod.compat.confluent_kafka.error import (
    KafkaError,
    KafkaException,
    call_error,
    code_named,
    delivery_error,
    text_of,
)
from kprod.compat.confluent_kafka.message import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    ClusterMetadata,
    Message,
    ThrottleEvent,
)
from kprod.compat.confluent_kafka.reports import Reports
from kprod.compat.confluent_kafka.unassigned import Unassigned
from kprod.producer import KafkaProducer

if TYPE_CHECKING:
    from typing_extensions import Self

DeliveryCallback = Callable[[KafkaError | None, Message], object]

_logger = logging.getLogger("kprod.compat.confluent_kafka")

_CHECK_S = 0.1
"""How often the state of the brokers is looked at for ``error_cb`` and ``throttle_cb``."""

_KICK_S = 0.05
"""How often a ``flush()`` that waits closes the batches that were opened meanwhile."""


class Producer:
    """Sends messages, with the interface of ``confluent_kafka.Producer``.

    Callbacks run inside ``poll()``, ``flush()`` and the calls that end transactions, on the thread that calls
    them. ``produce()`` never waits for the network.

    Args:
        *args: the configuration: a mapping with librdkafka's property names.
        **kwargs: more of it.

    Raises:
        KafkaException: a property is not known or its value is not accepted (``_INVALID_ARG``).
        TypeError: there is no configuration, or a callback cannot be called.
    """

    _producer: KafkaProducer | None = None
    _open = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) > 1 or (args and not isinstance(args[0], Mapping)) or not (args or kwargs):
            raise TypeError("expected configuration dict")
        conf = configure({**(args[0] if args else {}), **kwargs})
        self._conf: Configuration = conf
        self._logger = conf.logger or _logger
        client_id = conf.options["client_id"]
        self._end_log: Callable[[], object] = (
            (lambda: None) if conf.logger is None else log.forward(self, conf.logger, client_id)
        )
        if conf.debug:
            text = f"kprod {__version__} as librdkafka's producer, debug {conf.debug}"
            log.write(self._logger, logging.DEBUG, "INIT", client_id, text)
        self._reports = Reports()
        self._under_way = 0
        self._count_lock = threading.Lock()
        self._unfinished: str | None = None
        """The transactional call that timed out and must be made again."""
        if conf.options.get("bootstrap_servers"):
            options = {**conf.options, "max_block_ms": 0, "bootstrap_timeout_ms": 0}
            try:
                self._producer = KafkaProducer(options)
            except errors.KafkaConfigurationError as error:
                raise refused(error) from error
        else:
            self._logger.warning("no bootstrap.servers: messages will wait until message.timeout.ms is over")
        self._unassigned = Unassigned(
            None if self._producer is None else self._producer.send, conf.propagation_s
        )
        self._open = True
        self._work = threading.Condition()
        self._worker: threading.Thread | None = None
        if conf.error_cb or conf.throttle_cb or (conf.stats_cb and conf.statistics_interval_s):
            self._start_worker()

    # -- messages

    def produce(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int = -1,
        callback: DeliveryCallback | None = None,
        on_delivery: DeliveryCallback | None = None,
        timestamp: int = 0,
        headers: Any = None,
    ) -> None:
        """Send a message; returns at once, and ``callback(err, msg)`` is called by a later ``poll()``.

        Args:
            topic: the topic.
            value, key: bytes, or str that becomes UTF-8; None: null.
            partition: its number; -1: the partitioner chooses.
            callback, on_delivery: two names of the same; None: that of the configuration.
            timestamp: ms since 1970; 0: now.
            headers: a dict or list of pairs; values are bytes, str or None.

        Raises:
            BufferError: ``queue.buffering.max.messages`` or ``.kbytes`` is reached: poll and try again.
            KafkaException: the message is refused.
            TypeError: an argument has the wrong type.
        """
        self._check_open()
        self._produce(topic, value, key, partition, callback or on_delivery, timestamp, headers)

    def _produce(
        self,
        topic: str,
        value: Any,
        key: Any,
        partition: int,
        callback: DeliveryCallback | None,
        timestamp: int,
        headers: Any,
    ) -> None:
        if not isinstance(topic, str):
            raise TypeError(f"topic must be a str, not {type(topic).__name__}")
        if type(partition) is not int:
            raise TypeError(f"partition must be an int, not {type(partition).__name__}")
        if partition < -1:
            raise _exception("_UNKNOWN_PARTITION")
        if callback is None:
            callback = self._conf.on_delivery
        elif not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        if isinstance(value, str):
            value = value.encode()
        if isinstance(key, str):
            key = key.encode()
        pairs = _headers(headers) if headers else None
        limit = self._conf.max_messages
        with self._count_lock:
            if limit and self._under_way + len(self._reports) >= limit:
                raise BufferError(text_of(code_named("_QUEUE_FULL")))
            self._under_way += 1
        now = time.monotonic()
        if callback is None:
            decided: Callable[..., object] = self._count_down
        else:
            decided = functools.partial(self._decided, callback, topic, value, key, pairs, partition, now)
        arguments = (value, key, pairs, None if partition < 0 else partition, timestamp or None, decided)
        try:
            if not self._unassigned.send(topic, arguments, decided, now + self._conf.message_timeout_s):
                self._start_worker()
        except BaseException as error:
            with self._count_lock:
                self._under_way -= 1
            if isinstance(error, errors.BufferExhaustedError):
                raise BufferError(text_of(code_named("_QUEUE_FULL"))) from error
            if isinstance(error, errors.KafkaError):
                raise call_error(error) from error
            if isinstance(error, ValueError):
                name = "_UNKNOWN_PARTITION" if "partition" in str(error) else "_INVALID_ARG"
                raise _exception(name, str(error)) from error
            raise

    def _count_down(self, error: Any, metadata: Any = None) -> None:
        with self._count_lock:
            self._under_way -= 1
            empty = self._under_way == 0
        if empty:
            self._reports.wake()

    def _decided(
        self,
        callback: DeliveryCallback,
        topic: str,
        value: Any,
        key: Any,
        headers: Any,
        partition: int,
        since: float,
        error: Any,
        metadata: Any = None,
    ) -> None:
        """A message was delivered or not; the report waits for a poll()."""
        if error is None and self._conf.only_errors:
            self._count_down(error, metadata)
            return
        if error is None:
            kind = TIMESTAMP_LOG_APPEND_TIME if metadata.timestamp_type == 1 else TIMESTAMP_CREATE_TIME
            message = Message(
                topic,
                value,
                key,
                headers,
                None,
                metadata.offset if metadata.offset >= 0 else None,
                metadata.partition,
                (kind, metadata.timestamp),
                metadata.latency_ms / 1000,
            )
            reason = None
        else:
            reason = error if isinstance(error, KafkaError) else delivery_error(error)
            number = getattr(error, "partition", None)
            message = Message(
                topic,
                value,
                key,
                headers,
                reason,
                None,
                partition if number is None else number,
                (TIMESTAMP_NOT_AVAILABLE, -1),
                time.monotonic() - since,
            )
        with self._count_lock:
            self._reports.add(functools.partial(callback, reason, message))
            self._under_way -= 1

    def produce_batch(
        self,
        topic: str,
        messages: list[dict[str, Any]],
        partition: int = -1,
        callback: DeliveryCallback | None = None,
        on_delivery: DeliveryCallback | None = None,
    ) -> int:
        """Send several messages.

        Args:
            topic: the topic.
            messages: dicts with ``value``, ``key``, ``partition``, ``timestamp``, ``headers``, ``callback``,
                all optional. A message that is refused gets ``_error``, a KafkaError.
            partition, callback, on_delivery: for those that have none of their own.

        Returns:
            How many were taken.

        Raises:
            TypeError: an argument or a message has the wrong type; nothing was sent then.
        """
        self._check_open()
        if not isinstance(topic, str):
            raise TypeError(f"topic must be a str, not {type(topic).__name__}")
        if type(partition) is not int:
            raise TypeError(f"partition must be an int, not {type(partition).__name__}")
        if not isinstance(messages, list):
            raise TypeError(f"messages must be a list, not {type(messages).__name__}")
        for index, message in enumerate(messages):
            _check_message(index, message)
        common = callback or on_delivery
        taken = 0
        for message in messages:
            message.pop("_error", None)
            try:
                self._produce(
                    topic,
                    message.get("value"),
                    message.get("key"),
                    message.get("partition", partition),
                    message.get("callback") or message.get("on_delivery") or common,
                    message.get("timestamp") or 0,
                    message.get("headers"),
                )
                taken += 1
            except BufferError as error:
                message["_error"] = KafkaError(code_named("_QUEUE_FULL"), str(error), retriable=True)
            except KafkaException as error:
                message["_error"] = error.args[0]
        return taken

    # -- callbacks

    def poll(self, timeout: float = -1) -> int:
        """Run the callbacks that are due.

        Args:
            timeout: seconds to wait for the first one; -1: as long as it takes.

        Returns:
            How many ran.
        """
        self._check_open()
        served = self._reports.serve()
        if served or timeout == 0:
            return served
        deadline = _deadline(timeout)
        while not served and self._open and self._reports.wait(deadline):
            served = self._reports.serve()
        return served

    def flush(self, timeout: float = -1) -> int:
        """Send everything now and wait for it, running callbacks.

        Args:
            timeout: seconds; -1: as long as it takes.

        Returns:
            How many messages and events are left.
        """
        self._check_open()
        return self._flush(_deadline(timeout))

    def _flush(self, deadline: float | None) -> int:
        while True:
            self._reports.serve()
            left = len(self)
            if left == 0:
                return 0
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return left
            self._kick()
            soon = now + _KICK_S
            self._reports.wait(soon if deadline is None else min(deadline, soon))

    def _kick(self) -> None:
        """Close the open batches: what is in them leaves without waiting for linger.ms."""
        if self._producer is not None:
            try:
                self._producer.flush(0)
            except errors.KafkaTimeoutError:
                pass

    def purge(self, in_queue: bool = True, in_flight: bool = True, blocking: bool = True) -> None:
        """Drop messages; each gets a report with ``_PURGE_QUEUE`` or ``_PURGE_INFLIGHT``.

        Args:
            in_queue: those that wait.
            in_flight: those that were sent and not answered; they may be written all the same.
            blocking: without effect: nothing here waits.
        """
        self._check_open()
        if in_queue:
            self._unassigned.purge()
        if self._producer is not None:
            self._producer.purge(in_queue, in_flight)

    def __len__(self) -> int:
        return self._under_way + len(self._reports) if self._open else 0

    def __bool__(self) -> bool:
        return True

    # -- transactions

    def init_transactions(self, timeout: float = -1) -> None:
        """Get the producer id of ``transactional.id`` and fence older producers that have it."""
        self._transactional("init_transactions", timeout)

    def begin_transaction(self) -> None:
        """Begin a transaction."""
        self._transactional("begin_transaction", None)

    def send_offsets_to_transaction(self, positions: Any, group_metadata: Any, timeout: float = -1) -> None:
        """Commit a group's offsets with the transaction.

        Args:
            positions: list of TopicPartition with offsets.
            group_metadata: ``consumer.consumer_group_metadata()``.
            timeout: seconds; -1: as long as it takes.
        """
        self._transactional("send_offsets_to_transaction", timeout, positions, group_metadata)

    def commit_transaction(self, timeout: float = -1) -> None:
        """Flush, running callbacks, then commit."""
        self._transactional("commit_transaction", timeout)

    def abort_transaction(self, timeout: float = -1) -> None:
        """Drop what was not sent, then abort; the callbacks run here."""
        self._transactional("abort_transaction", timeout)

    def _transactional(self, name: str, timeout: float | None, *arguments: Any) -> None:
        self._check_open()
        if self._unfinished not in (None, name):
            raise KafkaException(
                KafkaError(
                    code_named("_CONFLICT"),
                    f"{self._unfinished}() has timed out and goes on: call it again before {name}()",
                    retriable=True,
                )
            )
        if not self._conf.options.get("transactional_id"):
            raise _exception(
                "_NOT_CONFIGURED", "The Transactional API requires transactional.id to be configured"
            )
        deadline = _deadline(timeout)
        try:
            if self._producer is None:
                self._reports.wait(deadline)
                raise errors.KafkaTimeoutError("no bootstrap.servers")
            if name in ("commit_transaction", "send_offsets_to_transaction"):
                if self._flush(deadline):
                    raise errors.KafkaTimeoutError(f"{name}() timed out while messages were under way")
            elif name == "abort_transaction":
                self._unassigned.purge()
            call = getattr(self._producer, name)
            if timeout is None:
                call(*arguments)
            else:
                left = _FOREVER_S if deadline is None else max(0.0, deadline - time.monotonic())
                call(*arguments, timeout=left)
        except errors.KafkaTimeoutError as error:
            self._unfinished = name if timeout is not None else None
            raise call_error(error) from error
        except errors.KafkaError as error:
            self._unfinished = None
            raise call_error(error) from error
        self._unfinished = None
        if name in ("commit_transaction", "abort_transaction"):
            self._reports.serve()

    # -- the cluster

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> ClusterMetadata:
        """Brokers, topics and partitions of the cluster.

        Args:
            topic: only this one; None: all.
            timeout: seconds; -1: as long as it takes.

        Raises:
            KafkaException: no broker answered in time (``_TRANSPORT``).
        """
        self._check_open()
        seconds = _FOREVER_S if timeout < 0 else timeout
        engine = None if self._producer is None else self._producer._engine_started
        if engine is None:
            self._reports.wait(_deadline(timeout))
            raise _exception("_TRANSPORT", "Failed to get metadata: no bootstrap.servers")
        try:
            node, body = engine.describe_cluster(None if topic is None else [topic], seconds)
        except errors.KafkaTimeoutError as error:
            raise _exception("_TRANSPORT", f"Failed to get metadata: {error}") from error
        return cluster.described(node, body)

    def set_sasl_credentials(self, username: str, password: str) -> None:
        """Change the credentials for PLAIN and SCRAM: they are used from the next authentication on.

        Without effect where SASL is not configured, as in librdkafka.

        Args:
            username: the name.
            password: the password.

        Raises:
            TypeError: one of them is not a str.
        """
        self._check_open()
        for name, value in (("username", username), ("password", password)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a str, not {type(value).__name__}")
        if self._producer is None:
            return
        try:
            # As callables: librdkafka takes an empty name or password as well.
            self._producer.set_sasl_credentials(lambda: username, lambda: password)
        except errors.IllegalStateError:
            self._logger.debug("set_sasl_credentials() is without effect: SASL is not configured")

    # -- the end

    def close(self) -> bool:
        """Abort an open transaction, deliver what was accepted, run its callbacks and stop."""
        if not self._open:
            return True
        producer = self._producer
        engine = None if producer is None else producer._engine_started
        if producer is not None and engine is not None and engine.transaction_state == "in transaction":
            self._unassigned.purge()
            try:
                producer.abort_transaction(self._conf.message_timeout_s)
            except errors.KafkaError as error:
                self._logger.warning("the open transaction could not be aborted: %s", error)
        try:
            self._flush(None)
        finally:
            with self._work:
                self._open = False
                self._work.notify_all()
            self._reports.wake()
            if producer is not None:
                producer.close()
            self._end_log()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._open:
            self.close()

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("Producer has been closed")

    # -- what has to be looked after while nobody calls

    def _start_worker(self) -> None:
        with self._work:
            if self._worker is None:
                self._worker = threading.Thread(
                    target=_Worker(self).run, name=f"{self._conf.options['client_id']}-events", daemon=True
                )
                self._worker.start()
            else:
                self._work.notify_all()


class _Worker:
    """Sends messages whose topic has become known, and reports events.

    It ends with its producer: it holds that only while it works, not while it waits.
    """

    def __init__(self, producer: Producer) -> None:
        self._work = producer._work
        self._gone = False
        self._owner = weakref.ref(producer, self._producer_gone)
        self._trouble: str | None = None
        self._throttle_ms = 0
        self._pause = 0.005
        self._statistics_at = time.monotonic() + producer._conf.statistics_interval_s

    def _producer_gone(self, _: object) -> None:
        with self._work:
            self._gone = True
            self._work.notify_all()

    def run(self) -> None:
        while (owner := self._owner()) is not None and owner._open:
            expires, wake_at = self._look_after(owner)
            with self._work:
                idle = owner._open and (expires is not None or not owner._unassigned)
                # Before the wait, and before _gone is read: this may be the last that holds it.
                del owner
                if idle and not self._gone:
                    self._work.wait(max(0.0, min(wake_at) - time.monotonic()) if wake_at else None)

    def _look_after(self, owner: Producer) -> tuple[float | None, list[float]]:
        """Do what is due; returns when the next message is too old, and when there is something to do."""
        conf = owner._conf
        watches = bool(conf.error_cb or conf.throttle_cb)
        expires = owner._unassigned.advance() if owner._unassigned else None
        now = time.monotonic()
        if watches:
            self._watch(owner)
        wake_at = [now + _CHECK_S] if watches else []
        if conf.stats_cb and conf.statistics_interval_s:
            if now >= self._statistics_at:
                self._statistics_at = now + conf.statistics_interval_s
                owner._reports.add(functools.partial(conf.stats_cb, statistics.as_json(owner)))
            wake_at.append(self._statistics_at)
        if expires is not None:
            self._pause = min(self._pause * 1.5, _CHECK_S)
            wake_at += [expires, now + self._pause]
        else:
            self._pause = 0.005
        return expires, wake_at

    def _watch(self, owner: Producer) -> None:
        conf = owner._conf
        engine = None if owner._producer is None else owner._producer._engine_started
        if engine is None:
            return
        trouble = engine.connection_trouble()
        if trouble is not None and self._trouble is None and conf.error_cb is not None:
            code = code_named("_RESOLVE" if "resol" in trouble.lower() else "_TRANSPORT")
            owner._reports.add(functools.partial(conf.error_cb, KafkaError(code, trouble)))
            down = KafkaError(code_named("_ALL_BROKERS_DOWN"), f"all brokers are down: {trouble}")
            owner._reports.add(functools.partial(conf.error_cb, down))
        self._trouble = trouble
        if conf.throttle_cb is not None:
            throttled = int(engine.counters()["loop"]["throttle_ms"])
            if throttled > self._throttle_ms:
                event = ThrottleEvent("", -1, (throttled - self._throttle_ms) / 1000)
                owner._reports.add(functools.partial(conf.throttle_cb, event))
            self._throttle_ms = throttled


_FOREVER_S = 7 * 24 * 3600.0


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None or timeout < 0 else time.monotonic() + timeout


def _exception(name: str, reason: str | None = None) -> KafkaException:
    return KafkaException(KafkaError(code_named(name), reason))


def _headers(headers: Any) -> list[tuple[str, bytes | None]]:
    if isinstance(headers, Mapping):
        headers = list(headers.items())
    elif not isinstance(headers, list):
        raise TypeError(f"headers must be a dict or a list of pairs, not {type(headers).__name__}")
    pairs = []
    for pair in headers:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"a header must be a pair (name, value), not {pair!r}")
        name, value = pair
        if isinstance(value, str):
            value = value.encode()
        elif value is not None and not isinstance(value, bytes):
            raise TypeError(
                f"the value of header {name!r} must be bytes, str or None, not {type(value).__name__}"
            )
        pairs.append((str(name), value))
    return pairs


def _check_message(index: int, message: Any) -> None:
    if not isinstance(message, dict):
        raise TypeError(f"Message at index {index} must be a dict, not {type(message).__name__}")
    for name in ("value", "key"):
        given = message.get(name)
        if given is not None and not isinstance(given, (bytes, str)):
            raise TypeError(
                f"Message {name} at index {index} must be bytes or str, not {type(given).__name__}"
            )
    for name in ("partition", "timestamp"):
        if name in message and type(message[name]) is not int:
            raise TypeError(
                f"Message {name} at index {index} must be int, not {type(message[name]).__name__}"
            )
