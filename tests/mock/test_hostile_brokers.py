"""Brokers that break the protocol: whatever they send, the producer lives and says what was wrong.

Time and memory are bounded by the options, not by the broker.
"""

from __future__ import annotations

import random
import re
import socket
import struct
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from kprod import KafkaProducer
from kprod.errors import KafkaError
from kprod.protocol import Body
from kprod.testing import MockCluster
from tests.fuzz.hostile_broker import TELEMETRY, Answer, HostileBroker, Question
from tests.fuzz.memory import SLOWNESS, PeakMemory

PATIENCE = 30.0 * SLOWNESS
"""Seconds after which a producer counts as hanging. What its options allow is far less."""

MEMORY = (128 if sysconfig.get_config_var("Py_GIL_DISABLED") else 64) << 20
"""Most bytes that all producers of a test may add together; threads of free-threaded Python keep memory."""

IMPATIENT: dict[str, Any] = {
    "bootstrap_timeout_ms": 400 * SLOWNESS,
    "max_block_ms": 400 * SLOWNESS,
    "request_timeout_ms": 150 * SLOWNESS,
    "delivery_timeout_ms": 500 * SLOWNESS,
    "linger_ms": 0,
    "retry_backoff_ms": 5,
    "retry_backoff_max_ms": 20 * SLOWNESS,
    "reconnect_backoff_ms": 5,
    "reconnect_backoff_max_ms": 20 * SLOWNESS,
}


PATIENT: dict[str, Any] = {
    "bootstrap_timeout_ms": 4000 * SLOWNESS,
    "max_block_ms": 4000 * SLOWNESS,
    "request_timeout_ms": 2000 * SLOWNESS,
    "delivery_timeout_ms": 5000 * SLOWNESS,
}


def produce_one(producer: KafkaProducer) -> None:
    producer.send("t", b"value", key=b"key").get(PATIENCE)


def transact_one(producer: KafkaProducer) -> None:
    patience = producer.config["max_block_ms"] / 1000
    producer.init_transactions(timeout=patience)
    producer.begin_transaction()
    producer.send("t", b"value")
    producer.commit_transaction(timeout=2 * patience)


def attempt(broker: HostileBroker, use: Callable[[KafkaProducer], None] = produce_one, **options: Any) -> str:
    """Use a producer on a hostile broker; gives the text of its error, "" for none."""
    started = time.monotonic()
    text = ""
    if use is transact_one:
        options.setdefault("transactional_id", "tx")
    try:
        producer = KafkaProducer(bootstrap_servers=broker.address, **{**IMPATIENT, **options})
    except KafkaError as error:
        text = str(error)
    else:
        try:
            use(producer)
        except KafkaError as error:
            text = str(error)
        finally:
            producer.close(timeout=0.5)
    assert time.monotonic() - started < PATIENCE
    return text


# -------------------------------------------------------------------------------- frames


def frame(question: Question, body: bytes) -> bytes:
    """A frame with the right correlation id and any bytes after it."""
    return struct.pack(">ii", 4 + len(body), question.header.correlation_id) + body


def half_closed(question: Question) -> bytes:
    question.connection.shutdown(socket.SHUT_WR)
    return b""


def dribble(question: Question) -> Iterator[bytes]:
    """The honest answer, a byte at a time."""
    honest = question.honest()
    for i in range(len(honest)):
        yield honest[i : i + 1]


def silence(question: Question) -> None:
    """Nothing, to this request and all that follow it."""
    while question.connection.recv(65536):
        pass


def announced(question: Question) -> Iterator[bytes]:
    """The beginning of a large answer, and then nothing."""
    yield struct.pack(">ii", 90_000_000, question.header.correlation_id) + bytes(1000)
    silence(question)


def noise(question: Question) -> bytes:
    return random.Random(question.broker.asked.total()).randbytes(300)


class Attack(NamedTuple):
    answer: Answer
    says: str
    """A pattern of the words that the application has to see."""


LENGTH = "announced an answer of an impossible length"
NOT_ASKED = "answer to a request that was not made"
MALFORMED = "malformed|not a usable Kafka broker"
# A broker that ends the connection at Metadata, without a word, does what one does that wants SASL.
LOST = "connection was lost|as a listener does that wants SASL"
LATE = "no answer (within|yet)|no connection within|timed out"

