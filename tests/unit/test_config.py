"""kprod.config: names, values, derived rules, and what the errors say."""

from __future__ import annotations

import logging
import math
import pickle
import re
import ssl
import threading
import warnings
from types import MappingProxyType
from typing import Any

import kafka
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprod import config as config_module
from kprod.config import FOREIGN_NAMES, NO_EFFECT, NOT_AVAILABLE, OPTIONS, ProducerConfig, TopicOptions
from kprod.errors import KafkaConfigurationError, KafkaError, UnknownOptionError
from kprod.serializers import JsonSerializer, StringSerializer


def make(mapping: Any = None, /, **kwargs: Any) -> ProducerConfig:
    return ProducerConfig.from_options(mapping, kwargs)


def refused(mapping: Any = None, /, **kwargs: Any) -> str:
    """The text of the error that these options raise."""
    with pytest.raises(KafkaConfigurationError) as caught:
        make(mapping, **kwargs)
    return str(caught.value)


# --- Defaults -----------------------------------------------------------------------------------------------


def test_defaults_are_those_of_java_4() -> None:
    made = make()
    assert made.bootstrap_servers == (("localhost", 9092),)
    assert made.acks == -1
    assert made.enable_idempotence is True
    assert made.max_in_flight_requests_per_connection == 5
    assert made.retries == 2**31 - 1
    assert made.linger_ms == 5
    assert made.batch_size == 16384
    assert made.buffer_memory == 32 * 1024 * 1024
    assert made.delivery_timeout_ms == 120_000
    assert made.max_block_ms == 60_000
    assert made.max_request_size == 1_048_576
    assert made.request_timeout_ms == 30_000
    assert (made.retry_backoff_ms, made.retry_backoff_max_ms) == (100, 1000)
    assert (made.reconnect_backoff_ms, made.reconnect_backoff_max_ms) == (50, 1000)
    assert made.metadata_max_age_ms == 300_000
    assert made.metadata_max_idle_ms == 300_000
    assert made.connections_max_idle_ms == 540_000
    assert made.compression_type == "none"
    assert made.security_protocol == "PLAINTEXT"
    assert made.explicit == frozenset()


def test_defaults_are_what_the_kinds_would_accept() -> None:
    for option in OPTIONS.values():
        assert option.kind.parse(option.default, False) == option.default, option.name


def test_every_option_is_documented() -> None:
    for option in OPTIONS.values():
        assert option.doc.endswith("."), option.name
        assert option.kind.accepts, option.name
        assert option.group, option.name


# --- Names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_is_known_by_both_spellings(name: str) -> None:
    option = OPTIONS[name]
    value = option.default
    if name in ("transactional_id", "topic_options"):
        value = option.default or {}
    if name == "transactional_id":
        value = None
    # Spelling is tested on the option alone: combinations have tests of their own.
    for spelling in (name, option.dotted_name):
        values, without_effect = config_module._collect({spelling: value}, {})
        assert list(values) == [name]
        assert without_effect == {}


def test_every_option_of_kafka_python_is_accepted() -> None:
    known = {*OPTIONS, *NO_EFFECT, *NOT_AVAILABLE}
    known |= {alias for option in OPTIONS.values() for alias in option.aliases}
    assert set(kafka.KafkaProducer.DEFAULT_CONFIG) - known == set()


@pytest.mark.parametrize(
    "name",
    # kafka-python 2.0 had these, 3.0 has not; 3.1 will have the last four.
    ["buffer_memory", "api_version_auto_timeout_ms", "bootstrap_topics_filter", "sock_chunk_bytes"]
    + ["sock_chunk_buffer_count", "selector", "net", "default_api_timeout_ms"]
    + ["socket_connection_setup_timeout_ms", "socket_connection_setup_timeout_max_ms"],
)
def test_options_of_older_and_newer_kafka_python_are_accepted(name: str) -> None:
    assert name in OPTIONS or name in NO_EFFECT


