"""Messages for topics whose partitions are not known yet: librdkafka's unassigned queue.

``produce()`` never waits, so a message for a new topic is kept until the topic's metadata have come, or
fails after ``message.timeout.ms``.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from kprod import errors
from kprod.compat.confluent_kafka.error import KafkaError, code_named, delivery_error, text_of

Sender = Callable[..., object]


class Waiting(NamedTuple):
    """A message that waits for its topic."""

    arguments: tuple[Any, ...]
    """Of ``KafkaProducer.send()`` after the topic."""
    failed: Callable[[KafkaError], object]
    """Told when it will not be sent."""
    deadline: float
    """When it is too old, in monotonic seconds."""


class Unassigned:
    """The messages that wait, by topic and in order.

    Args:
        send: ``KafkaProducer.send`` of a producer whose ``max_block_ms`` is 0; None: there are no brokers.
        propagation_s: how long a topic may be unknown to the brokers, in seconds.
    """

    def __init__(self, send: Sender | None, propagation_s: float) -> None:
        self._send = send
        self._propagation_s = propagation_s
        self._topics: dict[str, collections.deque[Waiting]] = {}
        self._unknown_since: dict[str, float] = {}
        self._assigned: set[str] = set()
        self._lock = threading.Lock()

    def send(
        self, topic: str, arguments: tuple[Any, ...], failed: Callable[[KafkaError], object], deadline: float
    ) -> bool:
        """Send a message, or keep it for later; False: it was kept. Arguments: see :class:`Waiting`.

        Raises:
            BufferExhaustedError, ValueError, TypeError, ...: what send() raises, except for lack of metadata.
        """
        if topic in self._assigned and self._send is not None:
            try:
                self._send(topic, *arguments)
                return True
            except errors.BufferExhaustedError:
                raise
            except errors.KafkaTimeoutError:
                pass
        with self._lock:
            self._assigned.discard(topic)
            queue = self._topics.get(topic)
            if not queue and self._send is not None:
                try:
                    self._send(topic, *arguments)
                    self._assigned.add(topic)
                    return True
                except errors.BufferExhaustedError:
                    raise
                except errors.KafkaTimeoutError:
                    pass
            if queue is None:
                queue = self._topics[topic] = collections.deque()
            queue.append(Waiting(arguments, failed, deadline))
            return False

    def __bool__(self) -> bool:
        return bool(self._topics)

    def advance(self) -> float | None:
        """Send what can be sent now and fail what is too old.

        Returns:
            When the next message is too old, in monotonic seconds; None: nothing waits.
        """
        failures: list[tuple[Waiting, KafkaError]] = []
        with self._lock:
            now = time.monotonic()
            for topic in list(self._topics):
                self._advance_topic(topic, now, failures)
            following = min((queue[0].deadline for queue in self._topics.values()), default=None)
        for message, error in failures:
            message.failed(error)
        return following

    def _advance_topic(self, topic: str, now: float, failures: list[tuple[Waiting, KafkaError]]) -> None:
        queue = self._topics[topic]
        while queue and queue[0].deadline <= now:
            failures.append((queue.popleft(), _error("_MSG_TIMED_OUT")))
        while queue and self._send is not None:
            try:
                self._send(topic, *queue[0].arguments)
            except errors.BufferExhaustedError:
                return
            except errors.KafkaTimeoutError as error:
                if not isinstance(error.__cause__, errors.UnknownTopicOrPartitionError):
                    self._unknown_since.pop(topic, None)
                elif now - self._unknown_since.setdefault(topic, now) >= self._propagation_s:
                    failures.extend((message, _error("_UNKNOWN_TOPIC")) for message in queue)
                    queue.clear()
                break
            except errors.KafkaError as error:
                failures.append((queue.popleft(), delivery_error(error)))
            except ValueError:
                failures.append((queue.popleft(), _error("_UNKNOWN_PARTITION")))
            except Exception as error:
                failures.append((queue.popleft(), KafkaError(code_named("_FAIL"), str(error))))
            else:
                queue.popleft()
                self._assigned.add(topic)
        if not queue:
            del self._topics[topic]
            self._unknown_since.pop(topic, None)
        else:
            self._assigned.discard(topic)

    def purge(self) -> None:
        """Fail everything that waits."""
        with self._lock:
            messages = [message for queue in self._topics.values() for message in queue]
            self._topics.clear()
        for message in messages:
            message.failed(_error("_PURGE_QUEUE"))


def _error(name: str) -> KafkaError:
    code = code_named(name)
    return KafkaError(code, text_of(code))
