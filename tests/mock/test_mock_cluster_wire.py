"""The mock cluster spoken to byte by byte: what a broker must refuse, and every fault it can inject."""

from __future__ import annotations

import socket
import ssl
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import crc32c
import pytest

from kprod.protocol import (
    ADD_OFFSETS_TO_TXN,
    ADD_PARTITIONS_TO_TXN,
    API_VERSIONS,
    END_TXN,
    FETCH,
    FIND_COORDINATOR,
    HEARTBEAT,
    INIT_PRODUCER_ID,
    JOIN_GROUP,
    LEAVE_GROUP,
    LIST_OFFSETS,
    METADATA,
    OFFSET_COMMIT,
    OFFSET_FETCH,
    PRODUCE,
    SYNC_GROUP,
    TXN_OFFSET_COMMIT,
    Api,
    decode_response,
    encode_request,
)
from kprod.testing import MockCluster

NOW = time.time_ns() // 1_000_000

# Made for this test: for localhost and 127.0.0.1, valid until 2126, used nowhere else.
CERTIFICATE_AND_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg5g2fx/2vUVgdAj+n
rVvaH76gDtSB1azQcqnWd9hb75OhRANCAAQoRkkvGL7kFqZWbknVy/K96VZb/0PF
isl9wl01pV+DeJEgYDplLGd+74INoVHTxMcrApyhk3/WKbbYnohHAgBa
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUDEypSBihQL2nWKGBBtltRgJTg9IwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzE1MzYyNVoYDzIxMjYxMDMw
MTUzNjI1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQoRkkvGL7kFqZWbknVy/K96VZb/0PFisl9wl01pV+DeJEgYDplLGd+
74INoVHTxMcrApyhk3/WKbbYnohHAgBao28wbTAdBgNVHQ4EFgQUx10AE51TU8vx
Tt8eoD4IziGr6q4wHwYDVR0jBBgwFoAUx10AE51TU8vxTt8eoD4IziGr6q4wDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSQAwRgIhALmmQnHNPbBw+W6nAIKGvygUv9i8w4X7/oPWF53AG3ruAiEA
2EgrJgnZ+3w7yqO7I+ZNxOf6NB2z+Fm7kNXrhdg0aPw=
-----END CERTIFICATE-----
"""


class Client:
    """A client of one connection that does nothing on its own."""

    def __init__(self, cluster: MockCluster, node: int = 1, timeout: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", cluster.ports[node - 1]), timeout)
        self.correlation_id = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, api: Api, version: int, body: dict[str, Any]) -> int:
        self.correlation_id += 1
        self.socket.sendall(encode_request(api, version, self.correlation_id, "raw", body))
        return self.correlation_id

    def receive(self, api: Api, version: int) -> dict[str, Any]:
        size = int.from_bytes(self._read(4), "big")
        correlation_id, body = decode_response(api, version, self._read(size))
        assert correlation_id <= self.correlation_id
        body["correlation_id"] = correlation_id
        return body

    def ask(self, api: Api, version: int, body: dict[str, Any]) -> dict[str, Any]:
        sent = self.send(api, version, body)
        answer = self.receive(api, version)
        assert answer["correlation_id"] == sent
        return answer

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise ConnectionResetError("closed by the broker")
            data += more
        return data

    def is_closed(self) -> bool:
        """Whether the broker closes the connection; waits for it."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def produce(
        self, records: bytes | None, topic: str = "t", index: int = 0, **options: Any
    ) -> dict[str, Any]:
        """Produce one batch; returns the answer for its partition."""
        version = options.pop("version", 9)
        answer = self.ask(PRODUCE, version, produce_body(records, topic, index, **options))
        partition: dict[str, Any] = answer["responses"][0]["partition_responses"][0]
        return partition


def produce_body(
    records: bytes | None,
    topic: str = "t",
    index: int = 0,
    acks: int = -1,
    transactional_id: str | None = None,
    topic_id: bytes = bytes(16),
) -> dict[str, Any]:
    partition = {"index": index, "records": records}
    return {
        "transactional_id": transactional_id,
        "acks": acks,
        "timeout_ms": 1000,
        "topic_data": [{"name": topic, "topic_id": topic_id, "partition_data": [partition]}],
    }