def test_the_tables_do_not_overlap() -> None:
    names = [*OPTIONS, *(alias for option in OPTIONS.values() for alias in option.aliases)]
    names += [*NO_EFFECT, *NOT_AVAILABLE, *FOREIGN_NAMES]
    assert len(names) == len(set(names))
    assert set(FOREIGN_NAMES.values()) <= set(OPTIONS)


def test_dotted_mapping_and_keywords_together() -> None:
    made = make({"bootstrap.servers": "a:1", "linger.ms": "7"}, acks="all")
    assert made.bootstrap_servers == (("a", 1),)
    assert made.linger_ms == 7
    assert made.explicit == {"bootstrap_servers", "linger_ms", "acks"}


def test_any_mapping_type_is_accepted() -> None:
    assert make(MappingProxyType({"linger_ms": 3})).linger_ms == 3


@pytest.mark.parametrize(
    ("mapping", "kwargs", "spellings"),
    [
        ({"linger.ms": 1}, {"linger_ms": 1}, ("mapping key 'linger.ms'", "keyword argument 'linger_ms'")),
        ({"linger.ms": 1, "linger_ms": 2}, {}, ("mapping key 'linger.ms'", "mapping key 'linger_ms'")),
        ({"partitioner.class": "random"}, {"partitioner": "random"}, ("partitioner.class", "partitioner")),
    ],
)
def test_an_option_given_twice_is_refused(
    mapping: dict[str, Any], kwargs: dict[str, Any], spellings: tuple[str, str]
) -> None:
    text = refused(mapping, **kwargs)
    assert "is given twice" in text
    assert all(spelling in text for spelling in spellings)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("linger_mss", "Did you mean 'linger_ms'?"),
        ("linger.mss", "Did you mean 'linger.ms'?"),
        ("bootstrap_server", "Did you mean 'bootstrap_servers'?"),
        ("compresion.type", "Did you mean 'compression.type'?"),
        ("queue.buffering.max.ms", "It is called 'linger.ms' here."),
        ("message.timeout.ms", "It is called 'delivery.timeout.ms' here."),
        ("max_batch_size", "It is called 'batch_size' here."),
        ("xyzzy", "docs/options.md"),
    ],
)
def test_unknown_option_says_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownOptionError) as caught:
        make({name: 1})
    assert hint in str(caught.value)
    assert f"{name!r} (mapping key)" in str(caught.value)
    with pytest.raises(UnknownOptionError, match="keyword argument"):
        make(**{name: 1})


def test_unknown_option_is_a_value_error_as_in_kafka_python() -> None:
    with pytest.raises(ValueError):
        make(bogus=1)


def test_options_must_be_a_mapping() -> None:
    assert "must be a mapping or keyword arguments, not str" in refused("localhost:9092")
    assert "is not a str" in refused({1: 2})


# --- Values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a:1,b:2", (("a", 1), ("b", 2))),
        (" a:1 , b ", (("a", 1), ("b", 9092))),
        (["a:1", "b:2"], (("a", 1), ("b", 2))),
        (("a:1",), (("a", 1),)),
        (["a:1,b:2", "c"], (("a", 1), ("b", 2), ("c", 9092))),
        ([("a", 1), ["b", 2]], (("a", 1), ("b", 2))),
        ("[::1]:9093", (("::1", 9093),)),
        ("[fe80::1%eth0]", (("fe80::1%eth0", 9092),)),
        ("localhost", (("localhost", 9092),)),
        ("10.0.0.1:65535", (("10.0.0.1", 65535),)),
        ("a:1,a:1,b:1,a:2", (("a", 1), ("b", 1), ("a", 2))),
        ("kafka_1.svc-x:1", (("kafka_1.svc-x", 1),)),
    ],
)
def test_bootstrap_servers(value: object, expected: object) -> None:
    assert make(bootstrap_servers=value).bootstrap_servers == expected


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "bootstrap_servers=None is not accepted"),
        ("", "there is no address in it"),
        (" , ", "there is no address in it"),
        ([], "there is no address in it"),
        (9092, "bootstrap_servers=9092 is not accepted"),
        ("a:x", "'a:x': the port must be a number from 1 to 65535"),
        ("a:", "the port must be a number"),
        ("a:0", "the port must be a number from 1 to 65535"),
        ("a:65536", "the port must be a number from 1 to 65535"),
        ("a:-1", "the port must be a number from 1 to 65535"),
        ("a:1:2", "an IPv6 address must stand in brackets"),
        ("::1", "an IPv6 address must stand in brackets"),
        ("[::1", "is not a host and port"),
        ("[::1]9092", "is not a host and port"),
        (":9092", "is not a host and port"),
        ("a b:1", "is not a host and port"),
        ("PLAINTEXT://a:1", "without the protocol before '://'"),
        ([b"a:1"], "b'a:1' is neither a str nor a (host, port) pair"),
        ([("a", "1")], "is neither a str nor a (host, port) pair"),
        ([("a", 70000)], "the port must be a number from 1 to 65535"),
    ],
)
def test_bad_bootstrap_servers(value: object, why: str) -> None:
    text = refused(bootstrap_servers=value)
    assert why in text
    assert "'host:port,host:port'" in text


