"""Metadata, leaders, connections: what the producer makes of a cluster that changes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

import pytest

from kprod import KafkaProducer, errors
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeCluster, MakeProducer

RELEASES = ["2.1", "2.4", "2.8", "3.0", "3.5", "3.9", "4.0", "4.1"]


def refused_ports(count: int) -> list[int]:
    """Ports on which nobody listens."""
    with contextlib.ExitStack() as bound:
        sockets = [bound.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def refused_port() -> int:
    """A port on which nobody listens."""
    [port] = refused_ports(1)
    return port


# --- leaders


def test_a_new_leader_named_by_the_produce_response_is_used_without_asking_for_metadata(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(2, replication_factor=2)
    cluster.create_topic("t")
    # A retry that had to wait for its back-off, or for metadata, would take longer than this test.
    producer = make_producer(cluster, retry_backoff_ms=20_000, retry_backoff_max_ms=20_000, linger_ms=0)
    old = cluster.leader("t")
    producer.send("t", b"0").get(10)
    cluster.move_leader("t", 0, 3 - old)
    metadata = producer.send("t", b"1").get(5)
    assert (metadata.offset, metadata.attempts) == (1, 2)
    assert [request.node for request in cluster.requests_of("Produce")][-2:] == [old, 3 - old]


@pytest.mark.parametrize("release", ["2.8", "3.5"])
def test_a_moved_leader_is_found_by_metadata_with_brokers_that_give_no_hints(
    make_cluster: MakeCluster, make_producer: MakeProducer, release: str
) -> None:
    cluster = make_cluster(2, replication_factor=2, as_version=release)
    cluster.create_topic("t")
    producer = make_producer(cluster, linger_ms=0)
    for i in range(6):
        producer.send("t", b"%d" % i).get(10)
        cluster.move_leader("t", 0, 3 - cluster.leader("t"))
    assert producer.send("t", b"6").get(10).offset == 6
    assert [record.value for record in cluster.records("t")] == [b"%d" % i for i in range(7)]


def test_the_loss_of_a_leader_is_survived_by_its_replica(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(3, replication_factor=3)
    cluster.create_topic("t", partitions=3)
    producer = make_producer(cluster, linger_ms=0)
    for partition in range(3):
        producer.send("t", b"0", partition=partition).get(10)
    cluster.stop_broker(cluster.leader("t", 1))
    futures = [producer.send("t", b"%d" % i, partition=i % 3) for i in range(90)]
    assert all(future.get(10).offset >= 1 for future in futures)
    assert cluster.count("t") == 93


def test_a_partition_without_a_leader_waits_for_one(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(2)
    cluster.create_topic("t")
    producer = make_producer(cluster)
    leader = cluster.leader("t")
    producer.send("t", b"0").get(10)
    cluster.stop_broker(leader)
    future = producer.send("t", b"1")
    with pytest.raises(errors.KafkaTimeoutError, match=r"no leader|not connected|connection was lost"):
        future.get(0.2)
    cluster.start_broker(leader)
    assert future.get(10).offset == 1


def test_an_election_that_takes_long_is_noticed_soon(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    """The back-off of retries must not grow while a leader is away: records would go on so much later."""
    cluster = make_cluster(2)
    cluster.create_topic("t")
    producer = make_producer(cluster, retry_backoff_max_ms=20_000, reconnect_backoff_max_ms=20_000)
    leader = cluster.leader("t")
    producer.send("t", b"0").get(10)
    before = len(cluster.requests_of("Metadata"))
    cluster.stop_broker(leader)
    future = producer.send("t", b"1")
    # With the back-off the twelfth would come after a minute.
    eventually(lambda: len(cluster.requests_of("Metadata")) >= before + 12)
    cluster.start_broker(leader)
    assert future.get(10).offset == 1


def test_records_without_a_key_avoid_partitions_without_a_leader(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster = make_cluster(2)
    cluster.create_topic("t", partitions=2)
    producer = make_producer(cluster, linger_ms=0, batch_size=1)
    for partition in (0, 1):
        producer.send("t", b"0", partition=partition).get(10)
    gone = cluster.leader("t", 0)
    cluster.stop_broker(gone)
    eventually(lambda: producer._engine_started.cluster.available_partitions_for_topic("t") == {1})  # type: ignore[union-attr]
    futures = [producer.send("t", b"v") for _ in range(50)]
    assert {future.get(10).partition for future in futures[5:]} == {1}


def test_every_broker_leads_its_own_partitions(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(3)
    cluster.create_topic("t", partitions=9)
    producer = make_producer(cluster)
    futures = [producer.send("t", b"v", partition=i % 9) for i in range(900)]
    producer.flush(10)
    assert all(future.succeeded() for future in futures)
    assert {request.node for request in cluster.requests_of("Produce")} == {1, 2, 3}
    assert cluster.problems == []


# --- topics


def test_new_partitions_are_noticed(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(metadata_max_age_ms=100)
    assert producer.partitions_for("t") == {0}
    cluster.add_partitions("t", 3)
    eventually(lambda: producer.partitions_for("t") == {0, 1, 2})
    assert producer.send("t", b"v", partition=2).get(10).partition == 2


def test_naming_an_unknown_partition_fails_at_once_and_looks_for_it(
    cluster: MockCluster, producer: KafkaProducer, eventually: Eventually
) -> None:
    producer.send("t", b"v").get(10)
    cluster.add_partitions("t", 2)
    with pytest.raises(
        ValueError, match=r"partition 1 of topic 't' does not exist: the topic has 1 partitions"
    ):
        producer.send("t", b"v", partition=1)
    eventually(lambda: producer.partitions_for("t") == {0, 1})
    assert producer.send("t", b"v", partition=1).get(10).partition == 1


def test_a_topic_is_created_where_the_broker_does_that(cluster: MockCluster, producer: KafkaProducer) -> None:
    assert producer.send("brand-new", b"v").get(10).offset == 0
    assert cluster.topics()["brand-new"] == 1


def test_topics_are_not_created_when_that_is_switched_off(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(allow_auto_create_topics=False, max_block_ms=200)
    started = time.monotonic()
    with pytest.raises(
        errors.KafkaTimeoutError, match=r"no metadata for topic 'nowhere' .*UNKNOWN_TOPIC"
    ) as caught:
        producer.send("nowhere", b"v")
    assert 0.15 < time.monotonic() - started < 3
    assert isinstance(caught.value.__cause__, errors.UnknownTopicOrPartitionError)
    assert "nowhere" not in cluster.topics()


def test_an_unknown_topic_times_out_and_works_once_it_is_there(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(auto_create_topics=False)
    producer = make_producer(cluster, max_block_ms=100)
    with pytest.raises(errors.KafkaTimeoutError):
        producer.send("later", b"v")
    with pytest.raises(errors.KafkaTimeoutError):
        producer.partitions_for("later")
    cluster.create_topic("later")
    assert producer.send("later", b"v").get(10).offset == 0


def test_a_sender_that_waits_for_a_topic_goes_on_when_it_is_created(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(auto_create_topics=False)
    producer = make_producer(cluster)
    offsets: list[int] = []
    thread = threading.Thread(target=lambda: offsets.append(producer.send("later", b"v").get(10).offset))
    thread.start()
    while not cluster.requests_of("Metadata"):
        pass
    cluster.create_topic("later")
    thread.join(10)
    assert offsets == [0]


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("", ValueError, "empty"),
        (".", ValueError, "'.'"),
        ("..", ValueError, "'..'"),
        ("a b", ValueError, "ASCII letters"),
        ("ä", ValueError, "ASCII letters"),
        ("a/b", ValueError, "ASCII letters"),
        ("x" * 250, ValueError, "249"),
        (b"t", TypeError, "str"),
        (None, TypeError, "str"),
        (7, TypeError, "str"),
        (["t"], TypeError, "str"),
    ],
)
def test_a_name_that_is_no_topic_name_is_refused_at_once(
    cluster: MockCluster, producer: KafkaProducer, name: str, error: type[Exception], text: str
) -> None:
    asked = len(cluster.requests_of("Metadata"))
    with pytest.raises(error, match=text):
        producer.send(name, b"v")
    with pytest.raises(error, match=text):
        producer.partitions_for(name)
    assert len(cluster.requests_of("Metadata")) == asked


def test_a_topic_the_brokers_refuse_fails_at_once(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.inject("Metadata", "TOPIC_AUTHORIZATION_FAILED", topic="secret", times=2)
    started = time.monotonic()
    with pytest.raises(errors.TopicAuthorizationFailedError) as caught:
        producer.send("secret", b"v")
    assert time.monotonic() - started < 5
    assert caught.value.topic == "secret"
    assert producer.send("t", b"v").get(10).offset == 0


def test_a_topic_that_is_deleted_and_created_with_fewer_partitions_is_followed(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster.create_topic("shrinks", partitions=4)
    producer = make_producer(metadata_max_age_ms=100, linger_ms=0)
    for partition in range(4):
        producer.send("shrinks", b"v", partition=partition).get(10)
    cluster.recreate_topic("shrinks", partitions=2)
    eventually(lambda: producer.partitions_for("shrinks") == {0, 1})
    futures = [producer.send("shrinks", b"v", key=b"%d" % i) for i in range(50)]
    producer.flush(10)
    assert {future.get().partition for future in futures} == {0, 1}
    assert cluster.count("shrinks") == 50


def test_one_topic_name_per_str_subclass_is_one_topic(cluster: MockCluster, producer: KafkaProducer) -> None:
    class Name(str):
        pass

    assert producer.send(Name("t"), b"0").get(10).offset == 0
    assert producer.send("t", b"1").get(10).offset == 1


def test_metadata_errors_are_retried(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.inject("Metadata", "LEADER_NOT_AVAILABLE", topic="t", times=3)
    producer = make_producer()
    assert producer.send("t", b"v").get(10).offset == 0


# --- bootstrapping


def test_unreachable_bootstrap_servers_fail_quickly_and_say_why() -> None:
    first, second = refused_ports(2)
    started = time.monotonic()
    with pytest.raises(errors.NoBrokersAvailable) as caught:
        KafkaProducer(bootstrap_servers=[f"127.0.0.1:{first}", f"127.0.0.1:{second}"])
    assert time.monotonic() - started < 3
    text = str(caught.value)
    assert f"127.0.0.1:{first}" in text
    assert f"127.0.0.1:{second}" in text
    assert text.count("refused") == 2


def test_a_host_name_that_does_not_exist_is_named() -> None:
    with pytest.raises(errors.NoBrokersAvailable, match=r"no-such-host\.invalid.*cannot be resolved"):
        KafkaProducer(bootstrap_servers="no-such-host.invalid:9092", bootstrap_timeout_ms=5000)


def test_one_reachable_bootstrap_server_is_enough(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(bootstrap_servers=[f"127.0.0.1:{refused_port()}", cluster.bootstrap_servers])
    assert producer.bootstrap_connected()
    assert producer.send("t", b"v").get(10).offset == 0


def test_a_bootstrap_server_that_does_not_answer_is_given_up_after_the_timeout(cluster: MockCluster) -> None:
    cluster.set_unreachable(1)
    started = time.monotonic()
    with pytest.raises(errors.NoBrokersAvailable, match=r"127\.0\.0\.1"):
        KafkaProducer(bootstrap_servers=cluster.bootstrap_servers, bootstrap_timeout_ms=300)
    assert 0.25 < time.monotonic() - started < 3


def test_a_server_that_is_not_kafka_is_recognised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(10):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(errors.NoBrokersAvailable) as caught:
            KafkaProducer(
                bootstrap_servers=f"127.0.0.1:{listener.getsockname()[1]}",
                bootstrap_timeout_ms=2000, reconnect_backoff_ms=5, reconnect_backoff_max_ms=10,
            )  # fmt: skip
        with contextlib.suppress(OSError):  # Windows: a listener is not connected; closing it is enough there
            listener.shutdown(socket.SHUT_RDWR)
    assert "Kafka" in str(caught.value)
    thread.join(5)


def test_without_waiting_for_bootstrap_the_constructor_returns_at_once() -> None:
    started = time.monotonic()
    with KafkaProducer(
        bootstrap_servers=f"127.0.0.1:{refused_port()}", bootstrap_timeout_ms=0, max_block_ms=100
    ) as producer:
        assert time.monotonic() - started < 1
        assert not producer.bootstrap_connected()
        with pytest.raises(errors.KafkaTimeoutError, match=r"no broker could be asked.*refused"):
            producer.send("t", b"v")


def test_when_all_known_brokers_moved_the_bootstrap_servers_are_asked_again(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    # KIP-899: the bootstrap address (a load balancer, say) leads to another cluster of brokers later on.
    first, second = make_cluster(), make_cluster()
    for cluster in (first, second):
        cluster.create_topic("t")
    balancer = Balancer(first.ports[0])
    try:
        producer = make_producer(bootstrap_servers=f"127.0.0.1:{balancer.port}", linger_ms=0)
        producer.send("t", b"to the first").get(10)
        balancer.target = second.ports[0]
        first.stop_broker(1)
        producer.send("t", b"to the second").get(10)
    finally:
        balancer.close()
    assert [record.value for record in second.records("t")] == [b"to the second"]


class Balancer:
    """Forwards TCP connections to a port that can be changed."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.close()


