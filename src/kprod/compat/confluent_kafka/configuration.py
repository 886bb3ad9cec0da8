"""From librdkafka's option names, defaults and value texts to the options of kprod."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kprod.compat.confluent_kafka.error import KafkaError, KafkaException, code_named
from kprod.config import OPTIONS
from kprod.errors import KafkaConfigurationError
from kprod.option_types import Integer, Milliseconds
from kprod.partitioner import PARTITIONER_NAMES

FOREVER_MS = 2**31 - 1

ALIASES = {
    "metadata.broker.list": "bootstrap.servers",
    "request.required.acks": "acks",
    "delivery.timeout.ms": "message.timeout.ms",
    "linger.ms": "queue.buffering.max.ms",
    "compression.type": "compression.codec",
    "retries": "message.send.max.retries",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "sasl.mechanisms": "sasl.mechanism",
}
"""Second names of options: second name, the name used here."""

SAME = {
    "bootstrap.servers": "bootstrap_servers",
    "client.id": "client_id",
    "client.rack": "client_rack",
    "client.dns.lookup": "client_dns_lookup",
    "receive.message.max.bytes": "receive_message_max_bytes",
    "max.in.flight.requests.per.connection": "max_in_flight_requests_per_connection",
    "metadata.recovery.strategy": "metadata_recovery_strategy",
    "metadata.recovery.rebootstrap.trigger.ms": "metadata_recovery_rebootstrap_trigger_ms",
    "metadata.max.age.ms": "metadata_max_age_ms",
    "socket.send.buffer.bytes": "send_buffer_bytes",
    "socket.receive.buffer.bytes": "receive_buffer_bytes",
    "socket.connection.setup.timeout.ms": "socket_connection_setup_timeout_ms",
    "connections.max.idle.ms": "connections_max_idle_ms",
    "reconnect.backoff.ms": "reconnect_backoff_ms",
    "reconnect.backoff.max.ms": "reconnect_backoff_max_ms",
    "retry.backoff.ms": "retry_backoff_ms",
    "retry.backoff.max.ms": "retry_backoff_max_ms",
    "security.protocol": "security_protocol",
    "ssl.cipher.suites": "ssl_ciphers",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.key.pem": "ssl_keystore_key",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.certificate.pem": "ssl_keystore_certificate_chain",
    "ssl.ca.location": "ssl_cafile",
    "ssl.ca.pem": "ssl_truststore_certificates",
    "ssl.crl.location": "ssl_crlfile",
    "ssl.keystore.location": "ssl_keystore_location",
    "ssl.keystore.password": "ssl_keystore_password",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
    "transactional.id": "transactional_id",
    "transaction.timeout.ms": "transaction_timeout_ms",
    "enable.idempotence": "enable_idempotence",
    "enable.metrics.push": "enable_metrics_push",
    "enable.gapless.guarantee": "gapless",
    "acks": "acks",
    "compression.codec": "compression_type",
    "compression.level": "compression_level",
    "message.send.max.retries": "retries",
    "allow.auto.create.topics": "allow_auto_create_topics",
}
"""Options that mean the same in both: librdkafka's name, kprod's name."""

NOTHING_TO_DO = frozenset(
    [
        "api.version.fallback.ms",
        "api.version.request",
        "api.version.request.timeout.ms",
        "batch.num.messages",
        "broker.address.family",
        "broker.address.ttl",
        "broker.version.fallback",
        "builtin.features",
        "debug",
        "enable.random.seed",
        "enabled_events",
        "internal.termination.signal",
        "log.connection.close",
        "log.queue",
        "log.thread.name",
        "log_level",
        "message.copy.max.bytes",
        "metadata.request.timeout.ms",
        "plugin.library.paths",
        "queue.buffering.backpressure.threshold",
        "queuing.strategy",
        "sasl.oauthbearer.config",
        "socket.blocking.max.ms",
        "socket.keepalive.enable",
        "socket.max.fails",
        "socket.nagle.disable",
        "sticky.partitioning.linger.ms",
        "topic.blacklist",
        "topic.metadata.refresh.fast.cnt",
        "topic.metadata.refresh.fast.interval.ms",
        "topic.metadata.refresh.interval.ms",
        "topic.metadata.refresh.sparse",
    ]
)
"""Options of librdkafka that concern its own insides: taken, and without effect."""

CALLBACKS = ("error_cb", "stats_cb", "throttle_cb", "oauth_cb", "on_delivery", "dr_cb", "dr_msg_cb")

PARTITIONERS = tuple(name for name in PARTITIONER_NAMES if name not in ("default", "sticky", "round_robin"))

DEFAULTS: Mapping[str, Any] = {
    "client_id": "rdkafka",
    "retry_backoff_ms": 100,
    "retry_backoff_max_ms": 1000,
    "reconnect_backoff_ms": 100,
    "reconnect_backoff_max_ms": 10_000,
    "metadata_max_age_ms": 900_000,
    "metadata_recovery_strategy": "rebootstrap",
}
"""librdkafka's defaults where they differ, for options that are handed on as they are; the others have theirs
where they are read. Idempotence stays on, as in kprod: all that a program sees is that retries neither repeat
nor reorder."""


def invalid(message: str) -> KafkaException:
    """The exception for an option that cannot be taken."""
    return KafkaException(KafkaError(code_named("_INVALID_ARG"), message))


@dataclass
class Configuration:
    """What a ``Producer`` was configured with."""

    options: dict[str, Any] = field(default_factory=dict, repr=False)  # has passwords in it
    """kprod's options."""
    error_cb: Callable[[KafkaError], object] | None = None
    stats_cb: Callable[[str], object] | None = None
    throttle_cb: Callable[[Any], object] | None = None
    on_delivery: Callable[[Any, Any], object] | None = None
    logger: logging.Logger | None = None
    debug: str = ""
    """``debug``: only whether there is any; how much kprod logs is set at the logger ``kprod``."""
    only_errors: bool = False
    """Report only what was not delivered (``delivery.report.only.error``)."""
    max_messages: int = 100_000
    """Records that may wait (``queue.buffering.max.messages``); 0: any number."""
    message_timeout_s: float = 300.0
    statistics_interval_s: float = 0.0
    propagation_s: float = 30.0
    """How long a topic may be unknown (``topic.metadata.propagation.max.ms``), in seconds."""