def test_a_password_in_an_address_is_not_repeated() -> None:
    for value in ("kafka://me:hunter2@host:1", ["me:hunter2@host:1"], ["a:1", "me:hunter2@host"]):
        assert "hunter2" not in refused(bootstrap_servers=value)


@pytest.mark.parametrize(
    ("value", "stored"), [("all", -1), ("ALL", -1), (-1, -1), ("-1", -1), (1, 1), ("1", 1), (0, 0), ("0", 0)]
)
def test_acks(value: object, stored: int) -> None:
    assert make(acks=value, enable_idempotence=False).acks == stored


@pytest.mark.parametrize("value", [2, -2, "2", "any", None, True, 1.0, b"all"])
def test_bad_acks(value: object) -> None:
    assert f"acks={value!r} is not accepted: it takes 'all' (or -1), 1 or 0." in refused(acks=value)


def test_retries_may_be_infinite_as_in_kafka_python() -> None:
    assert make(retries=math.inf).retries == 2**31 - 1
    assert "retries=-inf is not accepted" in refused(retries=-math.inf)
    assert "retries=nan is not accepted" in refused(retries=math.nan)
    assert "batch_size=inf is not accepted" in refused(batch_size=math.inf)


@pytest.mark.parametrize(
    ("value", "stored"),
    [(None, "none"), ("none", "none"), ("gzip", "gzip"), ("LZ4", "lz4"), ("zstd", "zstd")],
)
def test_compression_type(value: object, stored: str) -> None:
    assert make(compression_type=value).compression_type == stored