# --- versions


@pytest.mark.parametrize("release", RELEASES)
def test_brokers_of_every_supported_release_work(
    make_cluster: MakeCluster, make_producer: MakeProducer, release: str
) -> None:
    cluster = make_cluster(2, as_version=release, replication_factor=2)
    cluster.create_topic("t", partitions=4)
    producer = make_producer(cluster, compression_type="zstd", linger_ms=1)
    futures = [producer.send("t", b"%d" % i, key=b"%d" % i, headers=[("h", b"v")]) for i in range(200)]
    producer.flush(10)
    assert all(future.succeeded() for future in futures)
    cluster.move_leader("t", 0, 3 - cluster.leader("t", 0))
    for i in range(200):
        producer.send("t", b"%d" % i, key=b"%d" % i)
    producer.flush(10)
    assert cluster.count("t") == 400


def test_the_newest_versions_are_used(cluster: MockCluster, producer: KafkaProducer) -> None:
    producer.send("t", b"v").get(10)
    [produce] = cluster.requests_of("Produce")
    assert produce.version >= 12
    assert {request.version for request in cluster.requests_of("ApiVersions")} >= {3} or any(
        request.version >= 3 for request in cluster.requests_of("ApiVersions")
    )


def test_a_broker_that_changes_its_release_is_asked_anew(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    producer.send("t", b"0").get(10)
    cluster.set_version("2.4")
    cluster.disconnect_clients()
    assert producer.send("t", b"1").get(10).offset == 1
    cluster.set_version("4.1")
    cluster.disconnect_clients()
    assert producer.send("t", b"2").get(10).offset == 2
    versions = [request.version for request in cluster.requests_of("Produce")]
    assert versions[-1] > versions[-2]


def test_a_broker_that_is_too_old_is_refused_with_the_reason(cluster: MockCluster) -> None:
    cluster.set_api_versions({"Produce": (0, 2)})
    with pytest.raises(errors.NoBrokersAvailable, match=r"Produce .* needs Apache Kafka 2\.1 or newer"):
        KafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, bootstrap_timeout_ms=2000, reconnect_backoff_ms=5,
            reconnect_backoff_max_ms=10,
        )  # fmt: skip


