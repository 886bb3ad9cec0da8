"""What the application's threads and the control thread both see."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kprod import delivery, threads
from kprod._core.accumulator import Accumulator, Topic
from kprod._core.io import NetworkLoop
from kprod.cluster.metadata import ClusterSnapshot
from kprod.cluster.node import Backoff
from kprod.config import ProducerConfig
from kprod.delivery import DeliveryReporter
from kprod.errors import KafkaError
from kprod.metrics import BlockedTime, Metrics

if TYPE_CHECKING:
    from kprod.security.sasl import Sasl
    from kprod.security.tls import TlsSettings

logger = logging.getLogger("kprod.engine")


class TopicState:
    """A topic that is sent to, or was asked for.

    Attributes:
        error: the error code metadata last gave for it.
        asked: metadata responses that covered it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.handle: Topic | None = None
        self.error = 0
        self.asked = 0
        self.last_used = time.monotonic()


class Shared:
    """The state of a producer that more than one of its threads touches.

    Who writes what:

    ======================================  ======================  ===================================
    attribute                               written by              guarded by
    ======================================  ======================  ===================================
    ``config``, ``reporter``, ``retry``,    nobody
    ``tls``
    ``accumulator``, ``loop``, ``sasl``,    any thread              themselves
    ``metrics``, ``blocked``
    ``cluster``, ``refreshed_at``           control                 ``changed`` (read without it: it is
                                                                    replaced as a whole)
    ``topics``: entries, ``last_used``      application, control    ``changed``
    ``topics``: the rest; ``handles``       control                 ``changed``
    ``fatal_error``                         any thread, once        ``changed``
    ``closing``, ``forked``                 application, once       nothing: they only become true
    ======================================  ======================  ===================================

    The state machine of transactions is guarded by ``changed`` too, see :mod:`kprod.engine.transactions`.
    Everything else that the control thread has is touched by that thread only.

    Args:
        config: the checked options.
        reporter: makes the exceptions that applications get.
        accumulator: the records under way.
        loop: the network loop.
        tls: how to encrypt; None: not at all.
        sasl: how to authenticate; None: not at all.
    """

    def __init__(
        self,
        config: ProducerConfig,
        reporter: DeliveryReporter,
        accumulator: Accumulator,
        loop: NetworkLoop,
        tls: TlsSettings | None = None,
        sasl: Sasl | None = None,
    ) -> None:
        self.config = config
        self.reporter = reporter
        self.accumulator = accumulator
        self.loop = loop
        self.tls = tls
        self.sasl = sasl
        self.metrics = Metrics(config)
        self.blocked = BlockedTime()
        self.retry = Backoff(config.retry_backoff_ms / 1000, config.retry_backoff_max_ms / 1000)
        self.changed = threads.condition()
        """Notified when anything changes that an application thread waits for. A fork replaces it."""
        self.cluster = ClusterSnapshot()
        self.refreshed_at = 0.0
        """When metadata came last; 0: never."""
        self.topics: dict[str, TopicState] = {}
        self.handles: list[Topic] = []
        """By the number that the core has for a topic."""
        self.fatal_error: KafkaError | None = None
        self.closing = False
        self.forked = False
        self._inbox: collections.deque[Callable[[], None]] = collections.deque()

    def call_in_control(self, function: Callable[[], None]) -> None:
        """Let the control thread call `function` soon."""
        self._inbox.append(function)
        self.loop.wake_control()

    def run_calls(self) -> None:
        """Do what :meth:`call_in_control` was given; the control thread's."""
        while self._inbox:
            self._inbox.popleft()()

    def notify(self) -> None:
        """Wake the application threads that wait for something."""
        with self.changed:
            self.changed.notify_all()

    def check_open(self) -> None:
        """Raise what ended the producer: close(), a fatal error or a fork."""
        gate = self.accumulator.gate
        if gate > delivery.GATE_NO_TRANSACTION:
            raise self.reporter.gate_error(gate)

    def check_not_forked(self) -> None:
        """Raise ForkedProcessError in the child of a fork."""
        if self.forked:
            raise self.reporter.gate_error(delivery.GATE_FORKED)

    def fail(self, error: KafkaError) -> None:
        """The producer can send nothing more: say so everywhere, at once."""
        logger.error("%s: fatal: %s", self.config.client_id, error)
        with self.changed:
            self.fatal_error = self.fatal_error or error
            self.changed.notify_all()
        self.accumulator.set_gate(delivery.GATE_FATAL)
        self.loop.fail_all(delivery.FATAL)

    def after_fork_in_child(self) -> None:
        """The child of a fork has none of the threads: refuse everything."""
        self.forked = True
        self.accumulator.set_gate(delivery.GATE_FORKED)
        # Another thread may have held it at the fork.
        self.changed = threads.condition()