def test_durations_may_have_fractions() -> None:
    assert make(linger_ms=0.5).linger_ms == 0.5
    assert make({"linger.ms": "0.5"}).linger_ms == 0.5
    assert make({"linger.ms": " 5 "}).linger_ms == 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"linger_ms": -1}, "linger_ms=-1 is not accepted: it takes milliseconds, 0 or more."),
        ({"linger_ms": math.nan}, "linger_ms=nan is not accepted"),
        ({"linger_ms": math.inf}, "linger_ms=inf is not accepted (the largest value is 2147483647)"),
        ({"linger_ms": None}, "linger_ms=None is not accepted"),
        ({"linger_ms": True}, "linger_ms=True is not accepted"),
        ({"linger_ms": [5]}, "linger_ms=[5] is not accepted"),
        ({"batch_size": -1}, "batch_size=-1 is not accepted: it takes a whole number, 0 or more."),
        ({"batch_size": 1.5}, "batch_size=1.5 is not accepted"),
        ({"batch_size": 2**31}, "batch_size=2147483648 is not accepted (the largest value is 2147483647)"),
        ({"buffer_memory": 0}, "buffer_memory=0 is not accepted"),
        ({"buffer_memory": 2**63}, "the largest value is 9223372036854775807"),
        ({"max_in_flight_requests_per_connection": 0}, "it takes a whole number, 1 or more"),
        ({"metadata_max_idle_ms": 4999}, "it takes milliseconds, 5000 or more"),
        ({"compression_type": "brotli"}, "it takes one of 'none', 'gzip', 'snappy', 'lz4', 'zstd'"),
        ({"compression_type": 3}, "compression_type=3 is not accepted"),
        ({"compression_gzip_level": 10}, "it takes a whole number from -1 to 9, or None"),
        ({"compression_gzip_level": 0}, "compression_gzip_level=0 is not accepted: gzip takes -1"),
        ({"compression_lz4_level": -1}, "it takes a whole number from 0 to 17"),
        ({"compression_zstd_level": 23}, "it takes a whole number from -131072 to 22"),
        ({"enable_idempotence": 1}, "enable_idempotence=1 is not accepted: it takes True or False."),
        ({"enable_idempotence": "yes"}, "enable_idempotence='yes' is not accepted"),
        ({"client_id": 7}, "client_id=7 is not accepted: it takes a str or None."),
        ({"client_dns_lookup": "default"}, "client_dns_lookup='default' is not accepted: it takes one of"),
        ({"security_protocol": "FOO"}, "it takes one of 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL'"),
        ({"sasl_mechanism": "MD5"}, "sasl_mechanism='MD5' is not accepted: it takes one of 'PLAIN'"),
        ({"ssl_context": object()}, "it takes an ssl.SSLContext, or None"),
        ({"on_delivery": 5}, "on_delivery=5 is not accepted: it takes a callable, or None."),
        ({"key_serializer": 5}, "key_serializer=5 is not accepted: it takes a callable, an object"),
        ({"value_serializer": JsonSerializer}, "an instance is needed, JsonSerializer(), not the class"),
        ({"value_serializer": "JaxbSerializer"}, "'JaxbSerializer' is none of ByteArraySerializer"),
        ({"partitioner": 5}, "partitioner=5 is not accepted"),
        ({"partitioner": "murmur3"}, "'murmur3' is none of default"),
        ({"socket_options": [(1, 2)]}, "it takes a list of (level, option, value) tuples"),
        ({"topic_options": 5}, "it takes a mapping from topic names to mappings"),
        ({"transactional_id": ""}, "it takes a non-empty str, or None"),
        ({"receive_message_max_bytes": 10}, "it takes a whole number, 1024 or more"),
        ({"api_version": "two"}, "it takes a tuple such as (2, 8)"),
        ({"api_version": (2, -1)}, "api_version=(2, -1) is not accepted"),
    ],
)
def test_values_out_of_range_say_option_value_and_what_is_accepted(
    options: dict[str, Any], text: str
) -> None:
    assert text in refused(**options)


def test_text_is_parsed_in_mappings_only() -> None:
    made = make({"batch.size": "10", "enable.idempotence": "TRUE", "request_timeout_ms": "1000"})
    assert made.batch_size == 10
    assert made.enable_idempotence is True
    assert made.request_timeout_ms == 1000
    assert "batch_size='10' is not accepted" in refused(batch_size="10")
    assert "enable_idempotence='true' is not accepted" in refused(enable_idempotence="true")
    assert "batch.size='1o' is not accepted" in refused({"batch.size": "1o"})
    assert "linger.ms='fast' is not accepted" in refused({"linger.ms": "fast"})
    assert "enable.idempotence='1' is not accepted" in refused({"enable.idempotence": "1"})


def test_long_values_are_cut_in_messages() -> None:
    assert len(refused(compression_type="x" * 10_000)) < 500


@settings(deadline=None)  # every option is parsed: slow under sanitizers
@given(st.text(max_size=40) | st.integers() | st.floats() | st.none() | st.binary(max_size=8))
def test_no_value_of_any_option_gives_anything_but_a_configuration_error(value: object) -> None:
    for option in OPTIONS.values():
        for text in (False, True):
            try:
                config_module._parse(option.kind, option.name, value, text, option.secret)
            except KafkaConfigurationError as error:
                assert option.name in str(error)