def varint(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def record(
    index: int, value: bytes | None = b"v", key: bytes | None = b"k", timestamp_delta: int = 0
) -> bytes:
    body = b"\0" + varint(timestamp_delta) + varint(index)
    for field in (key, value):
        body += varint(-1) if field is None else varint(len(field)) + field
    body += varint(0)
    return varint(len(body)) + body


def batch(count: int = 1, **changes: Any) -> bytes:
    """A valid record batch, or one with the given fields changed; `crc_change` spoils the checksum."""
    field: dict[str, Any] = {
        "producer_id": -1,
        "producer_epoch": -1,
        "sequence": -1,
        "attributes": 0,
        "magic": 2,
        "count": count,
        "last_offset_delta": count - 1,
        "timestamp": NOW,
        "records": None,
        "crc_change": 0,
        "length_change": 0,
        "value": b"v",
        "key": b"k",
    }
    assert set(changes) <= set(field)
    field.update(changes)
    records: bytes | None = field["records"]
    if records is None:
        records = b"".join(record(i, field["value"], field["key"]) for i in range(count))
    tail = (
        struct.pack(
            ">hiqqqhii",
            field["attributes"],
            field["last_offset_delta"],
            field["timestamp"],
            field["timestamp"],
            field["producer_id"],
            field["producer_epoch"],
            field["sequence"],
            field["count"],
        )
        + records
    )
    crc = crc32c.crc32c(tail) ^ field["crc_change"]
    head = struct.pack(">qiibI", 0, len(tail) + 9 + field["length_change"], -1, field["magic"], crc)
    return head + tail


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as cluster:
        cluster.create_topic("t", 2)
        yield cluster


@pytest.fixture
def client(cluster: MockCluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client


# --- batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(3, 13))
def test_every_produce_version(client: Client, cluster: MockCluster, version: int) -> None:
    answer = client.produce(batch(3), version=version)
    assert (answer["error_code"], answer["base_offset"], answer["log_append_time_ms"]) == (0, 0, -1)
    assert client.produce(batch(2), version=version)["base_offset"] == 3
    assert [r.offset for r in cluster.records("t")] == [0, 1, 2, 3, 4]


def test_produce_by_topic_id(client: Client, cluster: MockCluster) -> None:
    topic_id = cluster.topic_id("t")
    answer = client.produce(batch(), topic="", topic_id=topic_id, version=13)
    assert (answer["error_code"], answer["base_offset"]) == (0, 0)
    assert client.produce(batch(), topic="", topic_id=bytes(15) + b"x", version=13)["error_code"] == 100
    assert client.produce(batch(), topic="", topic_id=topic_id, index=7, version=13)["error_code"] == 3
    cluster.recreate_topic("t")
    assert client.produce(batch(), topic="", topic_id=topic_id, version=13)["error_code"] == 100
    assert cluster.topic_id("t") != topic_id
    assert cluster.count("t") == 0


BAD_BATCHES: list[tuple[bytes | None, int, str]] = [
    (batch(crc_change=1), 2, "CRC"),
    (batch()[:60], 2, "at least 61 bytes"),
    (batch(length_change=1), 2, "are there"),
    (batch(length_change=-30), 2, "less than a header"),
    (batch(magic=1), 87, "version 2"),
    (batch() + batch(), 87, "more than one"),
    (batch(length_change=-1), 87, "more than one"),
    (None, 87, "no record batch"),
    (b"", 87, "no record batch"),
    (batch(count=0, records=b""), 87, "0 records"),
    (batch(3, last_offset_delta=3), 87, "last offset delta 3"),
    (batch(3, last_offset_delta=1), 87, "last offset delta 1"),
    (batch(attributes=0x20), 87, "control"),
    (batch(producer_id=5, producer_epoch=0), 87, "base sequence -1"),
    (batch(attributes=0x10), 87, "without a producer id"),
    (batch(attributes=5), 76, "unknown compression codec 5"),
    (batch(attributes=1, records=b"not gzip"), 87, "gzip data"),
    (batch(attributes=2, records=b"\x82SNAPPY\0" + bytes(8) + b"\0\0\0\x09ab"), 87, "snappy"),
    (batch(attributes=3, records=b"\x04\x22\x4d\x18\x40\x40\xc0" + bytes(9)), 87, "dependent blocks"),
    (batch(attributes=4, records=b"not zstd"), 87, "zstd data"),
    (batch(2, records=record(0) + record(2)), 87, "offset delta 2"),
    (batch(2, records=record(0)), 87, "end inside"),
    (batch(1, records=record(0) + record(1)), 87, "bytes after the last"),
    (batch(1, records=record(0)[:-1]), 87, "are left"),
    (batch(1, records=varint(10) + record(0)[1:] + b"\0\0"), 87, "length differs"),
    (batch(value=b"x" * 1_048_576), 10, "max.message.bytes is 1048588"),
    (batch(timestamp=NOW + 7_200_000), 32, "out of range"),
]


@pytest.mark.parametrize(("records", "code", "message"), BAD_BATCHES, ids=range(len(BAD_BATCHES)))
def test_bad_batches_are_refused(
    client: Client, cluster: MockCluster, records: bytes | None, code: int, message: str
) -> None:
    answer = client.produce(records)
    assert answer["error_code"] == code, answer
    assert message in answer["error_message"]
    assert answer["base_offset"] == -1
    assert cluster.count() == 0
    assert client.produce(batch())["base_offset"] == 0


def test_record_errors_name_the_record(client: Client, cluster: MockCluster) -> None:
    late = record(0) + record(1, timestamp_delta=7_200_000) + record(2)
    answer = client.produce(batch(3, records=late))
    assert answer["error_code"] == 32
    assert [e["batch_index"] for e in answer["record_errors"]] == [1]
    cluster.create_topic("compacted", config={"cleanup.policy": "compact"})
    keyless = record(0) + record(1, key=None) + record(2, key=None)
    answer = client.produce(batch(3, records=keyless), topic="compacted")
    assert answer["error_code"] == 87
    assert [e["batch_index"] for e in answer["record_errors"]] == [1, 2]


def test_zstd_needs_version_7(client: Client) -> None:
    import cramjam

    records = batch(attributes=4, records=bytes(cramjam.zstd.compress(record(0))))
    assert client.produce(records, version=6)["error_code"] == 76
    assert client.produce(records, version=7)["error_code"] == 0


def test_raw_snappy_and_gzip_are_read(client: Client, cluster: MockCluster) -> None:
    import cramjam

    raw = bytes(cramjam.snappy.compress_raw(record(0, b"raw snappy")))
    assert client.produce(batch(attributes=2, records=raw))["error_code"] == 0
    gzip = zlib.compressobj(wbits=31)
    assert (
        client.produce(batch(attributes=1, records=gzip.compress(record(0, b"gz")) + gzip.flush()))[
            "error_code"
        ]
        == 0
    )
    assert [r.value for r in cluster.records("t")] == [b"raw snappy", b"gz"]


def test_without_strict_only_headers_are_checked() -> None:
    with MockCluster(strict=False) as cluster, Client(cluster) as client:
        cluster.create_topic("t")
        assert client.produce(batch(2, records=b"whatever"))["error_code"] == 0
        assert client.produce(batch(crc_change=4))["error_code"] == 2
        assert client.produce(batch(timestamp=NOW + 7_200_000))["error_code"] == 32
        assert client.produce(batch(3, last_offset_delta=1))["error_code"] == 87


def test_topic_settings(client: Client, cluster: MockCluster) -> None:
    cluster.create_topic("small", config={"max.message.bytes": 100})
    assert client.produce(batch(value=b"x" * 40), topic="small")["error_code"] == 10
    assert client.produce(batch(value=b"x" * 20), topic="small")["error_code"] == 0
    cluster.create_topic("append-time", config={"message.timestamp.type": "LogAppendTime"})
    answer = client.produce(batch(2, timestamp=5), topic="append-time")
    assert abs(answer["log_append_time_ms"] - time.time() * 1000) < 60_000
    assert {r.timestamp for r in cluster.records("append-time")} == {answer["log_append_time_ms"]}
    cluster.create_topic("recent", config={"message.timestamp.before.max.ms": 1000})
    assert client.produce(batch(timestamp=NOW - 3_600_000), topic="recent")["error_code"] == 32
    for config in ({"max.message.bytes": "x"}, {"cleanup.policy": "none"}, {"message.timestamp.type": "x"}):
        with pytest.raises(ValueError, match="is not valid"):
            cluster.create_topic("bad", config=config)


def test_acks(client: Client, cluster: MockCluster) -> None:
    assert client.produce(batch(), acks=1)["error_code"] == 0
    assert client.produce(batch(), acks=2)["error_code"] == 21
    client.send(PRODUCE, 9, produce_body(batch(), acks=0))
    # No answer for acks=0: the next one belongs to the next request.
    assert client.produce(batch())["base_offset"] == 2
    client.send(PRODUCE, 9, produce_body(batch(crc_change=1), acks=0))
    assert client.is_closed()
    assert cluster.count("t") == 3


def test_min_insync_replicas() -> None:
    with MockCluster(2, replication_factor=2) as cluster, Client(cluster, 1) as client:
        cluster.create_topic("t", config={"min.insync.replicas": 2})
        assert cluster.leader("t") == 1
        assert client.produce(batch())["error_code"] == 0
        cluster.stop_broker(2)
        assert client.produce(batch())["error_code"] == 19
        assert client.produce(batch(), acks=1)["error_code"] == 0


# --- idempotence --------------------------------------------------------------------------------------------


def idempotent(sequence: int, count: int = 1, epoch: int = 0, producer_id: int = 7, **changes: Any) -> bytes:
    return batch(count, producer_id=producer_id, producer_epoch=epoch, sequence=sequence, **changes)


def test_sequences(client: Client, cluster: MockCluster) -> None:
    assert client.produce(idempotent(0, 3))["base_offset"] == 0
    assert client.produce(idempotent(4))["error_code"] == 45
    assert client.produce(idempotent(2))["error_code"] == 45
    assert client.produce(idempotent(3))["base_offset"] == 3
    # Another partition and another producer have sequences of their own.
    assert client.produce(idempotent(0), index=1)["error_code"] == 0
    assert client.produce(idempotent(0, producer_id=8))["base_offset"] == 4
    assert [r.sequence for r in cluster.records("t", 0)] == [0, 1, 2, 3, 0]


def test_duplicates_within_five_batches_get_the_first_answer(client: Client, cluster: MockCluster) -> None:
    for sequence in range(6):
        assert client.produce(idempotent(sequence))["base_offset"] == sequence
    for sequence in range(1, 6):
        answer = client.produce(idempotent(sequence))
        assert (answer["error_code"], answer["base_offset"]) == (0, sequence)
    assert client.produce(idempotent(0))["error_code"] == 45
    # Same first sequence, other length: not the same batch.
    assert client.produce(idempotent(5, 2))["error_code"] == 45
    assert cluster.count("t") == 6


def test_epochs(client: Client) -> None:
    assert client.produce(idempotent(0, epoch=1))["error_code"] == 0
    assert client.produce(idempotent(1, epoch=0))["error_code"] == 47
    assert client.produce(idempotent(1, epoch=2))["error_code"] == 45
    assert client.produce(idempotent(0, epoch=2))["error_code"] == 0
    assert client.produce(idempotent(0, epoch=1))["error_code"] == 47


def test_sequence_wraps(client: Client) -> None:
    assert client.produce(idempotent(2**31 - 2, 3))["error_code"] == 0
    assert client.produce(idempotent(0))["error_code"] == 45
    assert client.produce(idempotent(1))["error_code"] == 0


def test_unknown_producer_may_begin_anywhere_since_2_5(client: Client) -> None:
    assert client.produce(idempotent(42))["error_code"] == 0
    with MockCluster(as_version="2.4") as cluster, Client(cluster) as old:
        cluster.create_topic("t")
        assert old.produce(idempotent(42), version=8)["error_code"] == 59
        assert old.produce(idempotent(0), version=8)["error_code"] == 0


def test_producer_ids_differ(client: Client) -> None:
    body = {"transactional_id": None, "transaction_timeout_ms": 1000}
    answers = [client.ask(INIT_PRODUCER_ID, version, body) for version in range(6)]
    assert {(a["error_code"], a["producer_epoch"]) for a in answers} == {(0, 0)}
    assert len({a["producer_id"] for a in answers}) == 6


# --- transactions -------------------------------------------------------------------------------------------


class Transaction:
    """A transactional producer by hand."""

    def __init__(self, client: Client, transactional_id: str = "T") -> None:
        self.client = client
        self.id = transactional_id
        answer = self.init()
        assert answer["error_code"] == 0
        self.producer_id, self.epoch = answer["producer_id"], answer["producer_epoch"]
        self.sequence = 0

    def init(self, producer_id: int = -1, epoch: int = -1, timeout_ms: int = 60_000) -> dict[str, Any]:
        return self.client.ask(
            INIT_PRODUCER_ID,
            4,
            {
                "transactional_id": self.id,
                "transaction_timeout_ms": timeout_ms,
                "producer_id": producer_id,
                "producer_epoch": epoch,
            },
        )

    def who(self) -> dict[str, Any]:
        return {"transactional_id": self.id, "producer_id": self.producer_id, "producer_epoch": self.epoch}

    def add(self, *partitions: int, version: int = 3) -> list[int]:
        body = {**self.who(), "topics": [{"name": "t", "partitions": list(partitions)}]}
        answer = self.client.ask(ADD_PARTITIONS_TO_TXN, version, body)
        return [p["partition_error_code"] for p in answer["results_by_topic"][0]["results_by_partition"]]

    def produce(self, index: int = 0, version: int = 9) -> int:
        records = batch(
            attributes=0x10, producer_id=self.producer_id, producer_epoch=self.epoch, sequence=self.sequence
        )
        answer = self.client.produce(records, index=index, transactional_id=self.id, version=version)
        code: int = answer["error_code"]
        return code

    def end(self, committed: bool, version: int = 4) -> dict[str, Any]:
        return self.client.ask(END_TXN, version, {**self.who(), "committed": committed})


def stable_offset(client: Client, index: int = 0) -> int:
    partition = {"partition_index": index, "timestamp": -1}
    body = {"replica_id": -1, "isolation_level": 1, "topics": [{"name": "t", "partitions": [partition]}]}
    offset: int = client.ask(LIST_OFFSETS, 7, body)["topics"][0]["partitions"][0]["offset"]
    return offset


def test_transaction(client: Client, cluster: MockCluster) -> None:
    transaction = Transaction(client)
    assert transaction.produce() == 48, "the partition is not in the transaction"
    assert transaction.add(0, 1) == [0, 0]
    assert transaction.produce() == 0
    assert stable_offset(client) == 0
    assert transaction.end(True)["error_code"] == 0
    assert stable_offset(client) == 2
    assert transaction.end(True)["error_code"] == 0, "a repeated commit is answered again"
    assert transaction.end(False)["error_code"] == 48
    markers = [b for b in cluster.batches("t") if b.header.is_control]
    assert [(m.partition, m.header.producer_id) for m in markers] == [
        (p, transaction.producer_id) for p in (0, 1)
    ]
    assert cluster.count("t") == 1
    assert len(cluster.records("t")) == 1


def test_transaction_errors(client: Client) -> None:
    transaction = Transaction(client)
    assert transaction.end(True)["error_code"] == 48, "nothing to commit"
    assert transaction.add(0, 9) == [55, 3]
    transaction.epoch += 1
    assert transaction.add(0) == [90]
    assert transaction.add(0, version=1) == [47]
    assert transaction.end(True)["error_code"] == 90
    assert transaction.end(True, version=1)["error_code"] == 47
    transaction.epoch -= 1
    transaction.producer_id += 1
    assert transaction.add(0) == [49]
    transaction.id = "nobody"
    assert transaction.end(True)["error_code"] == 49
    assert transaction.init(timeout_ms=10_000_000)["error_code"] == 50
    transaction.id = ""
    assert transaction.init()["error_code"] == 42


def test_init_producer_id_bumps_and_fences(client: Client) -> None:
    first = Transaction(client)
    assert first.add(0) == [0]
    assert first.produce() == 0
    second = Transaction(client)
    assert second.producer_id == first.producer_id
    assert second.epoch > first.epoch
    assert stable_offset(client) == 2, "the open transaction was aborted"
    assert first.produce() == 47, "partition leaders do not know who fenced whom"
    # KIP-360: a producer can bump its own epoch, but not one that was fenced.
    bumped = second.init(second.producer_id, second.epoch)
    assert (bumped["error_code"], bumped["producer_epoch"]) == (0, second.epoch + 1)
    again = second.init(second.producer_id, second.epoch)
    assert (again["error_code"], again["producer_epoch"]) == (0, second.epoch + 1), "a repeated request"
    assert first.init(first.producer_id, first.epoch)["error_code"] == 90


def test_non_transactional_batch_in_a_transaction(client: Client) -> None:
    transaction = Transaction(client)
    transaction.add(0)
    transaction.produce()
    plain = idempotent(1, producer_id=transaction.producer_id, epoch=transaction.epoch)
    assert client.produce(plain)["error_code"] == 48


def test_transactions_version_2(client: Client, cluster: MockCluster) -> None:
    transaction = Transaction(client)
    assert transaction.produce(version=11) == 120, "before version 12 the partition has to be added"
    assert transaction.produce(version=12) == 0
    ended = transaction.end(True, version=5)
    assert (ended["error_code"], ended["producer_epoch"]) == (0, transaction.epoch + 1)
    repeated = transaction.end(True, version=5)
    assert (repeated["error_code"], repeated["producer_epoch"]) == (0, transaction.epoch + 1)
    assert transaction.produce(version=12) == 47, "the epoch is over"
    transaction.epoch += 1
    assert transaction.produce(version=12) == 0
    assert transaction.end(False, version=5)["producer_epoch"] == transaction.epoch + 1
    transaction.epoch += 1
    # An abort without anything to abort gives a new epoch as well.
    assert transaction.end(False, version=5)["producer_epoch"] == transaction.epoch + 1
    features = client.ask(API_VERSIONS, 3, {"client_software_name": "raw", "client_software_version": "1"})
    assert features["finalized_features"] == [
        {"name": "transaction.version", "max_version_level": 2, "min_version_level": 2}
    ]


def test_transaction_times_out(client: Client, cluster: MockCluster) -> None:
    transaction = Transaction(client)
    answer = transaction.init(timeout_ms=50)
    transaction.epoch = answer["producer_epoch"]
    transaction.add(0)
    transaction.produce()
    deadline = time.monotonic() + 10
    while stable_offset(client) != 2:
        assert time.monotonic() < deadline, "the transaction was not aborted"
    assert transaction.end(True)["error_code"] == 90


def test_offsets_of_a_transaction(client: Client, cluster: MockCluster) -> None:
    transaction = Transaction(client)
    partition = {"partition_index": 0, "committed_offset": 12, "committed_metadata": "m"}
    commit = {
        **transaction.who(),
        "group_id": "G",
        "generation_id": -1,
        "topics": [{"name": "t", "partitions": [partition]}],
    }
    commit["member_id"] = ""

    def code_of(version: int) -> int:
        answer = client.ask(TXN_OFFSET_COMMIT, version, commit)
        code: int = answer["topics"][0]["partitions"][0]["error_code"]
        return code

    assert code_of(3) == 48, "the group is not in the transaction"
    assert client.ask(ADD_OFFSETS_TO_TXN, 3, {**transaction.who(), "group_id": "G"})["error_code"] == 0
    assert code_of(3) == 0
    fetched = {"group_id": "G", "topics": [{"name": "t", "partition_indexes": [0]}]}
    body = {"groups": [fetched], "require_stable": True}
    unstable = client.ask(OFFSET_FETCH, 8, body)["groups"][0]["topics"][0]["partitions"][0]
    assert unstable["error_code"] == 88
    assert cluster.committed_offsets("G") == {}
    transaction.end(True)
    assert cluster.committed_offsets("G") == {("t", 0): 12}
    # Transactions v2: no AddOffsetsToTxn.
    partition["committed_offset"] = 13
    assert code_of(5) == 0
    transaction.end(True)
    assert cluster.committed_offsets("G") == {("t", 0): 13}


def test_coordinators_are_asked_where_they_are() -> None:
    with MockCluster(3) as cluster, Client(cluster, 1) as client:
        ids = [f"T{i}" for i in range(20)]
        found = client.ask(FIND_COORDINATOR, 4, {"key_type": 1, "coordinator_keys": ids})["coordinators"]
        assert {c["node_id"] for c in found} == {1, 2, 3}
        body = {"transaction_timeout_ms": 1000, "producer_id": -1, "producer_epoch": -1}
        for coordinator in found:
            answer = client.ask(INIT_PRODUCER_ID, 4, {"transactional_id": coordinator["key"], **body})
            assert answer["error_code"] == (0 if coordinator["node_id"] == 1 else 16)
            single = client.ask(FIND_COORDINATOR, 2, {"key_type": 1, "key": coordinator["key"]})
            assert (single["node_id"], single["port"]) == (coordinator["node_id"], coordinator["port"])
        cluster.stop_broker(3)
        moved = client.ask(FIND_COORDINATOR, 4, {"key_type": 1, "coordinator_keys": ids})["coordinators"]
        assert {c["node_id"] for c in moved} == {1, 2}
        stayed = [(m, f) for m, f in zip(moved, found, strict=True) if f["node_id"] != 3]
        assert all(m == f for m, f in stayed)


# --- metadata, versions, leaders ----------------------------------------------------------------------------


def metadata(
    client: Client, topics: list[str] | None, version: int = 12, create: bool = True
) -> dict[str, Any]:
    asked = None if topics is None else [{"name": name} for name in topics]
    return client.ask(METADATA, version, {"topics": asked, "allow_auto_topic_creation": create})


@pytest.mark.parametrize("version", range(14))
def test_every_metadata_version(client: Client, cluster: MockCluster, version: int) -> None:
    answer = metadata(client, ["t"], version)
    assert [(b["node_id"], b["port"]) for b in answer["brokers"]] == [(1, cluster.ports[0])]
    assert [(p["partition_index"], p["leader_id"]) for p in answer["topics"][0]["partitions"]] == [
        (0, 1),
        (1, 1),
    ]
    if version >= 10:
        assert answer["topics"][0]["topic_id"] == cluster.topic_id("t")
    everything = metadata(client, [] if version == 0 else None, version)
    assert [t["name"] for t in everything["topics"]] == ["t"]


def test_metadata_creates_topics_where_it_may(client: Client, cluster: MockCluster) -> None:
    assert metadata(client, [])["topics"] == []
    assert metadata(client, ["new"], create=False)["topics"][0]["error_code"] == 3
    assert metadata(client, ["bad name"])["topics"][0]["error_code"] == 17
    assert metadata(client, ["new"])["topics"][0]["error_code"] == 0
    assert cluster.topics() == {"t": 2, "new": 1}
    by_id = client.ask(
        METADATA, 12, {"topics": [{"topic_id": cluster.topic_id("new")}, {"topic_id": bytes(16)}]}
    )
    assert [(t["error_code"], t["name"]) for t in by_id["topics"]] == [(0, "new"), (100, None)]
    with MockCluster(auto_create_topics=False) as closed, Client(closed) as other:
        assert metadata(other, ["new"])["topics"][0]["error_code"] == 3


def test_api_versions(client: Client) -> None:
    named = {"client_software_name": "raw", "client_software_version": "1.0"}
    ranges = {
        a["api_key"]: (a["min_version"], a["max_version"])
        for a in client.ask(API_VERSIONS, 4, named)["api_keys"]
    }
    assert ranges[0] == (0, 13)
    assert ranges[3] == (0, 13)
    assert 71 not in ranges
    bad_name = client.ask(API_VERSIONS, 3, {**named, "client_software_name": "-bad-"})
    assert bad_name["error_code"] == 42


def test_unknown_api_versions_version_is_answered_in_version_0(cluster: MockCluster) -> None:
    cluster.set_version("2.1")
    with Client(cluster) as client:
        client.send(API_VERSIONS, 4, {"client_software_name": "raw", "client_software_version": "1"})
        answer = client.receive(API_VERSIONS, 0)
        assert (answer["error_code"], answer["api_keys"]) == (
            35,
            [{"api_key": 18, "min_version": 0, "max_version": 2}],
        )
        ranges = {a["api_key"]: a["max_version"] for a in client.ask(API_VERSIONS, 0, {})["api_keys"]}
        assert (ranges[0], ranges[3], ranges[22]) == (7, 7, 1)
        assert 60 not in ranges
        client.send(METADATA, 9, {"topics": None})
        assert client.is_closed()
    assert "Metadata version 9 is not supported" in cluster.problems[0]


def test_set_api_versions(cluster: MockCluster, client: Client) -> None:
    cluster.set_api_versions({"Produce": (3, 5), "init_producer_id": None})
    ranges = {a["api_key"]: a["max_version"] for a in client.ask(API_VERSIONS, 0, {})["api_keys"]}
    assert ranges[0] == 5
    assert 22 not in ranges
    with pytest.raises(ValueError, match="within 0 to 13"):
        cluster.set_api_versions({"Produce": (3, 99)})
    with pytest.raises(ValueError, match="no API 'Produkt'"):
        cluster.set_api_versions({"Produkt": None})


def test_wrong_leader_names_the_right_one() -> None:
    with MockCluster(2) as cluster, Client(cluster, 1) as client:
        cluster.create_topic("t", 2)
        cluster.move_leader("t", 0, 2)
        answer = client.ask(PRODUCE, 10, produce_body(batch()))
        partition = answer["responses"][0]["partition_responses"][0]
        assert partition["error_code"] == 6
        assert partition["current_leader"] == {"leader_id": 2, "leader_epoch": 1}
        assert [(n["node_id"], n["port"]) for n in answer["node_endpoints"]] == [(2, cluster.ports[1])]
        assert client.produce(batch(), version=9)["error_code"] == 6
        assert client.produce(batch(), index=5)["error_code"] == 3
        assert client.produce(batch(), topic="nowhere")["error_code"] == 3
        assert metadata(client, ["t"])["topics"][0]["partitions"][0]["leader_epoch"] == 1
        with pytest.raises(ValueError, match="node must be 1 to 2, not 3"):
            cluster.move_leader("t", 0, 3)


def test_added_partitions_and_deleted_topics(client: Client, cluster: MockCluster) -> None:
    assert client.produce(batch(), index=2)["error_code"] == 3
    cluster.add_partitions("t", 3)
    assert client.produce(batch(), index=2)["error_code"] == 0
    with pytest.raises(ValueError, match="3 are not more"):
        cluster.add_partitions("t", 3)
    cluster.delete_topic("t")
    assert client.produce(batch())["error_code"] == 3
    with pytest.raises(KeyError):
        cluster.delete_topic("t")
    assert cluster.records("t") == []


# --- reading ------------------------------------------------------------------------------------------------


def fetch(client: Client, offset: int, version: int = 11, **changes: Any) -> dict[str, Any]:
    options = {
        "max_wait_ms": 0,
        "min_bytes": 1,
        "max_bytes": 1 << 20,
        "isolation_level": 0,
        "topic_id": bytes(16),
    }
    options.update(changes)
    topic_id = options.pop("topic_id")
    partition = {"partition": 0, "fetch_offset": offset, "partition_max_bytes": 1 << 20}
    topic = {"topic": "t", "topic_id": topic_id, "partitions": [partition]}
    answer = client.ask(FETCH, version, {**options, "topics": [topic], "forgotten_topics_data": []})
    found: dict[str, Any] = answer["responses"][0]["partitions"][0]
    return found


def test_fetch(client: Client, cluster: MockCluster) -> None:
    for _ in range(3):
        client.produce(batch(2))
    stored = [b.data for b in cluster.batches("t", 0)]
    assert fetch(client, 0)["records"] == b"".join(stored)
    assert fetch(client, 3)["records"] == b"".join(stored[1:]), "the batch with the offset comes whole"
    assert fetch(client, 0, max_bytes=1)["records"] == stored[0], "the first batch comes whatever its size"
    empty = fetch(client, 6)
    assert (empty["error_code"], empty["records"], empty["high_watermark"]) == (0, b"", 6)
    assert fetch(client, 7)["error_code"] == 1
    assert fetch(client, -1)["error_code"] == 1
    assert fetch(client, 0, version=13, topic_id=cluster.topic_id("t"))["records"] == b"".join(stored)
    assert fetch(client, 0, version=13, topic_id=b"x" * 16)["error_code"] in (3, 100)


def test_fetch_waits_for_records(cluster: MockCluster, client: Client) -> None:
    with Client(cluster) as writer:
        partition = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20}
        body = {
            "max_wait_ms": 20_000,
            "min_bytes": 1,
            "max_bytes": 1 << 20,
            "topics": [{"topic": "t", "topic_id": bytes(16), "partitions": [partition]}],
            "forgotten_topics_data": [],
        }
        client.send(FETCH, 11, body)
        writer.produce(batch())
        answer = client.receive(FETCH, 11)
        assert answer["responses"][0]["partitions"][0]["records"] == cluster.batches("t")[0].data
    started = time.monotonic()
    assert fetch(client, 1, max_wait_ms=50)["records"] == b""
    assert time.monotonic() - started >= 0.05


def test_aborted_transactions_are_named(client: Client) -> None:
    transaction = Transaction(client)
    transaction.add(0)
    transaction.produce()
    assert fetch(client, 0, isolation_level=1)["records"] == b""
    transaction.end(False)
    answer = fetch(client, 0, isolation_level=1)
    assert answer["aborted_transactions"] == [{"producer_id": transaction.producer_id, "first_offset": 0}]
    assert answer["last_stable_offset"] == 2
    assert fetch(client, 0)["aborted_transactions"] is None


def test_list_offsets(client: Client) -> None:
    for delta in (0, 10, 20):
        client.produce(batch(2, timestamp=NOW - 1000 + delta))

    def at(timestamp: int, version: int = 7) -> tuple[int, int]:
        partition = {"partition_index": 0, "timestamp": timestamp}
        body = {"replica_id": -1, "isolation_level": 0, "topics": [{"name": "t", "partitions": [partition]}]}
        found = client.ask(LIST_OFFSETS, version, body)["topics"][0]["partitions"][0]
        return found["offset"], found["timestamp"]

    assert at(-2) == (0, -1)
    assert at(-1) == (6, -1)
    assert at(-3) == (4, NOW - 980)
    assert at(NOW - 1000) == (0, NOW - 1000)
    assert at(NOW - 995) == (2, NOW - 990)
    assert at(NOW) == (-1, -1)


# --- groups -------------------------------------------------------------------------------------------------


def test_group_rebalance(cluster: MockCluster) -> None:
    """A second member joins, the first is told by its heartbeat, both get an assignment; then one leaves."""

    def join_body(member_id: str) -> dict[str, Any]:
        return {
            "group_id": "G",
            "session_timeout_ms": 60_000,
            "rebalance_timeout_ms": 60_000,
            "member_id": member_id,
            "group_instance_id": None,
            "protocol_type": "consumer",
            "protocols": [{"name": "range", "metadata": b"m"}],
        }

    def enter(client: Client) -> str:
        answer = client.ask(JOIN_GROUP, 5, join_body(""))
        assert answer["error_code"] == 79
        member_id: str = answer["member_id"]
        return member_id

    def sync(member_id: str, generation: int, members: tuple[str, ...] = ()) -> dict[str, Any]:
        assignments = [{"member_id": m, "assignment": m.encode()} for m in members]
        return {
            "group_id": "G",
            "generation_id": generation,
            "member_id": member_id,
            "assignments": assignments,
        }

    with Client(cluster) as one, Client(cluster) as two:
        first = enter(one)
        joined = one.ask(JOIN_GROUP, 5, join_body(first))
        assert (joined["leader"], joined["generation_id"]) == (first, 1)
        assert one.ask(SYNC_GROUP, 3, sync(first, 1, (first,)))["assignment"] == first.encode()
        beat = {"group_id": "G", "generation_id": 1, "member_id": first}
        assert one.ask(HEARTBEAT, 3, beat)["error_code"] == 0

        second = enter(two)
        two.send(JOIN_GROUP, 5, join_body(second))
        deadline = time.monotonic() + 10
        while one.ask(HEARTBEAT, 3, beat)["error_code"] != 27:
            assert time.monotonic() < deadline
        joined = one.ask(JOIN_GROUP, 5, join_body(first))
        assert [m["member_id"] for m in joined["members"]] == [first, second]
        assert two.receive(JOIN_GROUP, 5)["members"] == []
        two.send(SYNC_GROUP, 3, sync(second, 2))
        assert one.ask(SYNC_GROUP, 3, sync(first, 2, (first, second)))["assignment"] == first.encode()
        assert two.receive(SYNC_GROUP, 3)["assignment"] == second.encode()
        assert one.ask(HEARTBEAT, 3, beat)["error_code"] == 22

        offset = {"partition_index": 0, "committed_offset": 4, "committed_metadata": None}
        commit = {
            "group_id": "G",
            "generation_id_or_member_epoch": 2,
            "member_id": first,
            "topics": [{"name": "t", "partitions": [offset]}],
        }
        answer = one.ask(OFFSET_COMMIT, 7, commit)
        assert answer["topics"][0]["partitions"][0]["error_code"] == 0
        stale = one.ask(OFFSET_COMMIT, 7, {**commit, "generation_id_or_member_epoch": 1})
        assert stale["topics"][0]["partitions"][0]["error_code"] == 22
        assert cluster.committed_offsets("G") == {("t", 0): 4}

        leaving = {"group_id": "G", "members": [{"member_id": second, "group_instance_id": None}]}
        assert two.ask(LEAVE_GROUP, 4, leaving)["members"][0]["error_code"] == 0
        assert one.ask(HEARTBEAT, 3, {**beat, "generation_id": 2})["error_code"] == 27
        assert one.ask(JOIN_GROUP, 5, join_body(first))["generation_id"] == 3
        assert one.ask(JOIN_GROUP, 5, join_body("stranger"))["error_code"] == 25


# --- faults -------------------------------------------------------------------------------------------------


def test_injected_errors_hit_what_they_name(client: Client, cluster: MockCluster) -> None:
    fault = cluster.inject("Produce", "NOT_LEADER_OR_FOLLOWER", partition=1, times=2)
    assert client.produce(batch(), index=0)["error_code"] == 0
    assert client.produce(batch(), index=1)["error_code"] == 6
    assert fault.hits == 1
    assert client.produce(batch(), index=1)["error_code"] == 6
    assert client.produce(batch(), index=1)["error_code"] == 0
    assert fault.hits == 2
    assert cluster.count("t", 1) == 1


def test_fault_for_one_of_several_partitions(client: Client, cluster: MockCluster) -> None:
    cluster.inject("Produce", 7, topic="t", partition=0)
    body = produce_body(batch())
    body["topic_data"][0]["partition_data"].append({"index": 1, "records": batch()})
    answers = client.ask(PRODUCE, 9, body)["responses"][0]["partition_responses"]
    assert [a["error_code"] for a in answers] == [7, 0]


def test_fault_options(client: Client, cluster: MockCluster) -> None:
    cluster.inject("produce", 87, skip=1, record_errors=[(2, "bad")], error_message="no")
    assert client.produce(batch())["error_code"] == 0
    answer = client.produce(batch())
    assert (answer["error_code"], answer["error_message"]) == (87, "no")
    assert answer["record_errors"] == [{"batch_index": 2, "batch_index_error_message": "bad"}]
    cluster.inject("Produce", "REQUEST_TIMED_OUT", applied=True)
    assert client.produce(batch())["error_code"] == 7
    assert cluster.count("t") == 2
    cluster.inject("Produce", throttle_ms=123)
    assert client.ask(PRODUCE, 9, produce_body(batch()))["throttle_time_ms"] == 123
    fault = cluster.inject("Produce", 7, times=None)
    assert [client.produce(batch())["error_code"] for _ in range(3)] == [7, 7, 7]
    fault.remove()
    assert client.produce(batch())["error_code"] == 0


@pytest.mark.parametrize(
    ("api", "version", "body"),
    [
        (
            INIT_PRODUCER_ID,
            4,
            {"transactional_id": None, "transaction_timeout_ms": 1, "producer_id": -1, "producer_epoch": -1},
        ),
        (API_VERSIONS, 3, {"client_software_name": "raw", "client_software_version": "1"}),
        (METADATA, 13, {"topics": None}),
        (END_TXN, 3, {"transactional_id": "T", "producer_id": 1, "producer_epoch": 0, "committed": True}),
        (
            ADD_OFFSETS_TO_TXN,
            3,
            {"transactional_id": "T", "producer_id": 1, "producer_epoch": 0, "group_id": "G"},
        ),
        (HEARTBEAT, 3, {"group_id": "G", "generation_id": 1, "member_id": "m"}),
    ],
    ids=lambda value: value.name if isinstance(value, Api) else "",
)
def test_errors_of_whole_requests(
    client: Client, cluster: MockCluster, api: Api, version: int, body: dict[str, Any]
) -> None:
    cluster.inject(api, "COORDINATOR_LOAD_IN_PROGRESS")
    assert client.ask(api, version, body)["error_code"] == 14
    assert client.ask(api, version, body)["error_code"] != 14


def test_metadata_and_coordinator_faults(client: Client, cluster: MockCluster) -> None:
    cluster.inject("Metadata", "LEADER_NOT_AVAILABLE", topic="t", partition=1)
    topic = metadata(client, ["t"])["topics"][0]
    assert (topic["error_code"], [p["error_code"] for p in topic["partitions"]]) == (0, [0, 5])
    cluster.inject("Metadata", "TOPIC_AUTHORIZATION_FAILED", topic="t")
    assert metadata(client, ["t"])["topics"][0]["error_code"] == 29
    assert metadata(client, ["t"])["topics"][0]["error_code"] == 0
    cluster.inject("FindCoordinator", "COORDINATOR_NOT_AVAILABLE")
    assert client.ask(FIND_COORDINATOR, 4, {"coordinator_keys": ["T"]})["coordinators"][0]["error_code"] == 15
    cluster.inject("AddPartitionsToTxn", "CONCURRENT_TRANSACTIONS")
    transaction = Transaction(client)
    assert transaction.add(0) == [51]
    assert transaction.add(0) == [0]


@pytest.mark.parametrize(("close", "count"), [("before", 0), (True, 0), ("after", 1), ("mid_response", 1)])
def test_closed_connections(cluster: MockCluster, close: bool | str, count: int) -> None:
    cluster.inject("Produce", close_connection=close)
    with Client(cluster) as client:
        client.send(PRODUCE, 9, produce_body(batch()))
        with pytest.raises(ConnectionResetError):
            client.receive(PRODUCE, 9)
    assert cluster.count() == count
    with Client(cluster) as client:
        assert client.produce(batch())["error_code"] == 0


def test_mid_response_sends_a_part(cluster: MockCluster, client: Client) -> None:
    cluster.inject("Produce", close_connection="mid_response")
    client.send(PRODUCE, 9, produce_body(batch()))
    received = b""
    while more := client.socket.recv(1000):
        received += more
    assert 4 < len(received) < 4 + int.from_bytes(received[:4], "big")


def test_dropped_response(cluster: MockCluster) -> None:
    cluster.inject("Produce", drop_response=True)
    with Client(cluster, timeout=0.1) as client:
        client.send(PRODUCE, 9, produce_body(batch()))
        client.send(METADATA, 9, {"topics": None})
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
    assert cluster.wait_for(1) == 1
    with Client(cluster) as client:
        assert client.produce(batch())["base_offset"] == 1


def test_delay_keeps_the_order_of_responses(cluster: MockCluster, client: Client) -> None:
    cluster.inject("Produce", delay_ms=80)
    started = time.monotonic()
    client.send(PRODUCE, 9, produce_body(batch()))
    client.send(PRODUCE, 9, produce_body(batch()))
    assert [client.receive(PRODUCE, 9)["correlation_id"] for _ in range(2)] == [1, 2]
    assert time.monotonic() - started >= 0.08


def test_what_a_client_left_behind_is_handled_in_order_though_it_is_gone(cluster: MockCluster) -> None:
    fault = cluster.inject("Produce", handle_after_ms=80)
    with Client(cluster) as client:
        client.send(PRODUCE, 9, produce_body(batch(timestamp=NOW + 1)))
        client.send(PRODUCE, 9, produce_body(batch(timestamp=NOW + 2)))
        while not fault.hits:
            time.sleep(0.001)
    with Client(cluster) as client:
        assert client.produce(batch())["base_offset"] == 0
    assert cluster.wait_for(3) == 3
    assert [record.timestamp - NOW for record in cluster.records("t")] == [0, 1, 2]


def test_work_that_is_late_holds_up_what_the_client_sends_next(cluster: MockCluster, client: Client) -> None:
    cluster.inject("Produce", handle_after_ms=80)
    started = time.monotonic()
    for _ in range(2):
        client.send(PRODUCE, 9, produce_body(batch()))
    assert [client.receive(PRODUCE, 9)["correlation_id"] for _ in range(2)] == [1, 2]
    assert time.monotonic() - started >= 0.08


def test_bytes_behind_a_request_are_a_problem_but_not_the_end() -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    with MockCluster() as cluster:
        cluster.create_topic("t")
        producer = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap_servers})
        assert "t" in producer.list_topics(timeout=10).topics
        producer.produce("t", b"v")
        assert producer.flush(10) == 0
        assert all("left over" in problem for problem in cluster.problems)