FRAMES = {
    "absurd length": Attack(lambda q: b"\x7f\xff\xff\xff" + bytes(100), LENGTH),
    "one byte more than the limit": Attack(lambda q: struct.pack(">i", 100_000_001) + bytes(100), LENGTH),
    "length zero": Attack(lambda q: bytes(4), LENGTH),
    "length three": Attack(lambda q: b"\0\0\0\3abc", LENGTH),
    "negative length": Attack(lambda q: b"\xff\xff\xff\xff", LENGTH),
    "text of another protocol": Attack(lambda q: b"HTTP/1.1 400 Bad Request\r\n\r\n", LENGTH),
    "wrong correlation id": Attack(
        lambda q: q.encode(q.honest_body(), q.header.correlation_id + 1), NOT_ASKED
    ),
    "old correlation id": Attack(lambda q: q.encode(q.honest_body(), q.header.correlation_id - 1), NOT_ASKED),
    "endless answer to nobody": Attack(
        lambda q: struct.pack(">ii", 90_000_000, 77_777) + bytes(1 << 20), NOT_ASKED
    ),
    "negative counts": Attack(lambda q: frame(q, b"\0\0\0" + b"\xff" * 200), MALFORMED),
    "overlong varints": Attack(lambda q: frame(q, b"\0\0\0" + b"\x80" * 200), MALFORMED),
    "huge counts": Attack(lambda q: frame(q, b"\0\0\0" + b"\xff\xff\xff\x07" * 50), MALFORMED),
    "nothing but the correlation id": Attack(lambda q: frame(q, b""), MALFORMED),
    "a part of the answer": Attack(lambda q: frame(q, q.honest()[8:-8]), MALFORMED),
    "noise": Attack(noise, f"{LENGTH}|{NOT_ASKED}"),
    "close": Attack(lambda q: None, LOST),
    "half close": Attack(half_closed, LOST),
    "silence": Attack(silence, f"{LATE}|ready"),
    "announced and not sent": Attack(announced, f"{LATE}|ready"),
}

STAGES: dict[str, Callable[[KafkaProducer], None]] = {
    "ApiVersions": produce_one,
    "Metadata": produce_one,
    "InitProducerId": produce_one,
    "Produce": produce_one,
    "FindCoordinator": transact_one,
    "AddPartitionsToTxn": transact_one,
    "EndTxn": transact_one,
}


def run_all(
    attacks: dict[str, Attack], stage: str, use: Callable[[KafkaProducer], None], **options: Any
) -> None:
    """Every attack of a table at one API, at the same time: most of the time they wait."""

    def run(name: str, options: dict[str, Any] = options) -> str:
        attack = attacks[name]
        with HostileBroker({stage: attack.answer}) as broker:
            text = attempt(broker, use, **options)
            if not broker.asked[stage]:  # on a busy machine the time was over before that
                text = attempt(broker, use, **{**PATIENT, **options})
            assert broker.asked[stage] >= 1, f"{name}: the stage was not reached: {text}"
            # Nothing is asked in a tight loop: each failure is followed by a pause.
            assert broker.asked[stage] <= 300, f"{name}: asked {broker.asked[stage]} times"
        return text

    threads = set(threading.enumerate())
    with PeakMemory() as peak, ThreadPoolExecutor(len(attacks)) as pool:
        texts = dict(zip(attacks, pool.map(run, attacks), strict=True))
    # A look-up of a host name may take as long as the system lets it; everything else has ended.
    left = {thread for thread in set(threading.enumerate()) - threads if not thread.name.endswith("-dns")}
    assert left == set()
    wrong = {name: text for name, text in texts.items() if not re.search(attacks[name].says, text)}
    # On a busy machine a timeout may have come first: alone, and with more time, it must be the right words.
    wrong = {name: run(name, {**PATIENT, **options}) for name in wrong}
    wrong = {name: text for name, text in wrong.items() if not re.search(attacks[name].says, text)}
    assert wrong == {}
    assert peak.added < MEMORY


@pytest.mark.parametrize("stage", STAGES)
def test_broken_frames(stage: str) -> None:
    run_all(FRAMES, stage, STAGES[stage])


@pytest.mark.parametrize("stage", ["ApiVersions", "Metadata", "InitProducerId", "Produce"])
def test_a_byte_at_a_time_is_as_good_as_any_answer(stage: str) -> None:
    with HostileBroker({stage: dribble}) as broker:
        assert attempt(broker, request_timeout_ms=10_000, delivery_timeout_ms=20_000, max_block_ms=20_000,
                       bootstrap_timeout_ms=20_000) == ""  # fmt: skip