def test_send_buffer_none_means_the_operating_systems_choice() -> None:
    made = make(send_buffer_bytes=None, receive_buffer_bytes=4096)
    assert (made.send_buffer_bytes, made.receive_buffer_bytes) == (-1, 4096)


def test_java_class_names_of_serializers_and_partitioners() -> None:
    made = make(
        {
            "key.serializer": "org.apache.kafka.common.serialization.StringSerializer",
            "partitioner.class": "org.apache.kafka.clients.producer.RoundRobinPartitioner",
        }
    )
    assert isinstance(made.key_serializer, StringSerializer)
    assert made.partitioner == "round_robin"
    assert "removed from Kafka 4.0" in refused(partitioner="UniformStickyPartitioner")


# --- Client id ----------------------------------------------------------------------------------------------


def test_client_ids_are_counted() -> None:
    first, second = make().client_id, make(client_id="").client_id
    assert re.fullmatch(r"kprod-producer-\d+", first)
    assert first != second
    assert make(client_id=None).client_id not in (first, second)
    assert make(client_id="mine").client_id == "mine"


def test_client_ids_differ_also_across_threads() -> None:
    barrier = threading.Barrier(8)
    seen: list[str] = []

    def ask() -> None:
        barrier.wait()
        seen.extend(make().client_id for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(seen)) == 160


# --- Idempotence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"acks": 1}, {"acks": 0}, {"retries": 0}, {"acks": 1, "retries": 0}])
def test_idempotence_is_switched_off_with_a_log_message(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "kprod"):
        assert make(**options).enable_idempotence is False
    assert "Idempotence is off because of" in caplog.text
    for name, value in options.items():
        assert f"{name}={value}" in caplog.text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"acks": 1}, "contradicts acks=1: idempotence needs acks='all'"),
        ({"acks": 0}, "contradicts acks=0"),
        ({"retries": 0}, "contradicts retries=0: idempotence needs retries > 0"),
        ({"max_in_flight_requests_per_connection": 6}, "max_in_flight_requests_per_connection=6 contradicts"),
    ],
)
def test_idempotence_that_was_asked_for_is_not_switched_off(options: dict[str, Any], reason: str) -> None:
    text = refused(enable_idempotence=True, **options)
    assert reason in text
    assert "enable_idempotence=True" in text


def test_too_many_requests_in_flight_contradict_the_default() -> None:
    text = refused(max_in_flight_requests_per_connection=6)
    assert "contradicts idempotence, which is on by default" in text
    assert "at most 5" in text
    assert make(max_in_flight_requests_per_connection=5).enable_idempotence


@pytest.mark.parametrize("other", [{"enable_idempotence": False}, {"acks": 1}])
def test_without_idempotence_any_number_may_be_in_flight(other: dict[str, Any]) -> None:
    made = make(max_in_flight_requests_per_connection=100, **other)
    assert made.max_in_flight_requests_per_connection == 100
    assert made.enable_idempotence is False


def test_idempotence_off_without_a_message_if_that_was_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "kprod"):
        made = make(enable_idempotence=False, acks=1, retries=0)
    assert made.enable_idempotence is False
    assert caplog.text == ""


def test_gapless_needs_idempotence() -> None:
    assert make(gapless=True).gapless
    assert "gapless=True contradicts" in refused(gapless=True, enable_idempotence=False)
    assert "gapless=True contradicts" in refused(gapless=True, acks=1)


# --- Times and sizes ----------------------------------------------------------------------------------------


def test_delivery_timeout_below_linger_and_request_timeout() -> None:
    text = refused(delivery_timeout_ms=1000, linger_ms=10, request_timeout_ms=2000)
    assert "delivery_timeout_ms=1000 is less than linger_ms + request_timeout_ms = 10 + 2000 = 2010" in text
    assert make(delivery_timeout_ms=2010, linger_ms=10, request_timeout_ms=2000).delivery_timeout_ms == 2010


def test_default_delivery_timeout_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kprod"):
        assert make(request_timeout_ms=200_000).delivery_timeout_ms == 200_005
    assert "delivery_timeout_ms is raised to 200005" in caplog.text