def test_latency_overlaps(cluster: MockCluster, client: Client) -> None:
    cluster.set_latency(100)
    started = time.monotonic()
    for _ in range(10):
        client.send(METADATA, 9, {"topics": None})
    for _ in range(10):
        client.receive(METADATA, 9)
    assert 0.1 <= time.monotonic() - started < 0.9
    cluster.set_latency(0)


def test_slow_writes(cluster: MockCluster, client: Client) -> None:
    cluster.set_slow_writes(1, size=3)
    started = time.monotonic()
    assert metadata(client, ["t"])["topics"][0]["name"] == "t"
    assert time.monotonic() - started > 0.01
    cluster.set_slow_writes(0)
    assert metadata(client, ["t"])["topics"][0]["name"] == "t"
    with pytest.raises(ValueError, match="size must be at least 1"):
        cluster.set_slow_writes(1, size=0)


def test_black_hole(cluster: MockCluster) -> None:
    with Client(cluster, timeout=0.1) as client:
        cluster.set_unreachable(1)
        client.send(PRODUCE, 9, produce_body(batch()))
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        with Client(cluster, timeout=0.1) as other:
            other.send(METADATA, 9, {"topics": None})
            with pytest.raises(TimeoutError):
                other.socket.recv(1)
            assert cluster.count() == 0
            cluster.set_unreachable(1, False)
            client.socket.settimeout(10)
            other.socket.settimeout(10)
            # What was sent meanwhile is answered now.
            assert client.receive(PRODUCE, 9)["responses"][0]["partition_responses"][0]["error_code"] == 0
            assert other.receive(METADATA, 9)["topics"][0]["name"] == "t"


