"""KafkaProducer: what applications use."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kprod import errors
from kprod._core.producer import ProducerCore
from kprod.config import ProducerConfig
from kprod.engine import Engine
from kprod.metrics import Metrics
from kprod.partitioner import ResolvedPartitioner, resolve_partitioner
from kprod.serializers import as_callable, as_unary

if TYPE_CHECKING:
    from typing_extensions import Self


class KafkaProducer(ProducerCore):
    """Sends records to Apache Kafka, with the guarantees of the Java producer.

    One producer can be shared by any number of threads. ``send()`` puts a record into a batch and returns a future;
    threads of the producer send the batches, retry them in order, and run callbacks. By default it is idempotent:
    every record is written once and in order, whatever the network does.

    >>> producer = KafkaProducer(bootstrap_servers="localhost:9092")    # doctest: +SKIP
    >>> future = producer.send("events", b"value", key=b"key")          # doctest: +SKIP
    >>> future.get(timeout=10).offset                                   # doctest: +SKIP
    0
    >>> producer.close()                                                # doctest: +SKIP

    Args:
        options: a mapping of options with the names of the Java producer (``{"bootstrap.servers": ...}``) or
            with underscores; numbers and booleans may be text there.
        **kwargs: options with underscores. See docs/options.md; the names of kafka-python are the same.

    Raises:
        KafkaConfigurationError: an option is unknown, out of range, or contradicts another.
        NoBrokersAvailable: no bootstrap server could be reached; the message says why for each.
    """

    _engine_started: Engine | None = None
    _closed = False

    def __init__(self, options: Mapping[str, object] | None = None, /, **kwargs: object) -> None:
        config = ProducerConfig.from_options(options, kwargs)
        try:
            partitioner = resolve_partitioner(config.partitioner)
            functions: dict[str, Any] = {
                "key_unary": as_unary(config.key_serializer, "key"),
                "value_unary": as_unary(config.value_serializer, "value"),
                "key_full": as_callable(config.key_serializer, "key"),
                "value_full": as_callable(config.value_serializer, "value"),
            }
        except (TypeError, ValueError) as error:
            raise errors.KafkaConfigurationError(str(error)) from error
        self.config: dict[str, Any] = config.as_dict()
        self._options = config
        self._partitioner: ResolvedPartitioner = partitioner
        self._metrics = Metrics(config)
        engine = Engine(config)
        self._engine_started = engine
        native = partitioner.native
        self._bind(
            engine,
            engine.accumulator,
            choose=None if native in ("default", "round_robin") else partitioner.choose,
            on_delivery=config.on_delivery,
            max_block_s=config.max_block_ms / 1000,
            max_request_size=config.max_request_size,
            round_robin=native == "round_robin",
            ignore_keys=config.partitioner_ignore_keys,
            **functions,
        )
        # Like kafka-python: who gives api_version does not want to wait for the network.
        if config.bootstrap_timeout_ms > 0 and "api_version" not in config.without_effect:
            try:
                engine.wait_bootstrapped(config.bootstrap_timeout_ms / 1000)
            except BaseException:
                self._closed = True
                engine.close(0)
                raise

    def flush(self, timeout: float | None = None) -> None:
        """Send everything at once and wait until it is decided and its callbacks have run.

        Errors of single records are on their futures and callbacks, not raised here.

        Args:
            timeout: seconds; None: as long as it takes, which ``delivery_timeout_ms`` bounds.

        Raises:
            KafkaTimeoutError: the timeout ran out; the records stay under way.
            IllegalStateError: called inside a delivery callback.
        """
        engine = self._engine_started
        if engine is not None and not self._closed:
            engine.flush(_seconds(timeout))

    def close(self, timeout: float | None = None) -> None:
        """Refuse new records, deliver what was accepted, stop the threads. A second call does nothing.

        Args:
            timeout: seconds to wait for records under way; None: as long as it takes. What is left then fails
                with ProducerClosedError on its future and callback. 0 fails everything at once.

        Raises:
            ValueError: the timeout is negative.
        """
        seconds = _seconds(timeout)
        engine = self._engine_started
        if engine is None or self._closed:
            return
        self._closed = True
        self._metrics.final(engine.counters())
        engine.close(seconds)
        for owner in (self._options.key_serializer, self._options.value_serializer, self._partitioner.source):
            closer = getattr(owner, "close", None)
            if callable(closer) and not isinstance(owner, type):
                closer()

    def purge(self, in_queue: bool = True, in_flight: bool = True) -> None:
        """Drop records that are not acknowledged; each fails with PurgedError.

        Args:
            in_queue: those that wait to be sent (first or again).
            in_flight: those that were sent and not answered; they may be written all the same.
        """
        if self._engine_started is not None and not self._closed:
            self._engine_started.purge(in_queue, in_flight)

    def partitions_for(self, topic: str) -> set[int]:
        """Numbers of a topic's partitions.

        Raises:
            KafkaTimeoutError: no metadata within ``max_block_ms``.
            TopicAuthorizationFailedError, InvalidTopicError: the brokers refuse the topic.
        """
        return self._running().partitions_for(topic, self._options.max_block_ms / 1000)

    def bootstrap_connected(self) -> bool:
        """Whether there is a connection to a broker of the cluster now."""
        engine = self._engine_started
        return engine is not None and not self._closed and engine.bootstrap_connected()

    def metrics(self, raw: bool = False) -> dict[str, dict[str, Any]] | None:
        """Figures by group and name, with the names of the Java producer; see docs/metrics.md.

        Args:
            raw: the counters themselves instead of rates and averages.

        Returns:
            ``{"producer-metrics": {"record-send-rate": ...}, ...}``; None when ``metrics_enabled`` is off.
        """
        engine = self._engine_started
        if engine is None or not self._options.metrics_enabled:
            return None
        counters = self._metrics.last if self._closed else engine.counters()
        return counters if raw else self._metrics.snapshot(counters)

    def _running(self) -> Engine:
        engine = self._engine_started
        if engine is None:
            raise RuntimeError("KafkaProducer.__init__() has not been called")
        if self._closed:
            raise errors.ProducerClosedError("the KafkaProducer is closed")
        return engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        options = getattr(self, "_options", None)
        if options is None:
            return "<KafkaProducer not initialised>"
        servers = ",".join(f"{host}:{port}" for host, port in options.bootstrap_servers)
        state = "closed" if self._closed else "open"
        return f"<KafkaProducer client_id={options.client_id} bootstrap_servers={servers} {state}>"

    def __del__(self) -> None:
        engine = self._engine_started
        if engine is None or self._closed:
            return
        self._closed = True
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)
        # What was accepted is still delivered; nothing waits for it.
        engine.close_in_background()


def _seconds(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be seconds or None, got {type(timeout).__name__}: {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be >= 0 seconds, got {timeout!r}")
    return float(timeout)