def configure(given: Mapping[str, Any]) -> Configuration:
    """Read a configuration as ``confluent_kafka.Producer`` takes it.

    Raises:
        KafkaException: a property is not known or its value is not accepted; args[0] has code _INVALID_ARG.
        TypeError: a callback cannot be called.
    """
    conf: dict[str, Any] = {}
    for name, value in _flat(given):
        if not isinstance(name, str):
            raise TypeError(f"expected configuration property name as type str, not {type(name).__name__}")
        conf[ALIASES.get(name, name)] = value
    result = Configuration(options=dict(DEFAULTS))
    for name in CALLBACKS:
        callback = conf.pop(name, None)
        if callback is None:
            continue
        if not callable(callback):
            raise TypeError(f"expected {name} property as a callable function")
        if name == "oauth_cb":
            result.options["sasl_oauth_token_provider"] = _token_provider(callback, conf)
        else:
            setattr(result, "on_delivery" if name.startswith("dr_") else name, callback)
    result.logger = conf.pop("logger", None)
    result.debug = str(conf.get("debug") or "")
    _read_timeouts(conf, result)
    _read_rest(conf, result)
    return result


def _flat(given: Mapping[str, Any]) -> list[tuple[str, Any]]:
    topic = given.get("default.topic.config") or {}
    rest = [(name, value) for name, value in given.items() if name != "default.topic.config"]
    return [*rest, *topic.items()]


def _token_provider(callback: Callable[..., Any], conf: Mapping[str, Any]) -> Callable[[], str]:
    config = str(conf.get("sasl.oauthbearer.config") or "")

    def token() -> str:
        return str(callback(config)[0])

    return token