def mutated(seed: int) -> Answer:
    """The honest answer with some bytes changed, its length and correlation id being right."""
    source = random.Random(seed)

    def answer(question: Question) -> bytes:
        body = bytearray(question.honest()[8:])
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(body))
            change = source.randrange(4)
            if change == 0:
                body[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
            elif change == 1:
                body[at : at + 4] = source.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
            elif change == 2:
                body[at:at] = source.randbytes(source.randint(1, 8))
            elif len(body) > 8:
                del body[at : at + source.randint(1, 4)]
        return frame(question, bytes(body))

    return answer


@pytest.mark.parametrize("stage", STAGES)
def test_valid_answers_with_some_bytes_changed(stage: str) -> None:
    """Some are good enough; the others end with an error. Nothing else happens."""
    run_all({f"seed {seed}": Attack(mutated(seed), "") for seed in range(24)}, stage, STAGES[stage])


def test_every_answer_twice() -> None:
    """The second is an answer to nothing; the record is acknowledged by the first."""
    with HostileBroker({"Produce": lambda q: q.honest() * 2}) as broker:
        assert attempt(broker) == ""
    with HostileBroker({"Metadata": lambda q: q.honest() * 2}) as broker:
        attempt(broker)
        assert broker.asked["Metadata"] <= 300


@pytest.mark.parametrize(
    "greeting",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\0\0\0\0",
        b"\xff" * 1000,
        b"\0\0\0\x08hello",
    ],
    ids=["ssh", "TLS alert", "zeros", "ones", "unfinished"],
)
def test_a_server_that_speaks_first(greeting: bytes) -> None:
    with HostileBroker(greeting=greeting) as broker:
        assert re.search(f"{LENGTH}|{NOT_ASKED}|the listener speaks TLS", attempt(broker))


def test_a_server_that_resets_connections() -> None:
    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with HostileBroker(lifetime=reset) as broker:
        assert re.search("connection was lost|Connection reset|NoBrokersAvailable", attempt(broker))


# -------------------------------------------------------------------------------- versions


def refuse_version(low: int, high: int) -> Answer:
    def answer(question: Question) -> bytes:
        # Version 0 whatever was asked (KIP-511).
        row = struct.pack(">hhh", 18, low, high)
        return frame(question, struct.pack(">hi", 35, 1) + row)

    return answer


VERSIONS = {
    "refuses every version and offers the same": Attack(refuse_version(3, 3), "ApiVersions"),
    "offers versions that there are none of": Attack(refuse_version(32767, 32767), "ApiVersions"),
    "offers negative versions": Attack(refuse_version(-5, -5), "ApiVersions"),
    "offers none": Attack(lambda q: q.honest(api_keys=[]), "needs Apache Kafka"),
    "offers ranges upside down": Attack(
        lambda q: q.honest(
            api_keys=[{"api_key": k, "min_version": 9, "max_version": -3} for k in (0, 1, 3, 18, 22)]
        ),
        "needs Apache Kafka",
    ),
    "an unknown error": Attack(lambda q: q.honest(error_code=-777), "error code -777"),
}


def test_versions() -> None:
    run_all(VERSIONS, "ApiVersions", produce_one)


# -------------------------------------------------------------------------------- metadata


def brokers(*rows: tuple[int, str, int]) -> Answer:
    return lambda q: q.honest(
        brokers=[{"node_id": node_id, "host": host, "port": port} for node_id, host, port in rows]
    )


def partition_row(index: int, leader: int = 1, epoch: int = 0) -> Body:
    return {
        "error_code": 0,
        "partition_index": index,
        "leader_id": leader,
        "leader_epoch": epoch,
        "replica_nodes": [],
        "isr_nodes": [],
        "offline_replicas": [],
    }


def topic(*rows: Body, name: str = "t", **changes: Any) -> Answer:
    def answer(question: Question) -> bytes:
        if not question.body["topics"]:
            return question.honest()
        return question.honest(topics=[question.broker.topic_row(name, partitions=list(rows), **changes)])

    return answer


MANY = [(node_id, "127.0.0.1", 9) for node_id in range(20_000)]