@pytest.mark.parametrize(
    ("base", "most", "default_base", "default_most"),
    [
        ("retry_backoff_ms", "retry_backoff_max_ms", 100, 1000),
        ("reconnect_backoff_ms", "reconnect_backoff_max_ms", 50, 1000),
        ("socket_connection_setup_timeout_ms", "socket_connection_setup_timeout_max_ms", 10_000, 30_000),
    ],
)
def test_backoffs_and_their_limits(base: str, most: str, default_base: int, default_most: int) -> None:
    both = make(**{base: 40_000})
    assert (getattr(both, base), getattr(both, most)) == (40_000, 40_000)
    both = make(**{most: 7})
    assert (getattr(both, base), getattr(both, most)) == (7, 7)
    both = make(**{base: 8, most: 9})
    assert (getattr(both, base), getattr(both, most)) == (8, 9)
    assert (getattr(make(), base), getattr(make(), most)) == (default_base, default_most)
    assert f"{base}=10 is more than {most}=9" in refused(**{base: 10, most: 9})


def test_largest_request_and_memory() -> None:
    assert "max_request_size=2000 is more than buffer_memory=1999" in refused(
        max_request_size=2000, buffer_memory=1999
    )
    assert make(buffer_memory=20_000).max_request_size == 20_000
    assert make(max_request_size=1 << 27).buffer_memory == 1 << 27
    same = make(max_request_size=2000, buffer_memory=2000)
    assert (same.max_request_size, same.buffer_memory) == (2000, 2000)


def test_largest_batch_and_memory() -> None:
    assert "batch_size=3000 is more than buffer_memory=2000" in refused(batch_size=3000, buffer_memory=2000)
    assert make(buffer_memory=1000).batch_size == 1000
    assert make(batch_size=1 << 26).buffer_memory == 1 << 26
    assert "batch_size=3000 of topic 't' is more than buffer_memory=2000" in refused(
        buffer_memory=2000, topic_options={"t": {"batch_size": 3000}}
    )


# --- Compression --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "level"), [("gzip", 9), ("lz4", 12), ("zstd", -5), ("zstd", 19)])
def test_compression_level_is_of_the_chosen_codec(codec: str, level: int) -> None:
    made = make(compression_type=codec, compression_level=level)
    assert made.compression_level_of(codec) == level
    others = {"gzip", "lz4", "zstd"} - {codec}
    assert [made.compression_level_of(other) for other in others] == [None, None]


def test_compression_level_by_the_codecs_own_option() -> None:
    made = make({"compression.gzip.level": "3", "compression.zstd.level": 7, "compression.type": "zstd"})
    assert made.compression_level_of("gzip") == 3
    assert made.compression_level_of("zstd") == 7
    assert made.compression_level_of("lz4") is None
    assert made.compression_level_of("snappy") is None
    assert made.compression_level_of("none") is None
    assert make(compression_gzip_level=-1).compression_level_of("gzip") is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"compression_level": 3}, "compression_level=3 contradicts compression_type='none'"),
        ({"compression_type": "snappy", "compression_level": 1}, "'snappy', which has no levels"),
        (
            {"compression_type": "gzip", "compression_level": 10},
            "is not accepted: gzip takes -1 (zlib's default) or 1..9",
        ),
        ({"compression_type": "gzip", "compression_level": 0}, "is not accepted: gzip takes -1"),
        ({"compression_type": "lz4", "compression_level": 18}, "is not accepted: lz4 takes 0..2 (fast)"),
        ({"compression_type": "zstd", "compression_level": 23}, "compression_level=23 is not accepted"),
        (
            {"compression_type": "zstd", "compression_level": 3, "compression_zstd_level": 4},
            "compression_level=3 and compression_zstd_level=4 contradict each other",
        ),
    ],
)
def test_bad_compression_levels(options: dict[str, Any], text: str) -> None:
    assert text in refused(**options)


# --- Options of topics --------------------------------------------------------------------------------------