def _read_timeouts(conf: dict[str, Any], result: Configuration) -> None:
    """message.timeout.ms bounds the others here, where kprod demands that they fit."""
    options = result.options
    timeout = _number(conf, "message.timeout.ms", 300_000, 0, FOREVER_MS) or FOREVER_MS
    linger = _number(conf, "queue.buffering.max.ms", 5.0, 0, 900_000)
    # Both names are about the time that one request may take: librdkafka gives the broker request.timeout.ms
    # and waits for the answer in its socket.timeout.ms.
    request = _number(conf, "request.timeout.ms", 30_000, 1, 900_000)
    conf.pop("socket.timeout.ms", None)
    options["delivery_timeout_ms"] = max(timeout, 2)
    options["linger_ms"] = min(linger, options["delivery_timeout_ms"] / 2)
    options["request_timeout_ms"] = max(
        1, min(request, int(options["delivery_timeout_ms"] - options["linger_ms"]))
    )
    result.message_timeout_s = timeout / 1000
    result.statistics_interval_s = _number(conf, "statistics.interval.ms", 0, 0, 86_400_000) / 1000
    result.propagation_s = _number(conf, "topic.metadata.propagation.max.ms", 30_000, 0, 3_600_000) / 1000


def _read_rest(conf: dict[str, Any], result: Configuration) -> None:
    options = result.options
    result.max_messages = int(_number(conf, "queue.buffering.max.messages", 100_000, 0, FOREVER_MS))
    options["buffer_memory"] = int(
        _number(conf, "queue.buffering.max.kbytes", 1_048_576, 1, FOREVER_MS) * 1024
    )
    # A record that could never be buffered is refused for its size, as one over message.max.bytes is.
    largest = int(_number(conf, "message.max.bytes", 1_000_000, 1000, 1_000_000_000))
    options["max_request_size"] = min(largest, options["buffer_memory"])
    options["batch_size"] = min(
        int(_number(conf, "batch.size", 1_000_000, 1, FOREVER_MS)), options["max_request_size"]
    )
    result.only_errors = _flag(conf.pop("delivery.report.only.error", False))
    partitioner = conf.pop("partitioner", "consistent_random")
    if partitioner not in PARTITIONERS:
        raise invalid(
            f'Invalid value for configuration property "partitioner": {partitioner} '
            f"(accepted: {', '.join(PARTITIONERS)})"
        )
    options["partitioner"] = partitioner
    if not _flag(conf.pop("enable.ssl.certificate.verification", True)):
        raise invalid(
            "enable.ssl.certificate.verification=false is not taken over: an unverified broker could read "
            "every record. Name the certificate that the brokers have as ssl.ca.location"
        )
    algorithm = conf.pop("ssl.endpoint.identification.algorithm", "https")
    if algorithm in ("none", ""):
        options["ssl_check_hostname"] = False
    for name, value in conf.items():
        if name in SAME:
            if value is not None:
                options[SAME[name]] = _value(name, value)
        elif name not in NOTHING_TO_DO:
            near = difflib.get_close_matches(name, [*SAME, *ALIASES, *NOTHING_TO_DO], n=1, cutoff=0.7)
            hint = f' (did you mean "{near[0]}"?)' if near else ""
            raise invalid(f'No such configuration property: "{name}"{hint}')


def _value(name: str, value: Any) -> Any:
    if name in ("enable.idempotence", "enable.gapless.guarantee", "allow.auto.create.topics"):
        return _flag(value)
    if name == "acks":
        return "all" if str(value) in ("-1", "all") else int(value)
    if name == "security.protocol":
        return str(value).upper()
    if name == "compression.codec":
        return str(value)
    if name == "compression.level" and int(value) == -1:
        return None
    kind = OPTIONS[SAME[name]].kind
    if isinstance(value, str) and isinstance(getattr(kind, "kind", kind), (Integer, Milliseconds)):
        # Only for numbers: a password may consist of digits.
        try:
            return int(value)
        except ValueError:
            return value
    return value


def _flag(value: Any) -> bool:
    text = str(value).lower()
    if text in ("true", "t", "1"):
        return True
    if text in ("false", "f", "0"):
        return False
    raise invalid(f"Expected bool value, not {value!r}: true or false")


def _number(conf: dict[str, Any], name: str, default: float, least: float, most: float) -> float:
    value = conf.pop(name, None)
    if value is None:
        return default
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise invalid(f'Invalid value for configuration property "{name}": {value}') from None
    if not least <= number <= most:
        raise invalid(
            f'Configuration property "{name}" value {value} is outside allowed range {least:g}..{most:g}'
        )
    return number


def refused(error: KafkaConfigurationError) -> KafkaException:
    """kprod refused the options all the same."""
    return invalid(str(error))