def test_stopped_broker() -> None:
    with MockCluster(2, replication_factor=2) as cluster:
        cluster.create_topic("t", 2)
        assert [cluster.leader("t", p) for p in (0, 1)] == [1, 2]
        port = cluster.ports[0]
        with Client(cluster, 1) as client:
            client.produce(batch())
            cluster.stop_broker(1)
            assert client.is_closed()
        for _ in range(50):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
        assert [cluster.leader("t", p) for p in (0, 1)] == [2, 2]
        with Client(cluster, 2) as client:
            answer = metadata(client, ["t"])
            assert [b["node_id"] for b in answer["brokers"]] == [2]
            partition = answer["topics"][0]["partitions"][0]
            assert (partition["isr_nodes"], partition["offline_replicas"]) == ([2], [1])
            assert client.produce(batch())["base_offset"] == 1, "the log is there on the new leader"
            cluster.start_broker(1)
            cluster.start_broker(1)
            assert len(metadata(client, ["t"])["brokers"]) == 2
            assert cluster.leader("t", 0) == 2
        with Client(cluster, 1) as client:
            assert client.produce(batch())["error_code"] == 6


def test_partition_without_a_leader() -> None:
    with MockCluster(2) as cluster:
        cluster.create_topic("t", 2)
        cluster.stop_broker(1)
        with Client(cluster, 2) as client:
            partition = metadata(client, ["t"])["topics"][0]["partitions"][0]
            assert (partition["leader_id"], partition["error_code"]) == (-1, 5)
            cluster.start_broker(1)
            partition = metadata(client, ["t"])["topics"][0]["partitions"][0]
            assert (partition["leader_id"], partition["error_code"]) == (1, 0)