def test_topic_options() -> None:
    made = make(
        topic_options={
            "logs": {"compression.type": "zstd", "compression_level": 5, "batch_size": 131072},
            "plain": TopicOptions(compression_type="none"),
        }
    )
    assert made.topic_options["logs"] == TopicOptions("zstd", 5, None, 131072)
    assert made.topic_options["plain"] == TopicOptions("none")
    assert make({"topic.options": {"t": {"batch.size": "5"}}}).topic_options["t"].batch_size == 5
    assert make(enable_idempotence=False, topic_options={"t": {"acks": 1}}).topic_options["t"].acks == 1
    assert make(topic_options={"t": {"acks": "all"}}).topic_options["t"].acks == -1


def test_topic_level_without_type_is_for_the_producers_codec() -> None:
    made = make(compression_type="gzip", topic_options={"t": {"compression_level": 2}})
    assert made.topic_options["t"].compression_level == 2
    assert "its compression_type 'none', which has no levels" in refused(
        topic_options={"t": {"compression_level": 2}}
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"t": {"linger_ms": 5}}, "topic 't' has 'linger_ms', but a topic can only have compression_type"),
        ({"t": {"acks": 5}}, "topic 't' has acks=5, which takes 'all' (or -1), 1 or 0"),
        ({"t": {"batch_size": 1, "batch.size": 1}}, "topic 't' has batch_size twice"),
        ({"t": {"compression_type": "x"}}, "topic 't' has compression_type='x', which takes one of"),
        ({"t": None}, "the options of topic 't' must be a mapping, not None"),
        ({"t t": {}}, "topic may only have ASCII letters"),
        ({"": {}}, "topic must not be empty"),
        ({5: {}}, "the name 5 is not a str"),
        ({"t": {"acks": 1}}, "acks=1 of topic 't' contradicts idempotence"),
        ({"t": {"compression_type": "gzip", "compression_level": 10}}, "gzip takes -1"),
    ],
)
def test_bad_topic_options(value: object, text: str) -> None:
    assert text in refused(topic_options=value)


# --- What is not there, or has no effect --------------------------------------------------------------------


def test_security_options_without_security_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="ssl_cafile, ssl_password have no effect: .* nothing is encrypted"):
        make(ssl_cafile="/ca.pem", ssl_password="secret")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(security_protocol="plaintext", ssl_check_hostname=True, ssl_cafile=None, ssl_context=None)


