"""``logging`` to a Kafka topic, at no cost to the application but the formatting.

>>> logging.getLogger().addHandler(KafkaHandler({"bootstrap_servers": "kafka:9092"}, "logs"))
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

from kprod.errors import KafkaConfigurationError, KafkaError, NoBrokersAvailable
from kprod.producer import KafkaProducer

Key = str | bytes | Callable[[logging.LogRecord], "str | bytes | None"] | None

# What every LogRecord has: anything else came with `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


# How long until Kafka is tried again, where none could be reached when the handler was made.
_RECONNECT_S = 1.0


class LogQueueFullError(KafkaError):
    """A :class:`KafkaHandler` with ``on_full='raise'`` has no room for a record: Kafka is away or too "
    "slow."""


class JsonFormatter(logging.Formatter):
    """A log record as a JSON object on one line.

    It has ``timestamp`` (ISO 8601, UTC, microseconds), ``level``, ``logger``, ``message``, ``process``,
    ``thread``; ``exception``
    and ``stack`` where there are some; and what came with ``extra=``. What JSON has no form for is written as
    ``str()`` of it.

    Args:
        static: fields that every record gets, such as ``{"service": "shop"}``.
    """

    def __init__(self, static: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._static = dict(static or {})

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        whole = int(record.created)
        fields: dict[str, Any] = {
            **self._static,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
            + f".{int((record.created - whole) * 1e6):06d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            "thread": record.threadName,
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:  # a QueueHandler has formatted it
            fields["exception"] = record.exc_text
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in fields:
                fields[name] = value
        return json.dumps(fields, default=str, ensure_ascii=False)


def _producer_or_none(options: Mapping[str, Any]) -> KafkaProducer | None:
    """A producer, or None if no broker can be reached now: that must not keep a program from starting."""
    try:
        return KafkaProducer(**options)
    except NoBrokersAvailable:
        return None


class KafkaHandler(logging.Handler):
    """Sends log records to a topic.

    Logging never waits for Kafka: a record is formatted and put into a queue of at most ``queue_size``; a
    thread of the handler hands it to the producer, and may wait there. When Kafka is away the queue fills up,
    and then ``on_full`` says what becomes of further records. Nothing that goes wrong with Kafka is raised
    into the application, except by ``on_full='raise'``. What was lost is counted: :attr:`dropped` and
    :attr:`failed`.

    Records of kprod's own loggers are never sent, so that a producer that logs its troubles does not feed
    itself.
    In a child process after ``fork()`` a handler that was given options has a producer and a queue of its
    own; one that was given a producer drops records, because a producer does not live on in the child.

    Args:
        producer: options of a :class:`kprod.KafkaProducer`, which the handler makes and closes; or
            a producer, which stays yours to close, after the handler.
        topic: where the records go.
        key: text, bytes, or a function of the log record that gives one; None: no key, so that the records
            spread over the partitions and only those of one partition are in order.
        formatter: makes the text; None: :class:`JsonFormatter`.
        level: the least level that is sent.
        on_full: ``'drop'``: count and forget the record. ``'raise'``: :class:`LogQueueFullError` into the
            application.
        queue_size: how many records may wait for the producer, besides what its ``buffer_memory`` holds.
        close_timeout_ms: how long :meth:`close`, :meth:`flush`, and thereby the end of the program, may wait.

    Raises:
        KafkaConfigurationError: an argument or an option of the producer has a value that is not accepted.
        KafkaError: the producer could not be made, for instance because it may not log in. That no broker can
            be reached is no error: it is tried again each second.
    """

    def __init__(
        self,
        producer: KafkaProducer | Mapping[str, Any],
        topic: str,
        *,
        key: Key = None,
        formatter: logging.Formatter | None = None,
        level: int | str = logging.NOTSET,
        on_full: Literal["drop", "raise"] = "drop",
        queue_size: int = 10_000,
        close_timeout_ms: float = 5_000,
    ) -> None:
        if on_full not in ("drop", "raise"):
            raise KafkaConfigurationError(f"on_full={on_full!r}: must be 'drop' or 'raise'")
        if isinstance(queue_size, bool) or not isinstance(queue_size, int) or queue_size < 1:
            raise KafkaConfigurationError(f"queue_size={queue_size!r}: must be an int of at least 1")
        if close_timeout_ms < 0:
            raise KafkaConfigurationError(f"close_timeout_ms={close_timeout_ms!r}: must not be negative")
        if not isinstance(topic, str) or not topic:
            raise KafkaConfigurationError(f"topic={topic!r}: must be the name of a topic")
        if not isinstance(producer, Mapping) and not callable(getattr(producer, "send", None)):
            raise KafkaConfigurationError(
                f"producer={producer!r}: must be a KafkaProducer or a mapping of its options"
            )
        if not (key is None or isinstance(key, (str, bytes)) or callable(key)):
            raise KafkaConfigurationError(
                f"key={key!r}: must be str, bytes, a function of the log record or None"
            )
        self._options = dict(producer) if isinstance(producer, Mapping) else None
        # Before Handler.__init__(), which makes logging know of the handler: it must be whole then.
        made = producer if self._options is None else _producer_or_none(self._options)
        super().__init__(level)
        self.setFormatter(formatter or JsonFormatter())
        self.topic = topic
        self._key = key
        self._on_full = on_full
        self._queue_size = queue_size
        self._close_timeout_s = close_timeout_ms / 1000
        self._closed = False
        self._start(made)

    def _start(self, producer: Any) -> None:
        """Begin in this process, with nothing sent."""
        self._producer = producer
        # Hooks run in the order opposite to their registration: this one before the producer's own.
        atexit.unregister(self.close)
        atexit.register(self.close)
        self._pid = os.getpid()
        self._queue: deque[tuple[bytes, bytes | None, int]] = deque()
        # Guards the queue, the counters and the two flags. It is apart from the handler's own lock, which
        # logging holds while a record is formatted.
        self._changed = threading.Condition()
        self._busy = False
        self._stopping = False
        self.dropped = 0
        """How many records found no room, or came after :meth:`close`."""
        self.failed = 0
        """How many records the producer refused or could not deliver."""
        self.delivered = 0
        """How many records are acknowledged."""
        self._thread = threading.Thread(target=self._run, name="kprod-logging", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and queue it; called by ``logging``.

        Raises:
            LogQueueFullError: there is no room, and ``on_full`` is ``'raise'``.
        """
        name = record.name
        if name == "kprod" or name.startswith("kprod."):
            return
        if os.getpid() != self._pid and not self._reborn():
            self.dropped += 1
            return
        if threading.get_ident() == self._thread.ident:
            return  # a serializer or an interceptor of the producer logs: that would never end
        try:
            key = self._key(record) if callable(self._key) else self._key
            item = (
                self.format(record).encode("utf-8", "backslashreplace"),
                key.encode("utf-8") if isinstance(key, str) else key,
                int(record.created * 1000),
            )
        except Exception:
            self.handleError(record)  # as every handler: a traceback on stderr, if logging.raiseExceptions
            return
        with self._changed:
            if not self._stopping and len(self._queue) < self._queue_size:
                self._queue.append(item)
                self._changed.notify_all()
                return
            self.dropped += 1
            full = not self._stopping
        if full and self._on_full == "raise":
            raise LogQueueFullError(
                f"queue_size={self._queue_size} log records wait for topic {self.topic}: Kafka is away "
                f"or too "
                f"slow; raise queue_size, or use on_full='drop'",
                topic=self.topic,
            )

    def flush(self, timeout: float | None = None) -> None:
        """Wait until what was logged so far is delivered or has failed; raises nothing.

        Args:
            timeout: seconds; None: ``close_timeout_ms``.
        """
        if os.getpid() != self._pid:
            return
        deadline = time.monotonic() + (self._close_timeout_s if timeout is None else timeout)
        with self._changed:
            idle = self._changed.wait_for(
                lambda: not self._queue and not self._busy, max(0.0, deadline - time.monotonic())
            )
        if idle and self._producer is not None and threading.get_ident() != self._thread.ident:
            try:
                self._producer.flush(max(0.0, deadline - time.monotonic()))
            except (KafkaError, RuntimeError):
                pass  # what is not delivered is counted when it fails

    def close(self) -> None:
        """Deliver what is queued, within ``close_timeout_ms``, and stop; raises nothing."""
        if not self._closed:
            self._closed = True
            deadline = time.monotonic() + self._close_timeout_s
            if os.getpid() == self._pid:
                self.flush()
                with self._changed:
                    self._stopping = True
                    self.dropped += len(self._queue)
                    self._queue.clear()
                    self._changed.notify_all()
                if self._options is not None and self._producer is not None:
                    # Also ends a send() that waits.
                    try:
                        self._producer.close(max(0.0, deadline - time.monotonic()))
                    except (KafkaError, RuntimeError):
                        pass
                if threading.get_ident() != self._thread.ident:
                    self._thread.join(max(0.1, deadline - time.monotonic()))
        atexit.unregister(self.close)
        super().close()

    def _reborn(self) -> bool:
        """Start anew in a child process, if the handler can."""
        if self._options is None or self._closed:
            return False
        try:
            self._start(_producer_or_none(self._options))
        except Exception:
            return False  # the next record tries again
        return True

    def _run(self) -> None:
        while self._producer is None:
            with self._changed:
                if self._changed.wait_for(lambda: self._stopping, _RECONNECT_S):
                    return
            assert self._options is not None
            try:
                self._producer = _producer_or_none(self._options)
            except Exception:
                continue  # what a broker refuses now, such as a login, it may accept later
            if self._stopping and self._producer is not None:
                self._producer.close(0)
                return
            atexit.unregister(self.close)
            atexit.register(self.close)
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if not self._queue:
                    return
                self._busy = True
                value, key, timestamp_ms = self._queue.popleft()
            try:
                self._producer.send(
                    self.topic, value, key=key, timestamp_ms=timestamp_ms, on_delivery=self._delivered
                )
            except Exception:
                # Of the producer, or of a serializer or partitioner that is not made for log lines: neither
                # may
                # end the thread, and reporting it through logging would come back here.
                with self._changed:
                    self.failed += 1

    def _delivered(self, error: KafkaError | None, metadata: object) -> None:
        with self._changed:
            if error is None:
                self.delivered += 1
            else:
                self.failed += 1