METADATA = {
    "a partition of an absurd number": Attack(topic(partition_row(2**31 - 1)), "partition 2147483647"),
    "a partition of a negative number": Attack(topic(partition_row(-1)), "partition -1"),
    "a leader that cannot be": Attack(topic(partition_row(0, -2_000_000_000)), "leader -2000000000"),
    "an epoch that cannot be": Attack(topic(partition_row(0, 1, -9)), "epoch -9"),
    "another topic than was asked for": Attack(topic(partition_row(0), name="u"), "'t' was asked for"),
    "no topic": Attack(lambda q: q.honest(topics=[]), "'t' was asked for|never sent"),
    "a topic without partitions": Attack(topic(), "no metadata|no leader"),
    "a topic with an unknown error": Attack(topic(error_code=31_000), "31000"),
    "a topic with an error no broker has": Attack(topic(error_code=-1016), "-1016"),
    "a leader that is no broker": Attack(topic(partition_row(0, 2**31 - 1)), "broker 2147483647"),
    "an unknown error": Attack(lambda q: q.honest(error_code=-3, brokers=[]), "NoBrokers|could be"),
    "no brokers": Attack(brokers(), "NoBrokers|could be"),
    "a broker with a bootstrap server's number": Attack(brokers((-1, "127.0.0.1", 9)), "node id -1"),
    "a port that cannot be": Attack(brokers((1, "127.0.0.1", 70_000)), "port 70000"),
    "a negative port": Attack(brokers((1, "127.0.0.1", -1)), "port -1"),
    "no host": Attack(brokers((1, "", 9092)), "host name ''"),
    "a host with a zero byte": Attack(brokers((1, "kaf\0ka", 9092)), "host name 'kaf"),
    "a host of 30 000 characters": Attack(brokers((1, "a" * 30_000, 9092)), "host name 'aaaa"),
    "a host with a label that is too long": Attack(
        brokers((1, "a" * 100 + ".invalid", 9092)), "cannot be resolved|no connection|not connected"
    ),
    "a host that does not resolve": Attack(
        brokers((1, "kafka.invalid", 9092)), "cannot be resolved|no connection|not connected"
    ),
    "two brokers with one number": Attack(
        brokers((1, "127.0.0.1", 9), (1, "127.0.0.1", 10)), "two brokers with the node id 1"
    ),
    "20 000 brokers": Attack(brokers(*MANY), "more than 10000 brokers"),
    "a million partitions": Attack(
        lambda q: frame(q, b"\0" * 9 + struct.pack(">i", 1_000_000)), "malformed Metadata"
    ),
}


def test_metadata() -> None:
    # Version 12: the error code is not at the top yet, so the rest has to be looked at.
    run_all(METADATA, "Metadata", produce_one)


def test_topics_that_nobody_asked_for_are_not_remembered() -> None:
    def more(question: Question) -> bytes:
        rows = [
            question.broker.topic_row(f"extra-{i}-{question.broker.asked['Metadata']}") for i in range(100)
        ]
        return question.honest(topics=question.honest_body()["topics"] + rows)

    with HostileBroker({"Metadata": more}) as broker:
        producer = KafkaProducer(bootstrap_servers=broker.address, **IMPATIENT)
        try:
            produce_one(producer)
            assert producer.partitions_for("t") == {0}
            engine = producer._engine_started
            assert engine is not None
            assert engine.cluster.topics() == {"t"}
        finally:
            producer.close(timeout=0.5)


# -------------------------------------------------------------------------------- producer ids

IDS = {
    "a negative producer id": Attack(lambda q: q.honest(producer_id=-5), "producer id -5"),
    "a negative epoch": Attack(lambda q: q.honest(producer_epoch=-1), "the epoch -1"),
    "an unknown error": Attack(lambda q: q.honest(error_code=29_999), "29999"),
    "an error no broker has": Attack(lambda q: q.honest(error_code=-1001), "-1001"),
}


@pytest.mark.parametrize("use", [produce_one, transact_one])
def test_producer_ids(use: Callable[[KafkaProducer], None]) -> None:
    run_all(IDS, "InitProducerId", use)


# -------------------------------------------------------------------------------- produce


def answered(*rows: dict[str, Any], **changes: Any) -> Callable[[Question], bytes]:
    """A produce response with these rows for the topic ``t``."""

    def answer(question: Question) -> bytes:
        body = question.honest_body()
        honest = body["responses"][0]["partition_responses"][0]
        body["responses"][0]["partition_responses"] = [{**honest, **row} for row in rows]
        body["responses"][0].update(changes)
        return question.encode(body)

    return answer