def test_disconnect_clients(cluster: MockCluster) -> None:
    with Client(cluster) as one, Client(cluster) as two:
        for client in (one, two):
            metadata(client, None)
        assert cluster.connection_count() == 2
        assert cluster.disconnect_clients() == 2
        assert one.is_closed()
        assert two.is_closed()


# --- hostile clients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff" + bytes(20),
        b"\x7f\xff\xff\xff" + bytes(20),
        b"\0\0\0\x00",
        b"\0\0\0\x04" + bytes(4),
        b"\0\0\0\x0a" + b"\x03\xe7" + bytes(6) + b"\xff\xff",
        b"\0\0\0\x0a" + b"\0\x03\0\x63" + bytes(4) + b"\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        encode_request(METADATA, 9, 1, "x", {"topics": None})[:-1] + b"\x09",
    ],
)
def test_nonsense_closes_the_connection(cluster: MockCluster, data: bytes) -> None:
    with Client(cluster) as client:
        client.socket.sendall(data)
        assert client.is_closed()
    assert len(cluster.problems) == 1
    with Client(cluster) as client:
        assert client.produce(batch())["error_code"] == 0


def test_requests_in_pieces_and_in_bulk(cluster: MockCluster, client: Client) -> None:
    large = batch(value=b"x" * 200_000)
    frames = [
        encode_request(PRODUCE, 9, n, "raw", produce_body(b))
        for n, b in enumerate((batch(), large, batch()), 1)
    ]
    client.correlation_id = 6
    for byte in frames[0]:
        client.socket.sendall(bytes([byte]))
    client.socket.sendall(frames[1][:100_000])
    client.socket.sendall(frames[1][100_000:] + frames[2])
    assert [client.receive(PRODUCE, 9)["correlation_id"] for _ in range(3)] == [1, 2, 3]
    client.socket.sendall(b"".join(frames))
    assert [client.receive(PRODUCE, 9)["correlation_id"] for _ in range(3)] == [1, 2, 3]
    assert cluster.end_offset("t") == 6
    assert cluster.problems == []