# --- connections


def test_a_broker_that_restarts_is_connected_to_again(cluster: MockCluster, producer: KafkaProducer) -> None:
    for i in range(3):
        assert producer.send("t", b"v").get(10).offset == i
        cluster.stop_broker(1)
        cluster.start_broker(1)


def test_idle_connections_are_closed_and_made_again(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(connections_max_idle_ms=100)
    producer.send("t", b"v").get(10)
    eventually(lambda: cluster.connection_count() == 0)
    assert producer.send("t", b"v").get(10).offset == 1


def test_the_bootstrap_connection_is_closed_when_it_is_not_needed(
    cluster: MockCluster, producer: KafkaProducer, eventually: Eventually
) -> None:
    producer.send("t", b"v").get(10)
    eventually(lambda: cluster.connection_count() == 1)


def test_a_broker_that_hangs_is_left_after_request_timeout_ms(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(2, replication_factor=2)
    cluster.create_topic("t")
    producer = make_producer(cluster, request_timeout_ms=200, linger_ms=0)
    producer.send("t", b"0").get(10)
    leader = cluster.leader("t")
    cluster.set_unreachable(leader)
    future = producer.send("t", b"1")
    with pytest.raises(errors.KafkaTimeoutError):
        future.get(0.05)
    cluster.move_leader("t", 0, 3 - leader)
    assert future.get(10).offset == 1
    assert [record.value for record in cluster.records("t")] == [b"0", b"1"]


def test_broker_addresses_given_by_ipv6_work(make_producer: MakeProducer, make_cluster: MakeCluster) -> None:
    cluster = make_cluster(host="::1")
    producer = make_producer(cluster)
    assert producer.send("t", b"v").get(10).offset == 0


def test_a_name_with_several_addresses_is_tried_address_by_address(
    cluster: MockCluster, make_producer: MakeProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    dead = refused_port()

    def two_addresses(host: str, port: int, *args: int, **kwargs: int) -> object:
        if host != "two.example":
            return resolve(host, port, *args, **kwargs)
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "a name, not numbers")
        family = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*family, ("127.0.0.1", dead)), (*family, ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    producer = make_producer(
        bootstrap_servers=f"two.example:{cluster.ports[0]}",
        reconnect_backoff_ms=30_000,
        reconnect_backoff_max_ms=30_000,
    )
    assert producer.send("t", b"v").get(10).offset == 0


def test_a_question_about_the_cluster_waits_for_a_broker_and_does_not_ask_every_moment(
    cluster: MockCluster, make_producer: MakeProducer, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """The idle connections are closed: one is made for the question, once there can be one."""
    producer = make_producer(connections_max_idle_ms=50, metadata_max_age_ms=3_600_000)
    producer.send("t", b"v").get(10)
    engine = producer.engine
    eventually(lambda: not producer.bootstrap_connected())
    cluster.set_unreachable(1)
    waits: list[float] = []
    changed = engine._shared.changed
    wait = changed.wait

    def noted(timeout: float | None = None) -> bool:
        if threading.current_thread().name == "asks":
            waits.append(0.0 if timeout is None else timeout)
            if len(waits) == 3:
                cluster.set_unreachable(1, False)
        return wait(timeout)

    monkeypatch.setattr(changed, "wait", noted)
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(engine.describe_cluster(["t"], 30)), name="asks", daemon=True
    )
    asking.start()
    asking.join(30)
    node, body = answers[0]
    assert node.port == cluster.ports[0]
    assert [topic["name"] for topic in body["topics"]] == ["t"]
    assert set(waits) == {1.0}