LEFT_OUT = "left the partition out"

PRODUCE = {
    "an offset that cannot be": Attack(answered({"base_offset": -2}), "impossible offset"),
    "the last offset there is": Attack(answered({"base_offset": 2**63 - 1}), "impossible offset"),
    "a partition that was not asked for": Attack(answered({"index": 5}), LEFT_OUT),
    "a partition of an absurd number": Attack(answered({"index": -(2**31)}), LEFT_OUT),
    "a partition twice, at first elsewhere": Attack(answered({"index": 9}, {"index": 0}), "malformed"),
    "no partition": Attack(answered(), LEFT_OUT),
    "no topic": Attack(lambda q: q.honest(responses=[]), LEFT_OUT),
    "another topic": Attack(answered({}, name="u", topic_id=b"\xee" * 16), LEFT_OUT),
    "an unknown error": Attack(answered({"error_code": 32_767}), "32767"),
    # The client's own codes are below -1: what a broker says must not pass for one of them.
    "the client's own error": Attack(answered({"error_code": -1016}), "UnknownError"),
    "records that are not in the batch": Attack(
        answered(
            {
                "error_code": 87,
                "error_message": "refused",
                "record_errors": [
                    {"batch_index": i, "batch_index_error_message": "m"} for i in (-1, 1, 2**31 - 1)
                ],
            }
        ),
        "refused",
    ),
    "a record out of range, alone": Attack(
        answered(
            {
                "error_code": 87,
                "error_message": "refused",
                "record_errors": [{"batch_index": -7, "batch_index_error_message": "m"}],
            }
        ),
        "refused",
    ),
    "an error message of 32 767 bytes": Attack(
        answered({"error_code": 87, "error_message": "€" * 8000}), "€"
    ),
    "a leader that is no broker": Attack(
        answered({"error_code": 6, "current_leader": {"leader_id": 2**31 - 1, "leader_epoch": 2**31 - 1}}),
        "NOT_LEADER_OR_FOLLOWER",
    ),
    "endpoints that cannot be": Attack(
        lambda q: (
            answered({"error_code": 6, "current_leader": {"leader_id": 4, "leader_epoch": 9}})(q)
            and q.encode(
                {
                    **q.honest_body(),
                    "responses": [
                        {
                            **q.honest_body()["responses"][0],
                            "partition_responses": [
                                {
                                    "index": 0,
                                    "error_code": 6,
                                    "base_offset": -1,
                                    "record_errors": [],
                                    "current_leader": {"leader_id": 4, "leader_epoch": 9},
                                }
                            ],
                        }
                    ],
                    "node_endpoints": [{"node_id": 4, "host": "x" * 9000, "port": -4}],
                }
            )
        ),
        "NOT_LEADER_OR_FOLLOWER",
    ),
    "sequence numbers that are never right": Attack(answered({"error_code": 45}), "OUT_OF_ORDER"),
    "a batch that is always too large": Attack(answered({"error_code": 10}), "too large|larger"),
    "a pause of 24 days": Attack(
        lambda q: q.encode(
            {
                **q.honest_body(),
                "throttle_time_ms": 2**31 - 1,
                "responses": [
                    {
                        **q.honest_body()["responses"][0],
                        "partition_responses": [
                            {"index": 0, "error_code": 7, "base_offset": -1, "record_errors": []}
                        ],
                    }
                ],
            }
        ),
        "REQUEST_TIMED_OUT",
    ),
}


def test_produce_responses() -> None:
    run_all(PRODUCE, "Produce", produce_one)


@pytest.mark.parametrize("acks", [0, 1])
def test_produce_responses_without_idempotence(acks: int) -> None:
    attacks = {name: PRODUCE[name] for name in PRODUCE if "sequence" not in name}
    if acks:
        run_all(attacks, "Produce", produce_one, acks=1, enable_idempotence=False)
        return
    # Nothing is to be answered: whatever comes is an answer to nothing.
    with HostileBroker({"Produce": lambda q: b"\0\0\0\x0aunexpected"}) as broker:
        assert attempt(broker, acks=0, enable_idempotence=False) == ""