# --- the object itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [False, True], ids=["thread", "process"])
def test_life_of_a_cluster(process: bool) -> None:
    cluster = MockCluster(2, process=process, racks=["a", None])
    try:
        assert cluster.bootstrap_servers == ",".join(f"127.0.0.1:{port}" for port in cluster.ports)
        cluster.create_topic("t")
        with pytest.raises(ValueError, match="exists"):
            cluster.create_topic("t")
        with pytest.raises(ValueError, match="topic may only have"):
            cluster.create_topic("not a name")
        with pytest.raises(KeyError):
            cluster.leader("nowhere")
        with pytest.raises(TimeoutError, match=r"0 of 1 records are in topic 't' after 0\.01 s"):
            cluster.wait_for(1, "t", timeout=0.01)
        with Client(cluster) as client:
            assert [b["rack"] for b in metadata(client, None)["brokers"]] == ["a", None]
            client.produce(batch(3))
            assert cluster.wait_for(3, "t") == 3
            fault = cluster.inject("Produce", 7, times=None)
            assert client.produce(batch())["error_code"] == 7
            assert fault.hits == 1
            (request, _) = cluster.requests_of("Produce")
            assert (request.node, request.version, request.client_id) == (1, 9, "raw")
            assert request.partitions == {("t", 0): len(batch(3))}
            cluster.clear()
            assert (cluster.count(), cluster.requests, cluster.problems) == (0, [], [])
            assert client.produce(batch())["base_offset"] == 0
    finally:
        cluster.close()
        cluster.close()
    assert repr(cluster) == "<MockCluster closed>"
    with pytest.raises(RuntimeError, match="this MockCluster is closed"):
        cluster.count()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", cluster.ports[0]), 5)