def test_two_phase_commit() -> None:
    made = make(transactional_id="t", transaction_two_phase_commit_enable=True)
    assert made.transaction_two_phase_commit_enable is True
    assert make({"transactional.id": "t"}).transaction_two_phase_commit_enable is False


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"enable_idempotence": False}, "enable_idempotence=False contradicts transactional_id"),
        ({"acks": 1}, "transactional_id contradicts acks=1"),
        ({"retries": 0}, "transactional_id contradicts retries=0"),
        (
            {"transaction_two_phase_commit_enable": True, "transaction_timeout_ms": 5},
            "transaction_timeout_ms contradicts",
        ),
    ],
)
def test_contradictions_with_transactions_are_named_first(options: dict[str, Any], text: str) -> None:
    assert text in refused(transactional_id="t", **options)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("proxy_url", "socks5://proxy:1080", "has no support for proxies"),
        ("socks5_proxy", "socks5://proxy:1080", "has no support for proxies"),
    ],
)
def test_options_that_must_not_be_ignored_are_refused(name: str, value: str, what: str) -> None:
    assert what in refused({name: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make({name: None})
        make({name: ""})


@pytest.mark.parametrize("name", sorted(NO_EFFECT))
def test_options_without_effect_warn_and_say_why(name: str) -> None:
    value: object = {"api_version": (2, 8), "metrics_recording_level": "DEBUG"}.get(name, "something")
    with pytest.warns(UserWarning, match=re.escape(f"{name} has no effect: {NO_EFFECT[name].reason}")):
        made = make({name: value})
    assert made.without_effect == {name: value}
    assert made.as_dict()[name] == value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make({name: NO_EFFECT[name].harmless[-1]})


def test_the_warning_points_at_the_callers_line() -> None:
    with pytest.warns(UserWarning) as caught:
        make(selector=object())
    assert caught[0].filename == __file__


def test_a_warning_is_shown_once_per_place() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            ProducerConfig.from_options(None, {"sock_chunk_bytes": 4096})
    assert len(caught) == 1


# --- Partitioning -------------------------------------------------------------------------------------------


def test_rack_awareness_needs_a_rack() -> None:
    assert "partitioner_rack_aware=True needs client_rack" in refused(partitioner_rack_aware=True)
    assert make(partitioner_rack_aware=True, client_rack="a").partitioner_rack_aware


def test_ignoring_keys_is_for_the_default_partitioner() -> None:
    assert make(partitioner_ignore_keys=True, partitioner="default").partitioner_ignore_keys
    assert "contradicts partitioner" in refused(partitioner_ignore_keys=True, partitioner="round_robin")
    assert "contradicts partitioner" in refused(partitioner_ignore_keys=True, partitioner=lambda k, a, b: 0)


# --- The object ---------------------------------------------------------------------------------------------


def test_it_is_immutable_and_has_no_dict() -> None:
    made = make()
    with pytest.raises(AttributeError):
        made.acks = 1  # type: ignore[misc]
    assert not hasattr(made, "__dict__")
    with pytest.raises(TypeError):
        made.topic_options["t"] = TopicOptions()  # type: ignore[index]


SECRETS = {
    "ssl_password": "hunter2",
    "sasl_plain_password": "hunter2",
    "sasl_jaas_config": "password=hunter2;",
    "sasl_oauthbearer_client_credentials_client_secret": "hunter2",
    "sasl_oauthbearer_assertion_private_key_passphrase": "hunter2",
    "ssl_keystore_password": "hunter2",
    "ssl_keystore_key": "-----BEGIN hunter2",
    "ssl_keystore_certificate_chain": "-----BEGIN hunter2",
    "ssl_truststore_password": "hunter2",
    "ssl_truststore_certificates": "-----BEGIN hunter2",
    "sasl_oauth_token_provider": type(
        "Provider", (), {"token": lambda self: "", "__repr__": lambda s: "hunter2"}
    )(),
}


def test_secrets_are_in_no_text() -> None:
    assert {option.name for option in OPTIONS.values() if option.secret} == set(SECRETS)
    with pytest.warns(UserWarning) as caught:
        made = make(**SECRETS)
    assert made.ssl_password == "hunter2"
    for text in (repr(made), str(made), repr(made.as_dict()), *(str(warning.message) for warning in caught)):
        assert "hunter2" not in text
    assert made.as_dict()["ssl_password"] == "<hidden>"
    assert make().as_dict()["ssl_password"] is None


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_secrets_are_not_in_errors(name: str) -> None:
    class Wrong:
        def __repr__(self) -> str:
            return "hunter2"

    text = refused({name: Wrong()})
    assert "hunter2" not in text
    assert f"{name}=a value of type Wrong is not accepted" in text


def test_repr_shows_what_the_user_set() -> None:
    assert repr(make(bootstrap_servers="[::1]:1,b", acks="all", linger_ms=3)) == (
        "ProducerConfig(bootstrap_servers='[::1]:1,b:9092', acks='all', linger_ms=3)"
    )


def test_as_dict_has_every_option() -> None:
    shown = make(acks=1, enable_idempotence=False).as_dict()
    assert set(OPTIONS) <= set(shown)
    assert shown["acks"] == 1
    assert make(bootstrap_servers="[::1]:1,b").as_dict()["bootstrap_servers"] == ["[::1]:1", "b:9092"]
    assert shown["api_version"] is None


def test_errors_can_cross_process_boundaries() -> None:
    with pytest.raises(KafkaError) as caught:
        make(acks=5)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_ssl_context_is_taken_as_it_is() -> None:
    context = ssl.create_default_context()
    with pytest.warns(UserWarning, match="ssl_context has no effect"):
        assert make(ssl_context=context).ssl_context is context