def test_a_million_partitions_in_a_produce_response_do_not_stop_the_client() -> None:
    """Each would be looked for among the batches of the request."""
    row = struct.pack(">ihqqqbb", 3, 0, 0, -1, -1, 1, 0) + b"\0"
    name = b"\x02t"

    def answer(question: Question) -> bytes:
        count = 1_000_000
        return frame(question, b"\0\x02" + name + b"\xc1\x84\x3d" + row * count + b"\0\0\0\0\0\0")

    limits: dict[str, Any] = {
        "delivery_timeout_ms": 1500 * SLOWNESS,
        "request_timeout_ms": 1000 * SLOWNESS,
    }
    with HostileBroker({"Produce": answer}, versions={"Produce": (3, 9)}) as broker:
        assert re.search("malformed", attempt(broker, **limits))


def test_errors_of_forty_thousand_records_are_told_apart_in_time() -> None:
    """A broker names every record of a batch of many: making the errors must not take the square of it."""
    count = 40_000

    def answer(question: Question) -> bytes:
        batch = question.body["topic_data"][0]["partition_data"][0]["records"]
        (records,) = struct.unpack_from(">i", batch, 57)
        rows = [
            {"batch_index": i, "batch_index_error_message": f"record {i}"} for i in reversed(range(records))
        ]
        return answered({"error_code": 87, "error_message": "refused", "record_errors": rows})(question)

    with HostileBroker({"Produce": answer}) as broker:
        options = {**IMPATIENT, "linger_ms": 10_000, "batch_size": 1 << 20, "request_timeout_ms": 20_000,
                   "delivery_timeout_ms": 40_000}  # fmt: skip
        producer = KafkaProducer(bootstrap_servers=broker.address, **options)
        try:
            futures = [producer.send("t", b"") for _ in range(count)]
            producer.flush()
            started = time.monotonic()
            texts = [str(future.exception) for future in futures]
            assert time.monotonic() - started < PATIENCE / 2
        finally:
            producer.close(timeout=0.5)
        assert "record 0" in texts[0]
        assert all("record " in text for text in texts)


# -------------------------------------------------------------------------------- transactions


def partitions_added(*rows: tuple[str, int, int]) -> Answer:
    return lambda q: q.encode(
        {
            "results_by_topic": [
                {
                    "name": name,
                    "results_by_partition": [{"partition_index": index, "partition_error_code": code}],
                }
                for name, index, code in rows
            ]
        }
    )


COORDINATORS = {
    "a negative node id": Attack(lambda q: coordinator(q, node_id=-1), "node id -1"),
    "a port that cannot be": Attack(lambda q: coordinator(q, port=0), "port 0"),
    "no host": Attack(lambda q: coordinator(q, host=""), "host name ''"),
    "the coordinator of somebody else": Attack(
        lambda q: coordinator(q, key="another"), "not the coordinator"
    ),
    "an unknown error": Attack(lambda q: coordinator(q, error_code=30_001), "30001"),
}

ADDED = {
    "a partition that does not exist": Attack(partitions_added(("t", 1_000_000_000, 0)), "not asked for"),
    "a partition of a negative number": Attack(partitions_added(("t", -1, 0)), "not asked for"),
    "another topic": Attack(partitions_added(("u", 0, 0)), "not asked for"),
    "nothing": Attack(partitions_added(), "was asked for"),
    "an unknown error": Attack(partitions_added(("t", 0, 30_002)), "30002"),
}

ENDS = {
    "an unknown error": Attack(lambda q: q.honest(error_code=30_003), "30003"),
    "a negative epoch": Attack(lambda q: q.honest(producer_id=8, producer_epoch=-1), ""),
}


def coordinator(question: Question, **changes: Any) -> bytes:
    body = question.honest_body()
    return question.encode({**body, "coordinators": [{**row, **changes} for row in body["coordinators"]]})


@pytest.mark.parametrize(
    ("stage", "attacks"),
    [("FindCoordinator", COORDINATORS), ("AddPartitionsToTxn", ADDED), ("EndTxn", ENDS)],
    ids=["FindCoordinator", "AddPartitionsToTxn", "EndTxn"],
)
def test_transactions(stage: str, attacks: dict[str, Attack]) -> None:
    run_all(attacks, stage, transact_one)


# -------------------------------------------------------------------------------- telemetry