@pytest.mark.parametrize("process", [False, True], ids=["thread", "process"])
def test_wait_for_wakes_up_and_ends_with_the_cluster(process: bool) -> None:
    with MockCluster(process=process) as cluster, ThreadPoolExecutor() as pool, Client(cluster) as client:
        cluster.create_topic("t")
        waiting = pool.submit(cluster.wait_for, 2, "t", 10)
        client.produce(batch())
        client.produce(batch())
        assert waiting.result(10) == 2
        waiting = pool.submit(cluster.wait_for, 9, "t", 60)
        cluster.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result(10)


def test_starting_is_quick() -> None:
    took = []
    for _ in range(5):
        started = time.perf_counter()
        MockCluster(3).close()
        took.append(time.perf_counter() - started)
    # Some 10 ms; a test that uses one must not notice. The best of five, as other programs run here too.
    assert min(took) < 0.25


def test_tls(tmp_path: Path) -> None:
    pem = tmp_path / "broker.pem"
    pem.write_text(CERTIFICATE_AND_KEY)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pem)
    client_context = ssl.create_default_context(cafile=str(pem))
    with MockCluster(ssl_context=server_context) as cluster, Client(cluster) as client:
        cluster.create_topic("t")
        client.socket = client_context.wrap_socket(client.socket, server_hostname="localhost")
        assert client.produce(batch(value=b"x" * 300_000))["error_code"] == 0
        assert client.produce(batch())["base_offset"] == 1
        assert len(fetch(client, 0)["records"]) > 300_000
        with Client(cluster) as plain:
            plain.send(METADATA, 9, {"topics": None})
            assert plain.is_closed()
        with Client(cluster) as trusting_nobody, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(trusting_nobody.socket, server_hostname="localhost")
        cluster.stop_broker(1)
        assert client.is_closed()
    with pytest.raises(ValueError, match="cannot be sent to a process"):
        MockCluster(process=True, ssl_context=server_context)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"brokers": 0}, "brokers must be at least 1"),
        (
            {"brokers": 2, "replication_factor": 3},
            r"replication_factor must be 1 to 2 \(the brokers\), not 3",
        ),
        ({"default_partitions": 0}, "default_partitions"),
        ({"as_version": "1.0"}, "as_version must be one of 2.1, .*not '1.0'"),
        ({"racks": ["a", "b"]}, "racks must name one rack for each of 1 brokers, not 2"),
    ],
)
def test_bad_options(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        MockCluster(**options)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("Produce",), "nothing to inject"),
        (("Produkt", 7), "no API 'Produkt'; known are AddOffsetsToTxn"),
        (("Produce", "NOT_A_LEADER"), "no broker error is named 'NOT_A_LEADER'"),
    ],
)
def test_bad_faults(cluster: MockCluster, arguments: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        cluster.inject(*arguments)
    with pytest.raises(ValueError, match="close_connection must be one of"):
        cluster.inject("Produce", close_connection="later")
    with pytest.raises(ValueError, match="times must be at least 1"):
        cluster.inject("Produce", 7, times=0)
    with pytest.raises(ValueError, match="node must be 1 to 1"):
        cluster.inject("Produce", 7, node=4)
