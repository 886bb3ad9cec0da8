"""kprod.compat.confluent_kafka against the mock cluster, and against the original where that is installed."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import pickle
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka as peer
import pytest

from kprod.compat import confluent_kafka as compat
from kprod.compat.confluent_kafka.aio import AIOProducer
from kprod.compat.confluent_kafka.configuration import configure
from kprod.compat.confluent_kafka.error import LOCAL_TEXT, KeySerializationError, ValueSerializationError
from kprod.compat.confluent_kafka.serialization import (
    DoubleSerializer,
    IntegerSerializer,
    SerializationContext,
    StringSerializer,
)
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeCluster

KafkaError = compat.KafkaError
MakeConfluent = Callable[..., compat.Producer]


def code_of(error: compat.KafkaError | None) -> int:
    assert error is not None
    return error.code()


def text_of(error: compat.KafkaError | None) -> str:
    assert error is not None
    return error.str()


@pytest.fixture
def make(cluster: MockCluster) -> Iterator[MakeConfluent]:
    producers: list[compat.Producer] = []

    def build(**conf: Any) -> compat.Producer:
        conf = {name.replace("_", "."): value for name, value in conf.items() if not name.endswith("_cb")} | {
            name: value for name, value in conf.items() if name.endswith("_cb") or name == "on_delivery"
        }
        conf.pop("on.delivery", None)
        producers.append(compat.Producer({"bootstrap.servers": cluster.bootstrap_servers, **conf}))
        return producers[-1]

    yield build
    for producer in producers:
        producer.purge() if producer._open else None
        producer.close()


def test_reports_come_in_order_and_only_inside_of_poll(cluster: MockCluster, make: MakeConfluent) -> None:
    producer = make()
    seen: list[tuple[Any, Any]] = []
    threads: set[int] = set()

    def report(error: Any, message: compat.Message) -> None:
        threads.add(threading.get_ident())
        seen.append((error, message))

    for number in range(100):
        producer.produce("t", b"%d" % number, key="k", on_delivery=report, headers={"h": "ä"})
    assert len(producer) == 100
    assert seen == []
    assert producer.flush(10) == 0
    assert len(producer) == 0
    assert threads == {threading.get_ident()}
    assert [error for error, _ in seen] == [None] * 100
    messages = [message for _, message in seen]
    assert [message.offset() for message in messages] == list(range(100))
    assert [message.value() for message in messages] == [b"%d" % number for number in range(100)]
    first = messages[0]
    assert (first.topic(), first.partition(), first.key(), first.headers()) == (
        "t",
        0,
        b"k",
        [("h", "ä".encode())],
    )
    kind, timestamp = first.timestamp()
    assert kind == compat.TIMESTAMP_CREATE_TIME
    assert timestamp > 0
    latency = first.latency()
    assert latency is not None
    assert 0 < latency < 10
    assert [record.value for record in cluster.records("t", 0)] == [b"%d" % n for n in range(100)]


def test_text_empty_and_null_values_and_timestamps(cluster: MockCluster, make: MakeConfluent) -> None:
    producer = make()
    producer.produce("t", "Smörgås", "")
    producer.produce("t", b"", None, 0, timestamp=1234)
    producer.produce("t")
    assert producer.flush(10) == 0
    records = cluster.records("t", 0)
    assert [(r.key, r.value) for r in records] == [
        (b"", "Smörgås".encode()),
        (None, b""),
        (None, None),
    ]
    assert records[1].timestamp == 1234


def test_poll_returns_what_it_served_and_waits_for_it(make: MakeConfluent) -> None:
    producer = make()
    assert producer.poll(0) == 0
    assert producer.poll(0.01) == 0
    producer.produce("t", b"1", callback=lambda error, message: None)
    served = 0
    while not served:
        served = producer.poll(10)
    assert served == 1


def test_an_exception_of_a_callback_leaves_poll_and_the_rest_stays(make: MakeConfluent) -> None:
    producer = make()
    seen: list[bytes] = []

    def fail(error: Any, message: compat.Message) -> None:
        raise ValueError("mine")

    producer.produce("t", b"1", callback=fail)
    producer.produce("t", b"2", callback=lambda error, message: seen.append(message.value()))
    with pytest.raises(ValueError, match="mine"):
        producer.flush(10)
    assert producer.flush(10) == 0
    assert seen == [b"2"]


def test_a_full_queue_is_a_buffer_error(cluster: MockCluster, make: MakeConfluent) -> None:
    producer = make(queue_buffering_max_messages=2)
    lost = cluster.inject("Produce", drop_response=True, times=None)
    producer.produce("t", b"1")
    producer.produce("t", b"2")
    with pytest.raises(BufferError, match="Queue full"):
        producer.produce("t", b"3")
    batch: list[dict[str, Any]] = [{"value": b"4"}, {"value": b"5"}]
    assert producer.produce_batch("t", batch) == 0
    assert [message["_error"].code() for message in batch] == [KafkaError._QUEUE_FULL] * 2
    lost.remove()
    producer.purge()
    assert producer.flush(10) == 0


def test_full_memory_is_a_buffer_error(cluster: MockCluster, make: MakeConfluent) -> None:
    producer = make(queue_buffering_max_kbytes=64, batch_size=16384)
    producer.list_topics("t", 10)
    producer.produce("t", b"first")
    producer.flush(10)
    lost = cluster.inject("Produce", drop_response=True, times=None)
    with pytest.raises(BufferError, match="Queue full"):
        for _ in range(100):
            producer.produce("t", bytes(8000))
    lost.remove()
    producer.purge()


def test_only_errors_are_reported_when_asked_for(make: MakeConfluent) -> None:
    seen: list[Any] = []
    producer = make(
        delivery_report_only_error=True, on_delivery=lambda error, message: seen.append((error, message))
    )
    producer.produce("t", b"1")
    assert producer.flush(10) == 0
    assert seen == []


def test_messages_for_a_topic_that_appears_later_keep_their_order(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(auto_create_topics=False)
    producer = compat.Producer({"bootstrap.servers": cluster.bootstrap_servers})
    seen: list[Any] = []
    for number in range(20):
        producer.produce("later", b"%d" % number, on_delivery=lambda error, message: seen.append(error))
    assert producer.flush(0.05) == 20
    cluster.create_topic("later")
    assert producer.flush(10) == 0
    assert seen == [None] * 20
    assert [record.value for record in cluster.records("later", 0)] == [b"%d" % n for n in range(20)]
    producer.close()


def test_a_topic_that_does_not_exist_fails_after_the_propagation_time(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(auto_create_topics=False)
    producer = compat.Producer(
        {"bootstrap.servers": cluster.bootstrap_servers, "topic.metadata.propagation.max.ms": 50}
    )
    codes: list[int] = []
    producer.produce("nowhere", b"1", on_delivery=lambda error, message: codes.append(code_of(error)))
    assert producer.flush(10) == 0
    assert codes == [KafkaError._UNKNOWN_TOPIC]  # type: ignore[attr-defined]
    producer.close()


def test_without_brokers_messages_time_out_and_the_constructor_does_not_wait() -> None:
    seen: list[tuple[int, str]] = []
    with compat.Producer({"message.timeout.ms": 20}) as producer:
        producer.produce(
            "t", b"1", on_delivery=lambda error, message: seen.append((code_of(error), text_of(error)))
        )
    assert seen == [(KafkaError._MSG_TIMED_OUT, "Local: Message timed out")]
    with pytest.raises(RuntimeError, match="Producer has been closed"):
        producer.produce("t", b"2")
    assert len(producer) == 0
    assert bool(producer)


def test_purge_reports_what_it_drops(cluster: MockCluster, make: MakeConfluent) -> None:
    producer = make()
    codes: list[int] = []
    lost = cluster.inject("Produce", drop_response=True, times=None)
    producer.produce("t", b"1", on_delivery=lambda error, message: codes.append(code_of(error)))
    producer.purge()
    assert producer.flush(10) == 0
    assert codes
    assert set(codes) <= {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}  # type: ignore[attr-defined]
    lost.remove()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"value": 5}, TypeError, "int"),
        ({"partition": None}, TypeError, "partition must be an int"),
        ({"partition": -7}, compat.KafkaException, "_UNKNOWN_PARTITION"),
        ({"partition": 99}, compat.KafkaException, "_UNKNOWN_PARTITION"),
        ({"headers": ("a", "b")}, TypeError, "headers must be a dict or a list"),
        ({"headers": ["a"]}, TypeError, "a header must be a pair"),
        ({"headers": {"a": 1}}, TypeError, "must be bytes, str or None"),
        ({"callback": "no"}, TypeError, "callback must be callable"),
        ({"value": bytes(2_000_000)}, compat.KafkaException, "MSG_SIZE_TOO_LARGE"),
    ],
)
def test_bad_arguments_are_refused_and_count_for_nothing(
    make: MakeConfluent, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    producer = make()
    producer.produce("t", b"known")
    producer.flush(10)
    with pytest.raises(error, match=words):
        producer.produce("t", **arguments)
    assert len(producer) == 0


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"should.fail": 1}, 'No such configuration property: "should.fail"'),
        ({"linger.mss": 1}, 'did you mean "linger.ms"'),
        ({"partitioner": "murmur"}, 'Invalid value for configuration property "partitioner": murmur'),
        ({"acks": "1", "enable.idempotence": True}, "acks"),
        ({"linger.ms": -1}, "outside allowed range"),
        ({"delivery.report.only.error": "maybe"}, "Expected bool"),
        ({"enable.ssl.certificate.verification": False}, "ssl.ca.location"),
    ],
)
def test_bad_configurations_are_refused(conf: dict[str, Any], words: str) -> None:
    with pytest.raises(compat.KafkaException, match=words) as caught:
        compat.Producer({"bootstrap.servers": "127.0.0.1:1", **conf})
    assert caught.value.args[0].code() == KafkaError._INVALID_ARG  # type: ignore[attr-defined]


def test_configuration_follows_librdkafka() -> None:
    conf = configure(
        {
            "metadata.broker.list": "a:1",
            "request.required.acks": "-1",
            "queue.buffering.max.ms": "7.5",
            "compression.codec": "lz4",
            "message.timeout.ms": "1000",
            "socket.keepalive.enable": True,
            "sasl.username": "me",
            "default.topic.config": {"message.timeout.ms": 900},
        }
    )
    assert conf.options["bootstrap_servers"] == "a:1"
    assert conf.options["acks"] == "all"
    assert conf.options["linger_ms"] == 7.5
    assert conf.options["compression_type"] == "lz4"
    assert conf.message_timeout_s == 0.9
    assert (
        conf.options["delivery_timeout_ms"] >= conf.options["linger_ms"] + conf.options["request_timeout_ms"]
    )
    assert configure({}).options["partitioner"] == "consistent_random"
    with pytest.raises(TypeError, match="error_cb"):
        configure({"error_cb": "text"})
    with pytest.raises(TypeError, match="expected configuration dict"):
        compat.Producer()


def test_keys_go_where_the_original_puts_them(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.create_topic("mine", 7)
    cluster.create_topic("theirs", 7)
    keys = [b"key-%d" % number for number in range(200)] + [b"\xff\x00", b"x" * 300]
    conf = {"bootstrap.servers": cluster.bootstrap_servers}
    for name in ("consistent_random", "murmur2_random", "fnv1a_random"):
        with compat.Producer({**conf, "partitioner": name}) as mine:
            for key in keys:
                mine.produce("mine", name, key)
        theirs = peer.Producer({**conf, "partitioner": name})
        for key in keys:
            theirs.produce("theirs", name, key)
        assert theirs.flush(30) == 0
    for partition in range(7):
        placed = [
            [(record.key, record.value) for record in cluster.records(topic, partition)]
            for topic in ("mine", "theirs")
        ]
        assert sorted(placed[0]) == sorted(placed[1])


def test_functions_that_place_keys_are_the_original_ones() -> None:
    for key in (b"", b"a", b"abc", b"\xff" * 20):
        for name in ("murmur2", "consistent", "fnv1a"):
            assert getattr(compat, name)(key, 12) == getattr(peer, name)(key, 12), (name, key)
    with pytest.raises(ValueError, match="partition_count must be > 0"):
        compat.murmur2(b"k", 0)


def test_error_codes_and_names_are_the_original_ones() -> None:
    for name in dir(peer.KafkaError):
        code = getattr(peer.KafkaError, name)
        if isinstance(code, int) and not name.startswith("__"):
            assert getattr(KafkaError, name) == code, name
            assert KafkaError(code).name() == peer.KafkaError(code).name()
    for name, (code, words) in LOCAL_TEXT.items():
        if name not in ("_PARTITION_EOF", "_INVALID_DIFFERENT_RECORD"):
            assert peer.KafkaError(code).str() == f"Local: {words}"
    error = KafkaError(KafkaError._QUEUE_FULL, retriable=True)
    assert error == KafkaError._QUEUE_FULL
    assert pickle.loads(pickle.dumps(error)).retriable()
    assert KafkaError(12345).str() == peer.KafkaError(12345).str()
    assert issubclass(compat.KafkaException, peer.KafkaException)


def test_list_topics_describes_the_cluster(cluster: MockCluster, make: MakeConfluent) -> None:
    cluster.create_topic("other", 3)
    described = make().list_topics(timeout=10)
    assert {"t", "other"} <= set(described.topics)
    other = described.topics["other"]
    assert sorted(other.partitions) == [0, 1, 2]
    assert other.partitions[0].leader in described.brokers
    assert other.error is None
    assert list(make().list_topics("other", 10).topics) == ["other"]
    missing = make().list_topics("missing", 10).topics["missing"]
    assert missing.error == KafkaError.UNKNOWN_TOPIC_OR_PART  # type: ignore[attr-defined]


def test_list_topics_without_brokers_is_a_transport_error() -> None:
    producer = compat.Producer({"bootstrap.servers": "127.0.0.1:1"})
    with pytest.raises(compat.KafkaException) as caught:
        producer.list_topics(timeout=0.05)
    assert caught.value.args[0].code() == KafkaError._TRANSPORT  # type: ignore[attr-defined]
    producer.close()


def test_error_cb_hears_that_no_broker_can_be_reached() -> None:
    heard: list[int] = []
    conf = {
        "bootstrap.servers": "127.0.0.1:1",
        "reconnect.backoff.ms": 10,
        "error_cb": lambda error: heard.append(code_of(error)),
    }
    producer = compat.Producer(conf)
    while len(heard) < 2:
        assert producer.poll(15)
    assert heard == [KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN]  # type: ignore[attr-defined]
    producer.close()


def test_stats_cb_gets_json(make: MakeConfluent) -> None:
    heard: list[dict[str, Any]] = []
    producer = make(stats_cb=lambda text: heard.append(json.loads(text)), statistics_interval_ms=20)
    producer.produce("t", b"1")
    producer.flush(10)
    while not (heard and heard[-1]["txmsgs"]):
        producer.poll(10)
    stats = heard[-1]
    assert stats["type"] == "producer"
    assert stats["topics"]["t"]["batchcnt"]["sum"] == 1
    assert any(broker["state"] == "UP" for broker in stats["brokers"].values())


def test_throttle_cb_hears_of_quotas(cluster: MockCluster, make: MakeConfluent) -> None:
    heard: list[compat.ThrottleEvent] = []
    producer = make(throttle_cb=heard.append)
    cluster.inject("Produce", throttle_ms=120)
    producer.produce("t", b"1")
    producer.flush(10)
    while not heard:
        producer.poll(10)
    assert heard[0].throttle_time == 0.12


def test_transactions(cluster: MockCluster, make: MakeConfluent) -> None:
    cluster.create_topic("in")
    producer = make(**{"transactional.id": "tx"})
    reports: list[Any] = []
    with pytest.raises(compat.KafkaException) as caught:
        producer.begin_transaction()
    assert caught.value.args[0].code() == KafkaError._STATE  # type: ignore[attr-defined]
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce("t", b"committed", on_delivery=lambda error, message: reports.append(error))
    offsets = [peer.TopicPartition("in", 0, 5)]
    producer.send_offsets_to_transaction(offsets, "readers", 10)
    producer.commit_transaction(10)
    assert reports == [None]
    producer.begin_transaction()
    producer.produce("t", b"aborted")
    producer.abort_transaction(10)
    assert len(producer) == 0 or producer.flush(10) == 0
    consumer = peer.Consumer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "group.id": "g",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([peer.TopicPartition("t", 0, 0)])
    values: list[Any] = []
    while True:
        message = consumer.poll(10)
        assert message is not None
        if message.error():
            break
        values.append(message.value())
    consumer.close()
    assert values == [b"committed"]


def test_a_transactional_call_that_timed_out_must_be_made_again() -> None:
    producer = compat.Producer({"bootstrap.servers": "127.0.0.1:1", "transactional.id": "tx"})
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: producer.init_transactions(0.05), "_TIMED_OUT"),
        (producer.begin_transaction, "_CONFLICT"),
        (lambda: producer.commit_transaction(0.05), "_CONFLICT"),
        (lambda: producer.init_transactions(0.05), "_TIMED_OUT"),
    ]
    for call, code in calls:
        with pytest.raises(compat.KafkaException) as caught:
            call()
        error = caught.value.args[0]
        assert error.name() == code
        assert error.retriable()
        assert not error.fatal()
    producer.close()


def test_subclasses_and_instances_that_were_not_initialised() -> None:
    class Mine(compat.Producer):
        def __init__(self) -> None:
            pass

    producer = Mine()
    for call in (producer.poll, producer.flush, producer.purge, producer.begin_transaction):
        with pytest.raises(RuntimeError, match="Producer has been closed"):
            call()
    assert len(producer) == 0


def test_serializing_producer(cluster: MockCluster) -> None:
    contexts: list[SerializationContext] = []

    def key(obj: Any, context: SerializationContext) -> bytes:
        contexts.append(context)
        return str(obj).encode()

    conf = {"bootstrap.servers": cluster.bootstrap_servers}
    producer = compat.SerializingProducer(
        {**conf, "key.serializer": key, "value.serializer": StringSerializer("latin-1")}
    )
    producer.produce("t", 5, "ä")
    producer.close()
    record = cluster.records("t", 0)[0]
    assert (record.key, record.value) == (b"5", b"\xe4")
    assert contexts[0].topic == "t"
    failing = compat.SerializingProducer(
        {**conf, "key.serializer": IntegerSerializer(), "value.serializer": DoubleSerializer()}
    )
    with pytest.raises(KeySerializationError):
        failing.produce("t", "text", 1.0)
    with pytest.raises(ValueSerializationError) as caught:
        failing.produce("t", 1, "text")
    assert caught.value.code == KafkaError._VALUE_SERIALIZATION  # type: ignore[attr-defined]
    failing.produce("t", 1, 0.5)
    failing.close()
    assert cluster.records("t", 0)[1].key == b"\x00\x00\x00\x01"


def test_asyncio_producer(cluster: MockCluster) -> None:
    async def main() -> None:
        async with AIOProducer({"bootstrap.servers": cluster.bootstrap_servers}) as producer:
            futures = [await producer.produce("t", b"%d" % n, headers={"h": b"v"}) for n in range(50)]
            messages = await asyncio.gather(*futures)
            assert [message.offset() for message in messages] == list(range(50))
            assert await producer.flush() == 0
            too_large = producer.produce("t", bytes(2_000_000))
            with pytest.raises(compat.KafkaException, match="MSG_SIZE_TOO_LARGE"):
                await too_large
            described = await producer.list_topics("t", 10)
            assert "t" in described.topics

    asyncio.run(main())
    assert len(cluster.records("t", 0)) == 50


def test_asyncio_producer_awaits_room_in_the_queue(cluster: MockCluster) -> None:
    async def main() -> None:
        conf = {"bootstrap.servers": cluster.bootstrap_servers, "queue.buffering.max.messages": 3}
        async with AIOProducer(conf) as producer:
            futures = [await producer.produce("t", b"%d" % n) for n in range(20)]
            await asyncio.gather(*futures)

    asyncio.run(main())
    assert [record.value for record in cluster.records("t", 0)] == [b"%d" % n for n in range(20)]


def test_the_logger_of_the_configuration_is_used() -> None:
    logger = logging.getLogger("compat-test")
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    compat.Producer({"logger": logger}).close()
    assert any("bootstrap.servers" in line for line in lines)


def test_many_threads_produce_and_poll(
    cluster: MockCluster, make: MakeConfluent, eventually: Eventually
) -> None:
    producer = make()
    seen: list[Any] = []

    def work() -> None:
        for _ in range(200):
            producer.produce("t", b"x", on_delivery=lambda error, message: seen.append(error))
            producer.poll(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert producer.flush(10) == 0
    eventually(lambda: len(seen) == 800)
    assert set(seen) == {None}
    assert len(cluster.records("t", 0)) == 800


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def test_the_logger_gets_the_lines_of_its_client_in_librdkafkas_form() -> None:
    logger = logging.getLogger("compat-forward")
    logger.setLevel(logging.DEBUG)
    lines = Lines()
    logger.addHandler(lines)
    producer = compat.Producer({"client.id": "mine", "logger": logger, "debug": "msg"})
    assert lines.texts[0].startswith("INIT [mine]: kprod ")
    engine = logging.getLogger("kprod.engine")
    engine.error("mine: broker %s: %s", "b:1", "is gone")
    engine.error("yours: broker b:1: is gone")
    assert [text.partition(" ")[2] for text in lines.texts[1:] if "gone" in text] == [
        "[mine]: broker b:1: is gone"
    ]
    producer.close()
    count = len(lines.texts)
    engine.error("mine: once more")
    assert len(lines.texts) == count


@pytest.mark.parametrize("name", ["root", "kprod", "kprod.mine"])
def test_a_logger_that_has_kprods_lines_does_not_get_them_twice(name: str) -> None:
    logger = logging.getLogger(None if name == "root" else name)
    lines = Lines()
    logging.getLogger().addHandler(lines)
    try:
        with compat.Producer({"client.id": "twice", "logger": logger}):
            logging.getLogger("kprod.engine").error("twice: once")
    finally:
        logging.getLogger().removeHandler(lines)
    assert [text for text in lines.texts if text.endswith("once")] == ["twice: once"]


def test_credentials_can_be_replaced(make_cluster: MakeCluster, eventually: Eventually) -> None:
    cluster = make_cluster(sasl_users={"alice": "new"}, sasl_mechanisms=["PLAIN"])
    conf = {
        "bootstrap.servers": cluster.bootstrap_servers,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": "old",
        "reconnect.backoff.max.ms": 200,
    }
    seen: list[Any] = []
    with compat.Producer(conf) as producer:
        with pytest.raises(TypeError, match="username must be a str"):
            producer.set_sasl_credentials(None, "new")  # type: ignore[arg-type]

        def delivered() -> bool:
            try:
                producer.produce("t", b"v", on_delivery=lambda error, message: seen.append(error))
            except compat.KafkaException as error:
                seen.append(error.args[0])
            assert producer.flush(30) == 0
            return seen[-1] is None

        assert not delivered()
        assert {error.code() for error in seen} == {KafkaError.SASL_AUTHENTICATION_FAILED}  # type: ignore[attr-defined]
        producer.set_sasl_credentials("alice", "new")
        eventually(delivered)
    with compat.Producer({}) as producer:
        producer.set_sasl_credentials("alice", "new")  # as librdkafka: taken without SASL, too


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt: a run that a shell put into the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_waiting_ends_with_ctrl_c() -> None:
    main = threading.main_thread().ident
    assert main is not None
    with compat.Producer({"message.timeout.ms": 60_000}) as producer:
        producer.produce("t", b"v")
        for call in (producer.poll, producer.flush):
            interrupt = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
            interrupt.start()
            with pytest.raises(KeyboardInterrupt):
                call(30)
            interrupt.join()
        producer.purge()


def test_a_producer_that_is_dropped_takes_its_thread_along(eventually: Eventually) -> None:
    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("dropped-")}

    producer = compat.Producer(
        {"client.id": "dropped", "stats_cb": print, "statistics.interval.ms": 3_600_000}
    )
    assert threads()
    reference = weakref.ref(producer)
    del producer
    gc.collect()
    assert reference() is None
    eventually(lambda: not threads())