SUBSCRIPTIONS: dict[str, Answer] = {
    "noise": noise,
    "the end": lambda question: None,
    "no answer": lambda question: b"",
    "nothing behind the header": lambda question: frame(question, b""),
    "any bytes": lambda question: frame(question, b"\xff" * 50),
    "an error that is none": lambda question: question.honest(error_code=9999),
    "ask again at once": lambda question: question.honest(error_code=117),
    "no id": lambda question: question.honest(client_instance_id=bytes(16)),
    "no interval": lambda question: question.honest(push_interval_ms=-(2**31)),
    "the longest interval": lambda question: question.honest(push_interval_ms=2**31 - 1),
    "no bytes": lambda question: question.honest(telemetry_max_bytes=1),
    "codecs that are none": lambda question: question.honest(accepted_compression_types=[-128, 77, 127]),
    "100,000 prefixes": lambda question: question.honest(requested_metrics=[f"p{i}" for i in range(100_000)]),
    "a pause of 24 days": lambda question: question.honest(throttle_time_ms=2**31 - 1),
}
PUSHES: dict[str, Answer] = {
    **{name: SUBSCRIPTIONS[name] for name in ("noise", "the end", "no answer", "any bytes")},
    "an error that is none": lambda question: question.honest(error_code=9999),
    "ask again at once": lambda question: question.honest(error_code=117),
    "too large": lambda question: question.honest(error_code=118),
}


@pytest.mark.parametrize(
    ("stage", "answers"), [("GetTelemetrySubscriptions", SUBSCRIPTIONS), ("PushTelemetry", PUSHES)]
)
def test_whatever_brokers_say_about_metrics_records_arrive(stage: str, answers: dict[str, Answer]) -> None:
    def send(name: str) -> str:
        with HostileBroker({stage: answers[name]}, versions=TELEMETRY) as broker:
            options = {**IMPATIENT, **PATIENT, "delivery_timeout_ms": 20_000}
            producer = KafkaProducer(bootstrap_servers=broker.address, **options)
            try:
                until = time.monotonic() + 0.5
                while time.monotonic() < until or not broker.asked[stage]:
                    producer.send("t", b"v").get(PATIENCE)
                    assert time.monotonic() < until + PATIENCE, f"{name}: {stage} never came"
            finally:
                producer.close(timeout=5)
            # At most ten pushes in a second are wanted; the rest is for busy machines.
            seconds = time.monotonic() - until + 0.5
            if broker.asked[stage] > 10 * seconds + 3:
                return f"{name}: asked {broker.asked[stage]} times in {seconds:.1f} s"
        return ""

    with PeakMemory() as peak, ThreadPoolExecutor(7) as pool:
        failures = [text for text in pool.map(send, answers) if text]
    assert failures == []
    assert peak.added < MEMORY


# -------------------------------------------------------------------------------- neighbours


def test_a_healthy_broker_beside_a_hostile_one_goes_on() -> None:
    """Broker 2 leads half of the partitions and sends noise; records for broker 1 are acknowledged."""
    with HostileBroker(greeting=b"\xde\xad\xbe\xef" * 1000) as hostile:
        with HostileBroker(peers=[(2, "127.0.0.1", hostile.port)], leaders=[1, 2]) as healthy:
            options = {**IMPATIENT, "delivery_timeout_ms": 20_000, "request_timeout_ms": 10_000}
            producer = KafkaProducer(bootstrap_servers=healthy.address, **options)
            try:
                lost = [producer.send("t", b"%d" % i, partition=1) for i in range(20)]
                for i in range(200):
                    assert producer.send("t", b"%d" % i, partition=0).get(PATIENCE).partition == 0
                assert hostile.accepted >= 1
                assert not any(future.done() for future in lost)
            finally:
                producer.close(timeout=0.2)
            assert all(future.failed() for future in lost)


def test_a_hostile_bootstrap_server_does_not_keep_others_from_being_asked(
    make_cluster: Callable[..., MockCluster],
) -> None:
    cluster = make_cluster()
    cluster.create_topic("t")
    with HostileBroker({"Metadata": noise}) as hostile:
        servers = [hostile.address, cluster.bootstrap_servers]
        options = {**IMPATIENT, "bootstrap_timeout_ms": 20_000, "delivery_timeout_ms": 20_000,
                   "max_block_ms": 20_000, "request_timeout_ms": 10_000}  # fmt: skip
        producer = KafkaProducer(bootstrap_servers=servers, **options)
        try:
            produce_one(producer)
        finally:
            producer.close(timeout=0.5)
        assert cluster.count("t") == 1
